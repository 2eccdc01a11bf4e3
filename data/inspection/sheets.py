"""Contact sheets: a page a task with some images of each label, as files that a browser shows offline."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from data.inspection.rows import Row
from emocaliber.jsonl import write_text_atomic
from emocaliber.report.page import thumbnails_of
from emocaliber.report.tables import printable
from emocaliber.taxonomy import task_sort_key

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.1rem; margin: 1.6rem 0 .2rem; border-bottom: 1px solid #8886; }}
h3 {{ font-size: .85rem; font-weight: 600; margin: .6rem 0 .3rem; }}
.n {{ font-weight: 400; opacity: .7; }}
.images {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
figure {{ margin: 0; width: 104px; }}
img, .none {{ width: 100px; height: 100px; object-fit: contain; background: #8882; display: block; }}
.none {{ font-size: .7rem; text-align: center; line-height: 100px; }}
figcaption {{ font-size: .65rem; overflow-wrap: anywhere; opacity: .75; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .2rem .8rem; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_sheets(folder: Path, rows: Sequence[Row], per_label: int, seed: int) -> None:
    """Write index.html and a page a task, with at most `per_label` images of each label and split."""
    by_task: defaultdict[str, defaultdict[str, defaultdict[str, list[Row]]]]
    by_task = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        by_task[row.task][row.label][row.split].append(row)
    splits = list(dict.fromkeys(row.split for row in rows))
    lines = []
    for number, task in enumerate(sorted(by_task, key=task_sort_key), start=1):
        labels = by_task[task]
        name = f"{number:02d}_{re.sub(r'[^A-Za-z0-9-]+', '_', task)[:60]}.html"
        drawn_by = f"{seed} {task}".encode(errors="backslashreplace")  # a name need not be Unicode
        chosen = _chosen(labels, per_label, random.Random(drawn_by))
        body = f'<p><a href="index.html">all tasks</a></p>\n{_sheet(task, labels, chosen)}'
        write_text_atomic(folder / name, _PAGE.format(title=_text(task), body=body))
        counts = [sum(len(of_label.get(split, ())) for of_label in labels.values()) for split in splits]
        cells = "".join(f"<td>{n:,}</td>" for n in (len(labels), *counts))
        lines.append(f'<tr><td><a href="{escape(name)}">{_text(task)}</a></td>{cells}</tr>')
    head = "".join(f"<th>{_text(title)}</th>" for title in ("Task", "labels", *splits))
    body = f"<h1>Contact sheets</h1>\n<table><tr>{head}</tr>\n" + "\n".join(lines) + "\n</table>"
    write_text_atomic(folder / "index.html", _PAGE.format(title="Contact sheets", body=body))


def _chosen(
    labels: Mapping[str, Mapping[str, list[Row]]], per_label: int, choice: random.Random
) -> dict[tuple[str, str], list[Row]]:
    return {
        (label, split): choice.sample(rows, min(per_label, len(rows)))
        for label in sorted(labels)
        for split, rows in labels[label].items()
    }


def _sheet(
    task: str,
    labels: Mapping[str, Mapping[str, list[Row]]],
    chosen: Mapping[tuple[str, str], list[Row]],
) -> str:
    files = list(dict.fromkeys(row.files[0] for rows in chosen.values() for row in rows))
    # The files may lie below several roots, and the user has named each of them.
    pictures, places = thumbnails_of(files, Path("/"))
    picture_of = {file: None if n is None else pictures[n] for file, n in zip(files, places, strict=True)}
    parts = [f"<h1>{_text(task)}</h1>"]
    for label in sorted(labels):
        total = sum(len(rows) for rows in labels[label].values())
        parts.append(f'<h2>{_text(label)} <span class="n">{total:,} rows</span></h2>')
        for split, rows in labels[label].items():
            parts.append(f'<h3>{_text(split)} <span class="n">{len(rows):,}</span></h3><div class="images">')
            parts += [_figure(row, picture_of[row.files[0]]) for row in chosen[label, split]]
            parts.append("</div>")
    return "\n".join(parts)


def _figure(row: Row, picture: str | None) -> str:
    shown = '<div class="none">not readable</div>'
    if picture is not None:
        shown = f'<img src="data:image/jpeg;base64,{picture}" alt="" loading="lazy">'
    name = row.id if row.id is not None else row.where.rsplit("/", 1)[-1]
    return (
        f'<figure title="{_text(row.where)}&#10;{_text(row.images[0])}">{shown}'
        f"<figcaption>{_text(name)}</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Text as a page shows it, in an attribute too, with what UTF-8 cannot hold written out."""
    return escape(printable(text))
