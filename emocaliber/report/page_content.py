"""What `report.html` holds of the numbers and of the rows, as plain values that JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from emocaliber.response import SECTIONS, parse

_NOT_SHOWN = {"thresholds"}  # of a summary
_NOT_FACTS = {
    *("overall", "groups", "tasks", "warnings", "unit"),
    *("paper", "protocol_difference", "samples"),  # in the logs and metrics.json
    "confidences",  # a table of its own
}
_MOST_CURVE_POINTS = 400
_DIGITS = (
    12  # of a number: rounded far beyond the four that the page shows, so that it shows the same as the log
)


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of metrics.json; tasks and groups as lists, which keep their order."""
    facts = [[str(key), _fact(value)] for key, value in metrics.items() if key not in _NOT_FACTS]
    groups = _mapping(metrics.get("groups"))
    tasks = _mapping(metrics.get("tasks"))
    return {
        "facts": facts,
        "warnings": [str(text) for text in metrics.get("warnings") or ()],
        "tasks": [{"name": str(name), "samples": _summary(task)} for name, task in tasks.items()],
        "groups": [{"name": str(name), **_pooled(group)} for name, group in groups.items()],
        "overall": {"name": "Overall", **_pooled(metrics.get("overall"))},
        "confidences": _compared(_mapping(metrics.get("confidences"))),
    }


def _compared(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores of several confidences on the same rows: of each task, of each group, of all."""
    from emocaliber.report.confidences_section import CONFIDENCE_TITLES

    overall = _mapping(content.get("overall"))
    sets = [("task", name, one) for name, one in _mapping(content.get("tasks")).items()]
    sets += [("group", name, one) for name, one in _mapping(content.get("groups")).items()]
    sets += [("overall", "Overall", overall)] if overall else []
    return [
        {
            "kind": kind,
            "name": str(name),
            "n": _plain(_mapping(one).get("n")),
            "confidences": [
                {"title": CONFIDENCE_TITLES.get(key, str(key)), "samples": _summary(scores)}
                for key, scores in _mapping(_mapping(one).get("confidences")).items()
            ],
        }
        for kind, name, one in sets
    ]


def _fact(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(one)}" for key, one in value.items())
    return json.dumps(_plain(value))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pooled(value: Any) -> dict[str, Any]:
    pooled = _mapping(value)
    return {
        "tasks": [str(name) for name in pooled.get("tasks") or ()],
        "samples": _summary(pooled.get("samples")),
        "task_mean": _plain(_mapping(pooled.get("task_mean"))),
    }


def _summary(value: Any) -> dict[str, Any]:
    summary = {str(key): _plain(one) for key, one in _mapping(value).items() if key not in _NOT_SHOWN}
    curve = summary.get("risk_coverage") or []
    if len(curve) > _MOST_CURVE_POINTS:
        last = len(curve) - 1
        steps = _MOST_CURVE_POINTS - 1
        summary["risk_coverage"] = [curve[round(i * last / steps)] for i in range(steps + 1)]
    return summary


def packed_rows(rows: Sequence[Mapping[str, Any]], thumbnails: Sequence[int | None]) -> dict[str, Any]:
    """The rows, each with the place of its thumbnail; a list of candidates that many share is there once."""
    sets: dict[tuple[str, ...], int] = {}
    packed = []
    for row, thumbnail in zip(rows, thumbnails, strict=True):
        candidates = tuple(str(one) for one in row.get("candidates") or ())
        number = sets.setdefault(candidates, len(sets))
        packed.append(_row(row, candidates) | {"candidates": number, "thumbnail": thumbnail})
    return {"candidate_sets": list(sets), "rows": packed}


def _row(row: Mapping[str, Any], candidates: Sequence[str]) -> dict[str, Any]:
    confidence = row.get("confidence")
    response = row.get("response")
    posterior = _mapping(row.get("posterior"))
    return {
        **{key: str(row.get(key) or "") for key in ("id", "task", "status")},
        **{
            key: None if row.get(key) is None else str(row[key])
            for key in ("image", "truth", "label", "label_reason", "confidence_reason", "response", "error")
        },
        "confidence": None if confidence is None else _plain(float(confidence)),
        "correct": bool(row.get("correct")),
        "flags": sorted(str(flag) for flag in row.get("flags") or ()),
        "posterior": [_plain(posterior.get(one, 0.0)) for one in candidates] if posterior else None,
        "steps": _steps(response, candidates) if isinstance(response, str) else None,
    }


def _steps(response: str, candidates: Sequence[str]) -> list[list[int] | None]:
    """Where in the response each step of the reasoning stands, in UTF-16 units, as JavaScript counts.

    The response is in the page already: the places cost a few bytes, the texts again would double its size.
    """
    reasoning = parse(response, candidates).reasoning
    places: list[list[int] | None] = []
    for name in SECTIONS:
        text = reasoning.get(name)
        start = response.find(text) if text else -1
        ends = (start, start + len(text or ""))
        places.append([_utf16_length(response[:end]) for end in ends] if start >= 0 else None)
    return places


def _utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that JSON lacks become null, other objects their text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return round(float(value), _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Iterable):
        return [_plain(one) for one in value]
    return str(value)
