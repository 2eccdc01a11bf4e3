"""What the comparisons write: Markdown tables, a marked section of a file, a whole file or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from emocaliber.jsonl import RecordError


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], others: str = "---") -> str:
    """A Markdown table; `others` is the mark of all columns but the first, "---:" for numbers."""
    lines = [f"| {' | '.join(line)} |\n" for line in (titles, *rows)]
    lines.insert(1, f"|---{f'|{others}' * (len(titles) - 1)}|\n")
    return "".join(lines)


def around_section(file: Path, name: str) -> tuple[str, str]:
    """The text up to the end of `<!-- name: begin -->` and from `<!-- name: end -->` on.

    Raises RecordError where they are not there once, in this order.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise RecordError(f"{file}: no {begin} followed by {end}; put both where the tables go")
    before, after = text.split(begin)
    return before + begin, end + after.split(end)[1]


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Make the folder and the file; afterwards it holds all of the content, or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
