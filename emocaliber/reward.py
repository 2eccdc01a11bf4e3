"""The rewards of stage 3: the text of a response and the truth in, numbers with constant names out.

A reward is one entry of `REWARDS`: what a well-formed response pays for being right or wrong with a stated
confidence, what a malformed one pays, and what the reward claims. To add one, write such an entry; it can
then be chosen by its name everywhere, `train/rl/incentives.py` computes what it pays for, the tests hold it
to its claims, and `python train/describe_rewards.py` adds it to the table and figure of `train/RESULTS.md`.
"""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from emocaliber.response import SECTIONS, ParsedResponse, parse
from emocaliber.taxonomy import match_label

PROPERTIES = ("honest", "better_pays_more", "format_pays", "bounded")
"""What makes a reward sound, for every chance p in (0, 1) that the answer is right: `honest`, stating c = p
is optimal; `better_pays_more`, the optimum rises with p, so that no answer pays more than one that is
likelier to be right, deliberate errors included; `format_pays`, every well-formed response pays more than
every malformed one; `bounded`, there is a least and a greatest payoff."""

REWARD_KEYS = ("score", "format", "correct", "confidence", "brier", "log_score", "answered")
"""The keys of what `compute_reward` returns, in order."""

NO_CONFIDENCE = -1.0
"""The value of `confidence` where none could be read."""

_CLIP = 0.001
_MALFORMED = frozenset({"fallback", "from_distribution", "malformed_reasoning", "rescaled", "truncated"})
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Reward:
    """One reward: `payoff(correct, confidence)` for a well-formed response, `malformed` for any other.

    `payoff` takes a confidence in [0, 1]; where it grows without bound it gives -inf there.
    `allows_certainty`: a stated 0 or 1 is well-formed. `strict`: the published reading is this reward's own.
    `claims`: the `PROPERTIES` that it is meant to have. `formula`: i = 1 for a right answer, else 0; c is the
    stated confidence.
    """

    name: str
    formula: str
    payoff: Callable[[bool, float], float]
    malformed: float
    claims: frozenset[str]
    source: str
    allows_certainty: bool = True
    strict: bool = False


def brier_reward(weight: float = 1.0) -> Reward:
    """Correctness and a Brier score; sound for 0 < `weight` <= 1. Raises ValueError for another weight."""
    _check_weight(weight)
    return Reward(
        name="brier",
        formula=f"i + {_factor(weight)}(1 - (i - c)²)",
        payoff=lambda correct, confidence: correct + weight * (1 - (correct - confidence) ** 2),
        malformed=-1.0,
        claims=frozenset(PROPERTIES),
        source="this repository; with weight 1 it is RLCR's on twice the scale",
    )


def log_clipped_reward(weight: float = 1.0, clip: float = 0.01) -> Reward:
    """Correctness and a log score, bounded by clipping and scaled to [0, 1]; sound for 0 < `weight` <= 1.

    The scale is -ln(clip). With it the optimum p + weight (1 - H(p) / -ln(clip)), H the entropy in nats, has
    a slope of at least 1 - weight + weight · ln(1 - clip) / ln(clip) > 0 for every p. Confidences nearer to 0
    or 1 than `clip` pay what `clip` pays, so that there c = p is one of several optima.
    Raises ValueError for another weight, or a clip outside (0, 0.5).
    """
    _check_weight(weight)
    if not 0 < clip < 0.5:
        raise ValueError(f"clip must lie in (0, 0.5), not {clip}")
    scale = -math.log(clip)
    return Reward(
        name="log_clipped",
        formula=f"i + {_factor(weight)}(1 - ln s / ln {clip:g}), s = c if right, else 1 - c; "
        f"c clipped to [{clip:g}, {1 - clip:g}]",
        payoff=lambda correct, confidence: (
            correct + weight * (1 + log_score(correct, confidence, clip) / scale)
        ),
        malformed=-1.0,
        claims=frozenset(PROPERTIES),
        source="this repository",
    )


def log_score(correct: bool, confidence: float, clip: float = 0.0) -> float:
    """ln of the probability given to what came true, in nats, with the confidence clipped; -inf for none."""
    clipped = min(max(confidence, clip), 1 - clip)
    given = clipped if correct else 1 - clipped
    return math.log(given) if given > 0 else -math.inf


def _check_weight(weight: float) -> None:
    if not 0 < weight <= 1:
        raise ValueError(f"weight must lie in (0, 1], above which errors pay more than guesses, not {weight}")


def _factor(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} "


def _rewarding_doubt(correct: bool, confidence: float) -> float:
    least, greatest = math.log(_CLIP), math.log(1 - _CLIP)
    return 10 * ((log_score(correct, confidence, _CLIP) - least) / (greatest - least) + 0.25 * correct)


REWARDS: Mapping[str, Reward] = {
    reward.name: reward
    for reward in (
        Reward(
            name="emocaliber",
            formula="1 + i + 2 (i ln c + (1 - i) ln(1 - c)), 0 < c < 1",
            payoff=lambda correct, confidence: 1 + correct + 2 * log_score(correct, confidence),
            malformed=-5.0,
            claims=frozenset({"honest"}),
            source="EmoCaliber, as published",
            allows_certainty=False,
            strict=True,
        ),
        brier_reward(),
        Reward(
            name="rlcr",
            formula="0.5 + 0.5 i + 0.5 (1 - (i - c)²)",
            payoff=lambda correct, confidence: 0.5 + 0.5 * correct + 0.5 * (1 - (correct - confidence) ** 2),
            malformed=0.0,
            claims=frozenset(PROPERTIES),
            source="RLCR (arXiv 2507.16806)",
        ),
        Reward(
            name="rewarding_doubt",
            formula="10 ((ln s - ln 0.001) / (ln 0.999 - ln 0.001) + 0.25 i), s = c if right, else 1 - c; "
            "c clipped to [0.001, 0.999]",
            payoff=_rewarding_doubt,
            malformed=-30.0,
            claims=frozenset({"honest", "format_pays", "bounded"}),
            source="Rewarding Doubt (arXiv 2503.02623)",
        ),
        log_clipped_reward(),
    )
}


