"""Is this answer right: one row with its response in, one scored row out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from emocaliber.records import RecordError, record_candidates
from emocaliber.response import ParsedResponse, parse
from emocaliber.taxonomy import canonical_task, match_label, task_group

_POSTERIOR_SUM_TOLERANCE = 1e-3  # the probabilities may have been rounded


@dataclass(frozen=True)
class ScoredRow:
    """One row under one protocol.

    `truth` and `label` are spelt as in `candidates`. `status`: `answered` (has a label), `unparsed` (there
    is a response, but no label in it), `failed` (there is no response). The reasons and flags are those of
    `ParsedResponse`, empty for a failed row. `posterior` is the true distribution over the candidates where
    the data knows it; it sums to 1 within rounding.
    """

    id: str
    task: str
    group: str | None
    truth: str
    candidates: tuple[str, ...]
    label: str | None
    correct: bool
    confidence: Decimal | None
    status: Literal["answered", "unparsed", "failed"]
    label_reason: str | None
    confidence_reason: str | None
    flags: frozenset[str]
    posterior: dict[str, float] | None


def score(record: Mapping[str, Any]) -> ScoredRow:
    """Score a row with a `response` or an `error` by the default protocol.

    The label counts only if `parse` finds one; no label is a wrong answer. A row with an error, or without
    a response, is `failed`, whatever else it holds. Raises RecordError for a row that is not valid.
    """
    try:
        candidates = tuple(record_candidates(record))
        truth = _truth(record, candidates)
        posterior = _posterior(record, candidates)
    except RecordError as error:
        raise RecordError(f"row {record.get('id')!r}: {error}") from None
    response = record.get("response")
    has_failed = record.get("error") is not None or not isinstance(response, str)
    parsed = _NOTHING if has_failed else parse(str(response), candidates)
    task = canonical_task(str(record.get("task", "")))
    return ScoredRow(
        id=str(record.get("id", "")),
        task=task,
        group=task_group(task),
        truth=truth,
        candidates=candidates,
        label=parsed.label,
        correct=parsed.label == truth,
        confidence=parsed.confidence,
        status="failed" if has_failed else "unparsed" if parsed.label is None else "answered",
        label_reason=parsed.label_reason,
        confidence_reason=parsed.confidence_reason,
        flags=parsed.flags,
        posterior=posterior,
    )


_NOTHING = ParsedResponse(None, None, None, None, frozenset(), {})


def _truth(record: Mapping[str, Any], candidates: tuple[str, ...]) -> str:
    written = record.get("ground_truth")
    truth = match_label(written, candidates) if isinstance(written, str) else None
    if truth is None:
        raise RecordError(f"ground_truth {written!r} is not among the candidates; correct one of them")
    return truth


def _posterior(record: Mapping[str, Any], candidates: tuple[str, ...]) -> dict[str, float] | None:
    written = record.get("posterior")
    if written is None or written == {}:
        return None
    if not isinstance(written, dict):
        raise RecordError("posterior is not an object; make it label -> probability, or leave it out")
    posterior: dict[str, float] = {}
    for name, probability in written.items():
        label = match_label(name, candidates)
        is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
        if label is None or not is_number or not 0 <= probability <= 1:
            raise RecordError(
                f"posterior gives {name!r} the probability {probability!r}; use candidates and [0, 1]"
            )
        if label in posterior:
            raise RecordError(f"posterior gives {label!r} twice, once as {name!r}; name each label once")
        posterior[label] = float(probability)
    total = math.fsum(posterior.values())
    if round(abs(total - 1), 9) > _POSTERIOR_SUM_TOLERANCE:
        raise RecordError(f"posterior sums to {total:.6g}, not 1; correct it, or leave it out")
    return {label: posterior.get(label, 0.0) for label in candidates}


PROTOCOLS: dict[str, Callable[[Mapping[str, Any]], ScoredRow]] = {"default": score}
"""The ways to score a row, by the name that `--protocol` takes."""
