"""Every confidence that a row holds, each as a probability that a certain answer to it is right.

Two of them are made of several sampled answers to the row: what each says, and what most of them say.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from emocaliber.records import RecordError
from emocaliber.response import parse, parse_distribution
from emocaliber.scoring import ScoredRow, response_of
from emocaliber.stated import exact_sum
from emocaliber.taxonomy import match_label

STATED, LIKELIHOOD, P_TRUE, DISTRIBUTION = "stated", "likelihood", "p_true", "distribution"
LIKELIHOOD_BEST = "likelihood_best"
AGREEMENT, MEAN_STATED = "agreement", "mean_stated"
CONFIDENCES = (STATED, LIKELIHOOD, P_TRUE, DISTRIBUTION, LIKELIHOOD_BEST, AGREEMENT, MEAN_STATED)
"""Their names. Of the row's answer: `stated`, the number in the response; `likelihood`, its share in the
model's probabilities of all candidates after its own reasoning; `p_true`, the probability of "True" when the
model is asked whether it is right (Kadavath et al. 2022, arXiv 2207.05221); `distribution`, its probability
in the distribution that the response states. Of other answers: `likelihood_best`, the largest such share, of
the candidate that has it; `agreement` and `mean_stated` of the majority of the samples (`Majority`).
"""

_DECIMALS = 12

# Correctly rounded, so that equal shares are equal and none is moved over the edge of a bin: m of k samples
# is an edge, or at least 1 / (10 k) away from it.
_SHARE = Context(prec=28)
_EXACT = Context(prec=200)


@dataclass(frozen=True)
class Confidence:
    """The probability `value`, in [0, 1], that `label` is right; None, and the `reason`, where it gives none.

    Reasons: `missing` (there is nothing, or no answer that it is about), `not_a_number`, `out_of_range`,
    `unknown_label`, `missing_label` (a candidate has no likelihood), and those of `StatedDistribution`.
    """

    label: str | None
    value: Decimal | None
    reason: str | None = None


def read_confidences(record: Mapping[str, Any], row: ScoredRow) -> dict[str, Confidence]:
    """Read the confidences of a row, in the order of `CONFIDENCES`; `row`: the record, scored.

    Only those occur of which the record holds something: a number in the response, `candidate_logprobs`
    (label -> log-probability in nats), `p_true`, a `<distribution>` in the response, two `samples`. A failed
    row has none. Raises RecordError for samples that are no texts; whatever else cannot be read is a reason.
    """
    if row.status == "failed":
        return {}
    found: dict[str, Confidence] = {}
    if "from_distribution" not in row.flags:
        found[STATED] = Confidence(row.label, row.confidence, row.confidence_reason)
    logprobs, p_true = record.get("candidate_logprobs"), record.get("p_true")
    if logprobs is not None:
        found[LIKELIHOOD], found[LIKELIHOOD_BEST] = _likelihoods(logprobs, row)
    if p_true is not None:
        found[P_TRUE] = _answered(row, *_probability(p_true))
    response = response_of(record) or ""
    if "<distribution" in response.lower():
        found[DISTRIBUTION] = _of_distribution(response, row)
    samples = read_samples(record, row)
    if samples is not None:
        voted = majority(samples, row.candidates)
        for name, value in ((AGREEMENT, voted.agreement), (MEAN_STATED, voted.mean_confidence)):
            found[name] = Confidence(voted.label, value, "missing" if value is None else None)
    return {name: found[name] for name in CONFIDENCES if name in found}


def is_beyond_stated(record: Mapping[str, Any]) -> bool:
    """Does a record hold one of the confidences that are neither the stated one nor made of samples?"""
    if record.get("candidate_logprobs") is not None or record.get("p_true") is not None:
        return True
    return "<distribution" in (response_of(record) or "").lower()


def _answered(row: ScoredRow, value: Decimal | None, reason: str | None) -> Confidence:
    """A confidence in the answer of the row: there is none in no answer."""
    return Confidence(None, None, "missing") if row.label is None else Confidence(row.label, value, reason)


def _probability(value: Any) -> tuple[Decimal | None, str | None]:
    if not _is_number(value):
        return None, "not_a_number"
    return (_decimal(value), None) if 0 <= value <= 1 else (None, "out_of_range")


def _of_distribution(response: str, row: ScoredRow) -> Confidence:
    found = parse_distribution(response, row.candidates)
    if found.probabilities is None:
        return _answered(row, None, found.reason)
    value = found.probabilities.get(row.label) if row.label is not None else None
    return _answered(row, value, "missing" if value is None else None)


def _likelihoods(logprobs: Any, row: ScoredRow) -> tuple[Confidence, Confidence]:
    """The share of the row's answer, and the largest share with its candidate, of equals the first."""
    shares = _shares(logprobs, row.candidates)
    if isinstance(shares, str):
        return _answered(row, None, shares), Confidence(None, None, shares)
    best = max(row.candidates, key=shares.__getitem__)
    own = None if row.label is None else shares[row.label]
    return _answered(row, own, None), Confidence(best, shares[best])


def _shares(logprobs: Any, candidates: Sequence[str]) -> dict[str, Decimal] | str:
    """Softmax over the candidates, or the reason why there is none."""
    if not isinstance(logprobs, dict):
        return "not_a_number"
    of_label: dict[str, float] = {}
    for name, logprob in logprobs.items():
        label = name if name in candidates else match_label(name, candidates)
        if label is None:
            return "unknown_label"
        if label in of_label:
            return "duplicate_label"
        if not _is_number(logprob):
            return "not_a_number"
        if logprob > 0:
            return "out_of_range"
        of_label[label] = float(logprob)
    if len(of_label) < len(candidates):
        return "missing_label"
    largest = max(of_label.values())
    odds = {label: math.exp(of_label[label] - largest) for label in candidates}
    total = math.fsum(odds.values())
    return {label: _decimal(one / total) for label, one in odds.items()}


def _decimal(value: float) -> Decimal:
    """To twelve decimals: what a bin has as its edge is on it, whatever the last bits of a float are."""
    return Decimal(f"{value:.{_DECIMALS}f}")


def _is_number(value: Any) -> bool:
    """Is it a finite number? A whole one may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


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

    def stated(label: str) -> list[Decimal]:
        return [one.confidence for one in samples if one.label == label and one.confidence is not None]

    label = max(leading, key=lambda name: sum(map(Fraction, stated(name))))  # of equals the first
    agreement = _SHARE.divide(Decimal(n), Decimal(len(samples)))
    mean = _EXACT.divide(exact_sum(stated(label)), Decimal(len(stated(label)))) if stated(label) else None
    return Majority(label, n, len(leading) > 1, agreement, mean)