def compute_reward(
    response: str, truth: str, candidates: Sequence[str], reward: str = "brier", *, strict: bool | None = None
) -> dict[str, float]:
    """Reward a response.

    Args:
        response: what the model wrote.
        truth: the right label; one of the candidates, in any spelling that `match_label` knows.
        candidates: the labels that were offered.
        reward: a name of `REWARDS`.
        strict: True reads as the published reward did (`_read_strictly`), False as the evaluation does
            (`_read`), None as is the reward's own.

    Returns:
        `REWARD_KEYS`, always all, finite: `score`; `format`, 1 if the response is well-formed for this
        reward; `correct`, 1 if its label is the truth, well-formed or not; `confidence` in [0, 1] as stated,
        `NO_CONFIDENCE` where none was read; `brier`, (correct - confidence)²; `log_score`, ln of the
        probability given to what came true, in nats, the confidence clipped to [0.001, 0.999]; `answered`, 1
        if a label was read. Without a confidence `brier` and `log_score` have their worst values, 1 and
        ln 0.001.

    Raises:
        ValueError: the reward is unknown, or the truth is not among the candidates (unless strict, which
            knows no candidates).
    """
    return read_and_reward(response, truth, candidates, reward, strict=strict)[0]


def read_and_reward(
    response: str, truth: str, candidates: Sequence[str], reward: str, *, strict: bool | None = None
) -> tuple[dict[str, float], ParsedResponse | None]:
    """Give what `compute_reward` gives, and what `parse` read for it: None if the reading was strict."""
    chosen = REWARDS.get(reward)
    if chosen is None:
        raise ValueError(f"no reward is called {reward!r}; choose one of {', '.join(REWARDS)}")
    is_strict = chosen.strict if strict is None else strict
    reading = _read_strictly(response, truth) if is_strict else _read(response, truth, tuple(candidates))
    correct, confidence = reading.correct, reading.confidence
    is_stated = confidence != NO_CONFIDENCE
    is_formed = reading.is_formed and (chosen.allows_certainty or 0 < confidence < 1)
    parts = {
        "score": float(chosen.payoff(correct, confidence) if is_formed else chosen.malformed),
        "format": float(is_formed),
        "correct": float(correct),
        "confidence": confidence,
        "brier": (correct - confidence) ** 2 if is_stated else 1.0,
        "log_score": log_score(correct, confidence, _CLIP) if is_stated else math.log(_CLIP),
        "answered": float(reading.is_answered),
    }
    return parts, reading.parsed


class _Reading(NamedTuple):
    is_formed: bool
    is_answered: bool
    correct: bool
    confidence: float
    parsed: ParsedResponse | None = None


def _read(response: str, truth: str, candidates: tuple[str, ...]) -> _Reading:
    """Read as the evaluation does: well-formed if `parse` gives a label and a confidence without repairs.

    A synonym of a label is as good as the label, and an answer that only the confidence after it ends as good
    as a closed one. A confidence on another scale, an answer outside its tag, a text that is cut off, and any
    other reasoning than the five sections, in order, each once and filled, are read, but do not count as
    well-formed: training should not teach them.
    """
    label = truth if truth in candidates else match_label(truth, candidates)
    if label is None:
        raise ValueError(f"truth {truth!r} is not among the candidates {candidates}; correct one of them")
    parsed = parse(response, candidates)
    is_answered, stated = parsed.label is not None, parsed.confidence
    return _Reading(
        is_formed=is_answered and stated is not None and parsed.flags.isdisjoint(_MALFORMED),
        is_answered=is_answered,
        correct=parsed.label == label,
        confidence=NO_CONFIDENCE if stated is None else float(stated),
        parsed=parsed,
    )


def _read_strictly(response: str, truth: str) -> _Reading:
    """Read as the published reward did, to the letter of its tags.

    Well-formed: `<think>`, `<answer>` and `<confidence>` are there, closed, the first of each counting; the
    five sections are inside `<think>`, in any order, filled or not; and the confidence is a Python number
    inside (0, 1). Right: the answer, lower-cased and without punctuation, is exactly one word and the truth.
    """
    text = response if isinstance(response, str) else ""
    think, answer, stated = (_between(text, name) for name in ("think", "answer", "confidence"))
    words = (answer or "").lower().translate(_WITHOUT_PUNCTUATION).split()
    confidence = _python_number(stated)
    is_formed = think is not None and all(_between(think, name) is not None for name in SECTIONS)
    return _Reading(
        is_formed=is_formed and answer is not None and 0 < confidence < 1,
        is_answered=len(words) == 1,
        correct=words == [truth.lower()],
        confidence=confidence,
    )


def _between(text: str, name: str) -> str | None:
    """What is between the first opening tag of that name and the next closing one; None without both."""
    content, closing_tag, _ = text.partition(f"<{name}>")[2].partition(f"</{name}>")
    return content if closing_tag else None


def _python_number(stated: str | None) -> float:
    """The number in [0, 1] that Python's `float` reads, else `NO_CONFIDENCE`."""
    try:
        number = float(stated or "")
    except ValueError:
        return NO_CONFIDENCE
    return number if 0 <= number <= 1 else NO_CONFIDENCE
