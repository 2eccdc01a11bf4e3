"""The page of an evaluation: `report.html`, one file that a browser shows without any network.

What a model, a data set or a user wrote is only ever data in it: the JSON blocks cannot end their elements,
the script puts texts into the page as texts, and the page's policy runs no other script than its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from emocaliber.jsonl import PathLike, write_text_atomic
from emocaliber.report.page_content import numbers, packed_rows
from emocaliber.report.thumbnails import LONGEST_SIDE_PIXELS, thumbnails_of
from emocaliber.scoring import response_of

if TYPE_CHECKING:
    from emocaliber.scoring import ScoredRow

_ASSETS = "page_assets"
_SCRIPTS = ("dom.js", "tables.js", "charts.js", "confusion.js", "filters.js", "samples.js", "start.js")
_NUMBERS = re.compile(r"<!-- numbers -->\n(.*?)<!-- end of numbers -->\n", re.DOTALL)


class PageRow(TypedDict, total=False):
    """One row as the page shows it; whatever is missing is shown as missing.

    `image` is a path relative to the image root. `status`: `answered`, `unparsed`, `failed`. The reasons and
    flags are those of `emocaliber.response.ParsedResponse`. `posterior` is the true distribution over the
    candidates, where it is known.
    """

    id: str
    task: str
    image: str | None
    candidates: Sequence[str]
    truth: str | None
    label: str | None
    confidence: float | Decimal | None
    correct: bool
    status: str
    label_reason: str | None
    confidence_reason: str | None
    flags: Sequence[str]
    response: str | None
    error: str | None
    posterior: Mapping[str, float] | None


def page_row(row: ScoredRow, record: Mapping[str, Any], image: str | None) -> PageRow:
    """Put a scored row together with what its record holds: the response, or the error (text or object)."""
    error, response = record.get("error"), record.get("response")
    if response is None:
        response = response_of(record)
    if isinstance(error, Mapping):
        error = ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
    return PageRow(
        id=row.id,
        task=row.task,
        image=image,
        candidates=row.candidates,
        truth=row.truth,
        label=row.label,
        confidence=row.confidence,
        correct=row.correct,
        status=row.status,
        label_reason=row.label_reason,
        confidence_reason=row.confidence_reason,
        flags=sorted(row.flags),
        response=response if isinstance(response, str) else None,
        error=None if error is None else str(error),
        posterior=row.posterior,
    )


def write_page(
    path: PathLike,
    metrics: Mapping[str, Any],
    rows: Iterable[PageRow | Mapping[str, Any]],
    *,
    title: str,
    image_root: Path | None,
    has_truth: bool = True,
    longest_side: int = LONGEST_SIDE_PIXELS,
) -> None:
    """Write the page: afterwards the file holds all of it, or what it held before.

    Args:
        metrics: the content of `metrics.json`; of everything in it, anything may be missing or null.
        rows: in the order in which the page lists them.
        title: the name of the run.
        image_root: what the rows' images are relative to, to put small copies of them into the page; nothing
            outside it is read, and an image that cannot be read has none. None for no copies.
        has_truth: False for rows of which no truth is known: a page without numbers, truths and verdicts.
        longest_side: of the copies, in pixels.
    """
    listed: list[Mapping[str, Any]] = list(rows)
    wanted = [row.get("image") for row in listed]
    pictures: list[str] = []
    places: list[int | None] = [None] * len(listed)
    if image_root is not None:
        pictures, places = thumbnails_of(wanted, image_root, longest_side)
    content = {"title": title, "has_truth": has_truth, **numbers(metrics), **packed_rows(listed, places)}
    write_text_atomic(path, _filled(title, content, pictures))


def _filled(title: str, content: Mapping[str, Any], pictures: Sequence[str]) -> str:
    script = "(() => {\n" + "\n".join(_asset(name) for name in _SCRIPTS) + "})();\n"
    style = _asset("style.css")
    parts = {
        "title": html.escape("".join(c if c.isprintable() else "\ufffd" for c in title)),
        "policy": _policy(script, style),
        "style": style,
        "script": script,
        "content": _embedded(content),
        "thumbnails": _embedded(pictures),
    }
    template = re.sub(_NUMBERS, r"\1" if content["has_truth"] else "", _asset("template.html"))
    # One pass, so that nothing in a part is taken for the name of another.
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], template)


def _asset(name: str) -> str:
    return (resources.files(__package__) / _ASSETS / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Only this script and this style, images from inside the file, and no text that becomes markup."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _embedded(content: Any) -> str:
    """JSON for a script element: no markup characters, and ASCII, so that a lone surrogate is an escape."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
