"""Is this answer right: one row with its response in, one scored row out."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from emocaliber.records import (
    RecordError,
    is_invalid_record,
    most_probable,
    record_candidates,
    record_images,
    soft_truth,
)
from emocaliber.response import ParsedResponse, parse
from emocaliber.taxonomy import canonical_task, match_label, task_group

UNKNOWN_TRUTH = "not told"
"""The truth of a row whose record is not valid and does not tell one. No answer equals it, nor what the paper
protocol calls the label of a row without one."""


@dataclass(frozen=True)
class ScoredRow:
    """One row under one protocol.

    `truth` and `label` are spelt as in `candidates`. `status`: `answered` (has a label), `unparsed` (there
    is a response, but no label in it), `failed` (there is no response). The reasons and flags are those of
    `ParsedResponse`, empty for a failed row. `posterior` is the true distribution over the candidates where
    the data knows it (`soft_truth`); it sums to 1 within rounding. `image_key` is equal for rows of the
    same image, None where the record names none.
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
    image_key: str | None = None


def score(record: Mapping[str, Any]) -> ScoredRow:
    """Score a row with a `response` or an `error` by the default protocol.

    The label counts only if `parse` finds one; no label is a wrong answer. A row with an error, or without
    a response (see `response_of`), is `failed`, whatever else it holds. A row without `ground_truth` whose
    distribution is known has its most probable label as the truth, of equally probable ones the first
    candidate. A row that stands for an invalid record has failed; what is not known of it is empty, its
    truth `UNKNOWN_TRUTH`.
    Raises RecordError for any other row that is not valid.
    """
    candidates: tuple[str, ...]
    posterior: dict[str, float] | None
    try:
        candidates = tuple(record_candidates(record))
        posterior = soft_truth(record, candidates)
        truth = _truth(record, candidates, posterior)
    except RecordError as error:
        if not is_invalid_record(record):
            raise RecordError(f"row {record.get('id')!r}: {error}") from None
        candidates, posterior, truth = (), None, UNKNOWN_TRUTH
    response = response_of(record)
    parsed = _NOTHING if response is None else parse(response, candidates)
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
        status="failed" if response is None else "unparsed" if parsed.label is None else "answered",
        label_reason=parsed.label_reason,
        confidence_reason=parsed.confidence_reason,
        flags=parsed.flags,
        posterior=posterior,
        image_key=_image_key(record),
    )


def response_of(record: Mapping[str, Any]) -> str | None:
    """Give the text that a row is scored by: its `response`, else its first sample; None if it has failed."""
    if record.get("error") is not None:
        return None
    response, samples = record.get("response"), record.get("samples")
    if response is None and isinstance(samples, list) and samples:
        response = samples[0]
    return response if isinstance(response, str) else None


_NOTHING = ParsedResponse(None, None, None, None, frozenset(), {})


def _truth(
    record: Mapping[str, Any], candidates: tuple[str, ...], posterior: Mapping[str, float] | None
) -> str:
    written = record.get("ground_truth")
    if written is None and posterior is not None:
        return most_probable(posterior)
    truth = match_label(written, candidates) if isinstance(written, str) else None
    if truth is None:
        raise RecordError(f"ground_truth {written!r} is not among the candidates; correct one of them")
    return truth


def _image_key(record: Mapping[str, Any]) -> str | None:
    try:
        return "\n".join(record_images(record))
    except RecordError:
        return None
