"""The three layouts in which VECBench is published: recognised by their content, read row by row.

`records_jsonl`: one record a line; `std_json`: {id: {image_path, prompt, ground_truth, other_info:
{candidates, task}}}, as Std-VECBench.json is; `metadata_csv`: columns image_path, task, label, split, as
test_metadata.csv is. Files are streamed, and a line that cannot be read is a row with a fault, not the end.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from emocaliber.jsonl import STRICT_DECODER, NotAnObject, RecordError, read_jsonl_with_faults

COLUMNS = {"image_path": "image_path", "task": "task", "label": "label", "split": "split"}
"""What `metadata_csv` needs -> the name of its column. `split` may be absent."""

COLUMN: dict[str, Any] = {
    "action": "append",
    "default": [],
    "metavar": "NAME=HEADER",
    "help": f"the header of {', '.join(COLUMNS)} in a table (default: the same)",
}
"""The option of a command that reads tables, for `add_argument("--column", **COLUMN)`."""

_CHUNK = 1 << 16
_LONGEST_ENTRY = 1 << 24
_SEEN_OF_JSONL = 100  # lines that are looked at for the first one that is JSON


@dataclass
class Entry:
    """One row: its place FILE:LINE, and its content in our fields, as written; or the fault that hides it.

    `content` may hold id, image, question, conversations, task, ground_truth, candidates, split and whatever
    else a record has. None of it is checked.
    """

    where: str
    content: dict[str, Any] | None
    reason: str = ""
    message: str = ""


def columns_of(parser: argparse.ArgumentParser, written: Sequence[str]) -> dict[str, str]:
    """Give COLUMNS with what --column says of them; ends the command for what says nothing."""
    columns = dict(COLUMNS)
    for text in written:
        name, _, header = text.partition("=")
        if name not in COLUMNS or not header:
            parser.error(f"--column {text}: give one of {', '.join(COLUMNS)} and its header")
        columns[name] = header
    return columns


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOBase]:
    """Open a plain or gzipped file as UTF-8; bytes that are none come as surrogates. Raises RecordError."""
    try:
        with path.open("rb") as raw:
            is_gzip = raw.peek(2).startswith(b"\x1f\x8b")
            file: Any = gzip.GzipFile(fileobj=raw) if is_gzip else raw
            with io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="\n") as text:
                yield text
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "unexpected end"
        raise RecordError(f"{path}: cannot be read ({reason}); give a readable file") from None


def read_lines(path: Path) -> Iterator[Entry]:
    """Yield every line that is not blank as an entry. Raises RecordError for an unreadable file."""
    for number, row in read_jsonl_with_faults(path):
        where = f"{path}:{number}"
        if isinstance(row, RecordError):
            reason = "not_an_object" if isinstance(row, NotAnObject) else "not_json"
            yield Entry(where, None, reason, str(row).removeprefix(f"{where}: "))
        else:
            yield Entry(where, row)


def recognise(path: Path, columns: Mapping[str, str] = COLUMNS) -> tuple[str | None, str]:
    """Give (layout, "") of a file, or (None, what it is instead). Raises RecordError if it is unreadable."""
    if path.suffix.lower() in (".csv", ".tsv"):
        with open_text(path) as text:
            try:
                header = next(csv.reader(text, delimiter=_delimiter(path)), [])
            except csv.Error as error:
                raise RecordError(f"{path}:1: no header can be read ({error}); mend its quotes") from None
        missing = [columns[name] for name in COLUMNS if name != "split" and columns[name] not in header]
        if missing:
            return None, f"a table without the column {missing[0]!r}; it has {', '.join(header) or 'none'}"
        return "metadata_csv", ""
    with open_text(path) as text:
        start = text.read(_CHUNK).lstrip()
    if not start.startswith("{"):
        return None, "neither JSON objects nor a table (.csv, .tsv)" if start else "empty"
    # The object first: a whole file on one line is not to be read as a line.
    first = next(read_std_json(path), None)
    if first is not None and first.content is not None:
        return "std_json", ""
    rows = (entry.content for entry in islice(read_lines(path), _SEEN_OF_JSONL))
    if _is_record(next((row for row in rows if row is not None), {})):
        return "records_jsonl", ""
    return None, "JSON of another form: neither records with conversations and task nor {id: {image_path}}"


def _is_record(value: Mapping[str, Any]) -> bool:
    messages = value.get("conversations")
    if not isinstance(messages, list) or "task" not in value:
        return False
    return not any(isinstance(m, dict) and m.get("role") == "assistant" for m in messages)


def read_entries(path: Path, layout: str, columns: Mapping[str, str] = COLUMNS) -> Iterator[Entry]:
    """Yield the rows of a file of that layout, in their order; any other name is that of JSON lines."""
    if layout == "metadata_csv":
        return read_metadata_csv(path, columns)
    return read_std_json(path) if layout == "std_json" else read_lines(path)


def read_metadata_csv(path: Path, columns: Mapping[str, str] = COLUMNS) -> Iterator[Entry]:
    """Yield the rows of a table; candidates are not in it. Raises RecordError where it cannot be read on."""
    with open_text(path) as text:
        rows = csv.DictReader(text, delimiter=_delimiter(path), restkey="", restval=None)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise RecordError(
                    f"{path}:{rows.reader.line_num}: not a table ({error}); mend the line"
                ) from None
            if row is None:
                return
            where = f"{path}:{rows.line_num}"
            values = {name: row.get(column) for name, column in columns.items()}
            if "" in row or None in row.values():
                n_fields = f"the header has {len(rows.fieldnames or [])} fields"
                yield Entry(where, None, "wrong_columns", f"too many or too few fields; {n_fields}")
                continue
            yield Entry(
                where,
                {
                    "image": values["image_path"],
                    "task": values["task"],
                    "ground_truth": values["label"],
                }
                | ({"split": values["split"]} if values["split"] else {}),
            )


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def read_std_json(path: Path) -> Iterator[Entry]:
    """Yield the values of one JSON object, each as soon as it is read, with the line where it begins."""
    with open_text(path) as text:
        buffer = _Buffer(text)
        if buffer.peek() != "{":
            yield Entry(f"{path}:1", None, "not_json", "no JSON object; give {id: {image_path, …}}")
            return
        buffer.skip()
        while buffer.peek() not in ("}", ""):
            where = f"{path}:{buffer.line}"
            try:
                key = buffer.value()
                buffer.expect(":")
                value = buffer.value()
                if buffer.peek() != "}":
                    buffer.expect(",")
            except ValueError as error:
                yield Entry(where, None, "not_json", f"{error}; nothing after it can be read, mend it")
                return
            yield _from_std(f"{where} ({str(key)[:60]})", key, value)
        if not buffer.peek():
            yield Entry(f"{path}:{buffer.line}", None, "not_json", "the object is cut off; get the file anew")


def _from_std(where: str, key: Any, value: Any) -> Entry:
    if not isinstance(value, dict) or "image_path" not in value:
        return Entry(where, None, "no_image", f"entry {str(key)[:60]!r} is no object with image_path")
    other = value.get("other_info")
    other = other if isinstance(other, dict) else {}
    content = {"id": key, "image": value["image_path"], "question": value.get("prompt")}
    content |= {"task": other.get("task"), "ground_truth": value.get("ground_truth")}
    return Entry(where, content | {"candidates": other.get("candidates")})


class _Buffer:
    """The text of a JSON file from a position on; more is read when a value is not complete yet."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._held = ""
        self._position = 0
        self.line = 1

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            while self._position < len(self._held):
                character = self._held[self._position]
                if character not in " \t\r\n":
                    return character
                self.skip()
            if not self._more(_CHUNK):
                return ""

    def skip(self) -> None:
        """Go past one character."""
        self.line += self._held[self._position] == "\n"
        self._position += 1

    def expect(self, character: str) -> None:
        """Go past that character. Raises ValueError for another."""
        if self.peek() != character:
            raise ValueError(f"not JSON ({character!r} expected, {self.peek() or 'end of file'!r} found)")
        self.skip()

    def value(self) -> Any:
        """Go past one JSON value and give it. Raises ValueError for what is none."""
        self.peek()
        step = _CHUNK
        while True:
            try:
                value, end = STRICT_DECODER.raw_decode(self._held, self._position)
                # A number or a word at the very end of what is held may go on.
                if end < len(self._held) or not self._more(step):
                    return self._past(end, value)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._held) - self._position > _LONGEST_ENTRY or not self._more(step):
                    reason = getattr(error, "msg", type(error).__name__)
                    raise ValueError(f"not JSON ({reason})") from None
            step *= 2

    def _past(self, end: int, value: Any) -> Any:
        self.line += self._held.count("\n", self._position, end)
        start, self._position = self._position, end
        try:
            self._held[start:end].encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("not UTF-8 text") from None
        return value

    def _more(self, n_characters: int) -> bool:
        added = self._text.read(n_characters)
        self._held = self._held[self._position :] + added
        self._position = 0
        return bool(added)
