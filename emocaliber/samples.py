"""Several sampled answers to one row: what each says, and what most of them say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from emocaliber.records import RecordError
from emocaliber.response import parse
from emocaliber.scoring import ScoredRow, response_of

# Correctly rounded, so that equal shares are equal and none is moved over the edge of a bin: m of k samples
# is an edge, or at least 1 / (10 k) away from it.
_SHARE = Context(prec=28)
_EXACT = Context(prec=200)


@dataclass(frozen=True)
class Sample:
    """What one sample says: a candidate and a confidence in [0, 1], each None where it says none."""

    label: str | None
    confidence: Decimal | None


@dataclass(frozen=True)
class Majority:
    """What most of k samples say: `label`, named by `n` of them; None and 0 where no sample has a label.

    `agreement`: n / k. `mean_confidence`: of those of the n samples that state one. Both are None where
    there is nothing to take them of. `is_tie`: another label was named as often.
    """

    label: str | None
    n: int
    is_tie: bool
    agreement: Decimal | None
    mean_confidence: Decimal | None


def read_samples(record: Mapping[str, Any], row: ScoredRow) -> tuple[Sample, ...] | None:
    """Read the `samples` of a record, of which its `response` may be one; without it, the first one is it.

    Args:
        record: a row; `samples`, where it has them, is a list of responses to it.
        row: the same row scored.
    Returns:
        None for a row without samples, with fewer than two of them, or failed.
    Raises:
        RecordError: `samples` is not a list of texts.
    """
    written = record.get("samples")
    if written is None:
        return None
    if not isinstance(written, list) or not all(isinstance(text, str) for text in written):
        raise RecordError(
            f"row {row.id!r}: samples is not a list of texts; make it the responses of the model"
        )
    if len(written) < 2 or row.status == "failed":
        return None
    response = response_of(record)
    scored = Sample(row.label, row.confidence)
    return tuple(scored if text == response else _sample(text, row.candidates) for text in written)


def _sample(text: str, candidates: Sequence[str]) -> Sample:
    parsed = parse(text, candidates)
    return Sample(parsed.label, parsed.confidence)


def majority(samples: Sequence[Sample], candidates: Sequence[str]) -> Majority:
    """Give the label that most samples name; their order does not matter.

    Of labels named equally often, the one whose samples state the higher confidences in sum (none counts
    as 0); of equals in that too, the first of the candidates. A sample without a label votes for none, but
    is one of the k.
    """
    votes = Counter(sample.label for sample in samples if sample.label is not None)
    if not votes:
        return Majority(None, 0, False, None, None)
    n = max(votes.values())
    leading = [label for label in candidates if votes[label] == n]
    # Of equals, max gives the first.
    label = leading[0] if len(leading) == 1 else max(leading, key=lambda name: _stated_sum(samples, name))
    stated = [one.confidence for one in samples if one.label == label and one.confidence is not None]
    total = Decimal(0)
    for confidence in sorted(stated):  # what is rounded, if anything is, does not depend on their order
        total = _EXACT.add(total, confidence)
    return Majority(
        label,
        n,
        len(leading) > 1,
        _SHARE.divide(Decimal(n), Decimal(len(samples))),
        _EXACT.divide(total, Decimal(len(stated))) if stated else None,
    )


def _stated_sum(samples: Sequence[Sample], label: str) -> Fraction:
    return sum(
        (Fraction(one.confidence) for one in samples if one.label == label and one.confidence), Fraction()
    )
