"""The page to look through predictions of which no truth is known: answers, confidences, reasoning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emocaliber.jsonl import PathLike, RecordError
from emocaliber.record_fields import record_candidates, record_images
from emocaliber.report.page import PageRow, write_page
from emocaliber.response import parse
from emocaliber.scoring import response_of

MOST_ROWS = 20_000
"""A browser holds this many well; the page of more rows shows the first ones."""

_FEW_ROWS = 2000  # up to here a page of larger pictures stays below some 30 MB
_LARGE_SIDE_PIXELS = 256
_SMALL_SIDE_PIXELS = 96


def prediction_row(record: Mapping[str, Any]) -> PageRow:
    """Read a record with a `response` or an `error` as the page shows it, whatever else it lacks."""
    candidates = _or_none(record_candidates, record) or []
    images = _or_none(record_images, record) or [None]
    response = response_of(record)
    parsed = None if response is None else parse(response, candidates)
    error = record.get("error")
    if isinstance(error, Mapping):
        error = ": ".join(str(error[key]) for key in ("type", "message") if error.get(key))
    row = PageRow(
        id=str(record.get("id", "")),
        task=str(record.get("task", "")),
        image=images[0],
        candidates=candidates,
        truth=None,
        status="failed" if parsed is None else "unparsed" if parsed.label is None else "answered",
        response=response,
        error=None if error is None else str(error),
    )
    if parsed is not None:
        row["label"], row["confidence"] = parsed.label, parsed.confidence
        row["label_reason"], row["confidence_reason"] = parsed.label_reason, parsed.confidence_reason
        row["flags"] = sorted(parsed.flags)
    return row


def _or_none(read: Any, record: Mapping[str, Any]) -> Any:
    try:
        return read(record)
    except RecordError:
        return None


def write_prediction_page(
    path: PathLike,
    records: Sequence[Mapping[str, Any]],
    *,
    title: str,
    image_root: Path | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page: afterwards the file holds all of it, or what it held before.

    Args:
        path: of the page, one file that needs no network.
        records: with a `response` or an `error` each; no truth is looked for.
        title: the name of the run.
        image_root: as `emocaliber.report.page.write_page` has it.
        facts: what else the head of the page says of the run, by name.
    """
    rows = [prediction_row(record) for record in records[:MOST_ROWS]]
    status = Counter(row["status"] for row in rows)
    counts = {"n": len(rows), **{name: status[name] for name in ("answered", "unparsed", "failed")}}
    warnings = []
    if len(records) > MOST_ROWS:
        warnings = [f"Only the first {MOST_ROWS:,} of {len(records):,} rows are on this page."]
    write_page(
        path,
        {
            **(facts or {}),
            "overall": {"samples": counts},
            "tasks": {row["task"]: {} for row in rows},
            "warnings": warnings,
        },
        rows,
        title=title,
        image_root=image_root,
        has_truth=False,
        longest_side=_LARGE_SIDE_PIXELS if len(rows) <= _FEW_ROWS else _SMALL_SIDE_PIXELS,
    )
