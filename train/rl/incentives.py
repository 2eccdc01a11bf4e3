"""What a reward pays for, computed from its payoffs: the properties of a sound one, and by how much.

Every number comes from a grid of confidences and of chances, and from roots between its points. Where an open
interval of confidences is allowed, payoffs at its ends stand for their limits there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emocaliber.reward import PROPERTIES, Reward

Floats = npt.NDArray[np.float64]

CONTINUUM: Floats = np.arange(2001) / 2000
"""All of [0, 1], by steps fine enough that results are right to six digits."""

TWO_DECIMALS: Floats = np.arange(1, 100) / 100
"""What a model writes that states two decimals and is never certain: 0.01 … 0.99."""

_EQUAL = 1e-9


@dataclass(frozen=True)
class Payoffs:
    """What a right (`if_right`) and a wrong answer pay at each of the `confidences`, one array each."""

    confidences: Floats
    if_right: Floats
    if_wrong: Floats

    def expected(self, chance: float) -> Floats:
        """The expected payoff of every confidence, for an answer that is right with that chance in [0, 1]."""
        if chance in (0, 1):  # 0 · -inf would not be a number
            return self.if_right if chance else self.if_wrong
        return chance * self.if_right + (1 - chance) * self.if_wrong

    def best(self, chance: float) -> float:
        """The expected payoff of the best confidence. As a maximum of lines it is convex in the chance."""
        return float(self.expected(chance).max())

    def best_confidence(self, chance: float) -> float:
        """The confidence that pays the most; of several the one nearest to the chance."""
        expected = self.expected(chance)
        best = self.confidences[expected >= expected.max() - _EQUAL]
        return float(best[np.abs(best - chance).argmin()])


@dataclass(frozen=True)
class Incentives:
    """What a reward pays for, over a set of confidences.

    `misstatement`: how far the best confidence is from the chance at most. `regret`: the most that stating
    the chance itself loses. `deliberate_error`: what an answer pays that is meant to be wrong, confidence at
    its best. `error_pays_below`: the chance below which an honest answer pays less than that; 0 if none does.
    `least` and `greatest` payoff of a well-formed response, `malformed` that of any other, and
    `malformed_pays_above`: the confidence above which a wrong answer pays less than a malformed one; None if
    none does. `properties`: which of `PROPERTIES` hold.
    """

    misstatement: float
    regret: float
    deliberate_error: float
    error_pays_below: float
    least: float
    greatest: float
    malformed: float
    malformed_pays_above: float | None
    properties: frozenset[str]


def payoffs(reward: Reward, confidences: Floats = CONTINUUM) -> Payoffs:
    """Tabulate the payoffs of a reward at confidences in [0, 1], which must rise."""
    if_right, if_wrong = (
        np.array([reward.payoff(correct, float(confidence)) for confidence in confidences], dtype=np.float64)
        for correct in (True, False)
    )
    return Payoffs(confidences, if_right, if_wrong)


def incentives(reward: Reward, confidences: Floats = CONTINUUM) -> Incentives:
    """Compute what a reward pays for, if those are the confidences that can be stated.

    The chances for which it is asked whether stating them is optimal are the same, without 0 and 1.
    """
    table = payoffs(reward, confidences)
    chances = [float(chance) for chance in confidences if 0 < chance < 1]
    best = np.array([table.best(chance) for chance in chances])
    honest = np.array([_honest(reward, chance) for chance in chances])
    regret = float((best - honest).max())
    least = float(min(table.if_right.min(), table.if_wrong.min()))
    greatest = float(max(table.if_right.max(), table.if_wrong.max()))
    found = {
        "honest": regret <= _EQUAL,
        "better_pays_more": bool((np.diff([table.best(0), *best, table.best(1)]) > 0).all()),
        "format_pays": least > reward.malformed,
        "bounded": bool(np.isfinite([least, greatest]).all()),
    }
    return Incentives(
        misstatement=max(abs(table.best_confidence(chance) - chance) for chance in chances),
        regret=regret,
        deliberate_error=table.best(0),
        error_pays_below=_error_pays_below(table),
        least=least,
        greatest=greatest,
        malformed=reward.malformed,
        malformed_pays_above=_malformed_pays_above(reward, table),
        properties=frozenset(name for name in PROPERTIES if found[name]),
    )


def _honest(reward: Reward, chance: float) -> float:
    return chance * reward.payoff(True, chance) + (1 - chance) * reward.payoff(False, chance)


def _error_pays_below(table: Payoffs) -> float:
    """The greatest chance at which the best honest payoff is that of a deliberate error; 0 if there is none.

    The best payoff is convex and starts at the deliberate error's: below this chance it is never above it.
    """
    from scipy.optimize import brentq

    def gain(chance: float) -> float:
        return table.best(chance) - table.best(0)

    losing = [chance for chance in np.linspace(0.001, 1, 1000) if gain(chance) <= 0]
    if not losing:
        return 0.0
    return float(brentq(gain, losing[-1], losing[-1] + 0.001)) if losing[-1] < 1 else 1.0


def _malformed_pays_above(reward: Reward, table: Payoffs) -> float | None:
    from scipy.optimize import brentq

    is_worse = table.if_wrong < reward.malformed
    if not is_worse.any():
        return None
    first = int(is_worse.argmax())
    if first == 0:
        return float(table.confidences[0])
    return float(
        brentq(
            lambda confidence: reward.payoff(False, confidence) - reward.malformed,
            table.confidences[first - 1],
            min(table.confidences[first], np.nextafter(1, 0)),
        )
    )
