"""The incentive analysis: against closed forms, and each reward held to the properties that it claims."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emocaliber.reward import PROPERTIES, REWARDS, Reward, brier_reward, log_clipped_reward
from train.rl.incentives import TWO_DECIMALS, incentives, payoffs

INSIDE = st.floats(0, 1, exclude_min=True, exclude_max=True)
LARGEST = 20.0


def made_up(payoff: Callable[[bool, float], float], malformed: float = -1.0) -> Reward:
    return Reward("made up", "", payoff, malformed, frozenset(), "")


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def paid(reward: Reward, p: float, c: float) -> float:
    """The expected payoff of stating c for an answer that is right with chance p."""
    return p * reward.payoff(True, c) + (1 - p) * reward.payoff(False, c)


# What each property says of one reward, a chance p, a greater chance q, and a confidence c, all in (0, 1).
SAYS: dict[str, Callable[[Reward, float, float, float], bool]] = {
    "honest": lambda reward, p, q, c: paid(reward, p, p) >= paid(reward, p, c) - 1e-9,
    "better_pays_more": lambda reward, p, q, c: (
        paid(reward, q, q) > paid(reward, p, p) and paid(reward, q, q) > reward.payoff(False, c)
    ),
    "format_pays": lambda reward, p, q, c: (
        min(reward.payoff(True, c), reward.payoff(False, c)) > reward.malformed
    ),
    "bounded": lambda reward, p, q, c: (
        max(abs(reward.payoff(True, c)), abs(reward.payoff(False, c))) < LARGEST
    ),
}
COUNTEREXAMPLES = {  # p, q, c
    ("emocaliber", "better_pays_more"): (0.1, 0.28, 0.01),
    ("emocaliber", "format_pays"): (0.5, 0.6, 0.96),
    ("emocaliber", "bounded"): (0.5, 0.6, 1 - 1e-9),
    ("rewarding_doubt", "better_pays_more"): (0.05, 0.15, 0.01),
}
CLAIMS = [(name, claim) for name, reward in REWARDS.items() for claim in sorted(reward.claims)]


def test_every_property_is_claimed_or_has_a_counterexample():
    assert set(SAYS) == set(PROPERTIES)
    assert {*CLAIMS, *COUNTEREXAMPLES} == {(name, claim) for name in REWARDS for claim in PROPERTIES}
    assert not {*CLAIMS} & {*COUNTEREXAMPLES}


@pytest.mark.parametrize(("name", "claim"), CLAIMS)
@given(p=INSIDE, q=INSIDE, c=INSIDE)
def test_a_claim_holds(name, claim, p, q, c):
    p, q = min(p, q), max(p, q)
    # Nearer than this the difference in payoff, of order p (q - p), is lost in rounding.
    assume(q - p > 1e-6 and q > 1e-4)
    assert SAYS[claim](REWARDS[name], p, q, c)


@pytest.mark.parametrize(("name", "claim"), list(COUNTEREXAMPLES))
def test_what_is_not_claimed_fails(name, claim):
    p, q, c = COUNTEREXAMPLES[name, claim]
    assert p < q
    assert not SAYS[claim](REWARDS[name], p, q, c)


@pytest.mark.parametrize("name", REWARDS)
def test_what_is_computed_is_what_is_claimed(name):
    assert incentives(REWARDS[name]).properties == REWARDS[name].claims


# numbers against closed forms


def test_the_published_reward_pays_for_deliberate_errors_below_085():
    found = incentives(REWARDS["emocaliber"])
    p = found.error_pays_below
    assert p == pytest.approx(0.84897, abs=1e-5)
    assert 1 + p - 2 * entropy(p) == pytest.approx(1, abs=1e-5)
    assert found.deliberate_error == 1
    best = payoffs(REWARDS["emocaliber"]).best
    assert best(0.28) == pytest.approx(1 + 0.28 - 2 * entropy(0.28))
    assert best(0.84) < 1 < best(0.86)


def test_the_published_reward_is_unbounded_and_a_malformed_response_beats_a_confident_error():
    found = incentives(REWARDS["emocaliber"])
    assert (found.least, found.greatest, found.malformed) == (-math.inf, 2, -5)
    assert found.malformed_pays_above == pytest.approx(1 - math.exp(-3))


def test_the_published_reward_over_two_decimals():
    found = incentives(REWARDS["emocaliber"], TWO_DECIMALS)
    assert found.deliberate_error == pytest.approx(1 + 2 * math.log(0.99))
    assert (found.least, found.greatest) == pytest.approx((1 + 2 * math.log(0.01), 2 + 2 * math.log(0.99)))
    assert found.malformed_pays_above == pytest.approx(1 - math.exp(-3))
    p = found.error_pays_below
    at_084 = p * (2 + 2 * math.log(0.84)) + (1 - p) * (1 + 2 * math.log(0.16))
    assert at_084 == pytest.approx(found.deliberate_error, abs=1e-9)
    assert found.properties == {"honest", "bounded"}


def test_rewarding_doubt():
    found = incentives(REWARDS["rewarding_doubt"])
    p = found.error_pays_below
    # 10 ((-H(p) + ln 1000) / d + p / 4) is 10, the payoff of an error at c = 0.001.
    distance = math.log(0.999) - math.log(0.001)
    assert entropy(p) == pytest.approx(distance * p / 4 - math.log(0.999), abs=1e-5)
    assert p == pytest.approx(0.3855, abs=1e-4)
    assert (found.least, found.greatest) == pytest.approx((0, 12.5))
    assert found.malformed_pays_above is None


@pytest.mark.parametrize("p", [0.0, 0.02, 0.3, 0.5, 0.97, 1.0])
def test_what_the_sound_rewards_pay_at_best(p):
    assert payoffs(REWARDS["brier"]).best(p) == pytest.approx(1 + p**2)
    assert payoffs(REWARDS["rlcr"]).best(p) == pytest.approx(1 + p**2 / 2)
    if 0.01 < p < 0.99:
        expected = 1 + p - entropy(p) / math.log(100)
        assert payoffs(REWARDS["log_clipped"]).best(p) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["brier", "rlcr", "log_clipped"])
def test_sound_rewards(name):
    found = incentives(REWARDS[name])
    assert (found.misstatement, found.error_pays_below, found.malformed_pays_above) == (0, 0, None)
    assert found.regret == pytest.approx(0, abs=1e-12)
    assert incentives(REWARDS[name], TWO_DECIMALS).properties == frozenset(PROPERTIES)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("factory", [brier_reward, log_clipped_reward])
def test_every_weight_that_is_allowed_is_sound(factory, weight):
    assert incentives(factory(weight)).properties == frozenset(PROPERTIES)


def test_a_weight_of_two_pays_for_errors_below_one_half():
    # p - 2 p (1 - p) is 0 at p = 0 and p = 1/2.
    found = incentives(made_up(lambda correct, c: correct - 2 * (correct - c) ** 2, malformed=-3.0))
    assert found.error_pays_below == pytest.approx(0.5, abs=1e-6)
    assert found.properties == {"honest", "format_pays", "bounded"}


def test_an_absolute_score_is_not_honest():
    found = incentives(made_up(lambda correct, c: 2 * correct - abs(correct - c)))
    assert found.misstatement == pytest.approx(0.5, abs=1e-3)
    # At p = 1/4 one pays 2p - p for c = 0, and 2p - 2p(1 - p) for the truth: 1/8 less.
    assert found.regret == pytest.approx(0.125, abs=1e-6)
    assert "honest" not in found.properties


def test_a_reward_for_errors_pays_for_them_at_every_chance():
    found = incentives(made_up(lambda correct, c: 1.0 - correct))
    assert found.error_pays_below == 1
    assert "better_pays_more" not in found.properties


def test_malformed_may_beat_every_error():
    found = incentives(made_up(lambda correct, c: float(correct), malformed=0.5))
    assert found.malformed_pays_above == 0
    assert "format_pays" not in found.properties


def test_of_equally_good_confidences_the_nearest_counts():
    table = payoffs(REWARDS["log_clipped"])
    assert table.best_confidence(0.004) == 0.004
    assert np.ptp(table.expected(0.004)[:21]) == pytest.approx(0)
