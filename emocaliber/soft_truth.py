"""What people see in an image when they differ: a row's true distribution over its candidates.

A record gives it as `posterior` (label -> probability) or as `votes` (label -> how many raters named it).
"""

import math
from collections.abc import Mapping
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.taxonomy import match_label

_SUM_TOLERANCE = 1e-3  # the probabilities may have been rounded
_MOST_VOTES = 1e15  # beyond this a float no longer tells whole numbers apart


def soft_truth(record: Mapping[str, Any], candidates: tuple[str, ...]) -> dict[str, float] | None:
    """Give the probability of every candidate, in their order; None where the record does not say.

    A posterior is taken as written, so that it sums to 1 within rounding; votes are divided by their sum.
    Null and an empty object say nothing. Raises RecordError for what is neither, and for both at once.
    """
    posterior, votes = record.get("posterior"), record.get("votes")
    if votes is None or votes == {}:
        return None if posterior is None or posterior == {} else _from_posterior(posterior, candidates)
    if posterior is None or posterior == {}:
        return _from_votes(votes, candidates)
    raise RecordError("posterior and votes are both there; keep the one that is the truth")


def has_soft_truth(record: Mapping[str, Any]) -> bool:
    """Does a record hold a posterior or votes, whether or not they can be read?"""
    return any(record.get(name) not in (None, {}) for name in ("posterior", "votes"))


def most_probable(distribution: Mapping[str, float]) -> str:
    """Give the label of the largest probability; of equal ones, the first in the order of the candidates."""
    return max(distribution, key=distribution.__getitem__)


def _from_posterior(written: Any, candidates: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(written, dict):
        raise RecordError("posterior is not an object; make it label -> probability, or leave it out")
    # Most name exactly the candidates; reading a million of these one by one takes ten seconds.
    values: list[Any] = list(map(written.get, candidates))
    is_plain = len(written) == len(values) and set(map(type, values)) == {float}
    if is_plain and min(values) >= 0 and max(values) <= 1 and _sums_to_one(math.fsum(values)):
        return dict(zip(candidates, values, strict=True))
    posterior: dict[str, float] = {}
    for name, probability in written.items():
        label = _candidate(name, candidates)
        if label is None or not _is_number(probability) or not 0 <= probability <= 1:
            raise RecordError(
                f"posterior gives {name!r} the probability {probability!r}; use candidates and [0, 1]"
            )
        if label in posterior:
            raise RecordError(f"posterior gives {label!r} twice, once as {name!r}; name each label once")
        posterior[label] = float(probability)
    total = math.fsum(posterior.values())
    if not _sums_to_one(total):
        raise RecordError(f"posterior sums to {total:.6g}, not 1; correct it, or leave it out")
    return {label: posterior.get(label, 0.0) for label in candidates}


def _from_votes(written: Any, candidates: tuple[str, ...]) -> dict[str, float]:
    if not isinstance(written, dict):
        raise RecordError("votes is not an object; make it label -> number of raters, or leave it out")
    votes: dict[str, float] = {}
    for name, count in written.items():
        label = _candidate(name, candidates)
        if label is None or not _is_number(count) or not 0 <= count <= _MOST_VOTES:
            shown = repr(count)
            shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
            raise RecordError(f"votes give {name!r} {shown}; use candidates and numbers of raters, 0 or more")
        if label in votes:
            raise RecordError(f"votes give {label!r} twice, once as {name!r}; name each label once")
        votes[label] = float(count)
    total = math.fsum(votes.values())
    if not total:
        raise RecordError("votes sum to 0; give at least one rater's vote, or leave them out")
    return {label: votes.get(label, 0.0) / total for label in candidates}


def _sums_to_one(total: float) -> bool:
    return round(abs(total - 1), 9) <= _SUM_TOLERANCE


def _candidate(name: str, candidates: tuple[str, ...]) -> str | None:
    return name if name in candidates else match_label(name, candidates)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
