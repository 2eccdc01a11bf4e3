"""Post-hoc maps by hand, against their own optimality, and on data whose right map is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from emocaliber.metrics.posthoc import (
    CLIP,
    FITS,
    LEAST_ROWS,
    LogitMap,
    fit_isotonic,
    fit_per_task,
    fit_platt,
    fit_temperature,
)

GRID = np.linspace(0, 1, 101)


def drawn(n, slope=1.0, intercept=0.0, seed=0):
    """Stated hundredths, and answers that are right with sigmoid(slope * logit(c) + intercept)."""
    rng = np.random.default_rng(seed)
    c = np.round(rng.uniform(0.02, 0.98, n), 2)
    return c, rng.random(n) < expit(slope * logit(c) + intercept)


@pytest.mark.parametrize("name", FITS)
def test_honest_confidences_stay_as_they_are(name):
    mapped = FITS[name](*drawn(60_000))(GRID[5:96])
    assert np.abs(mapped - GRID[5:96]).max() < (0.05 if name == "isotonic" else 0.015)


def test_a_known_temperature_and_a_known_logistic_map_are_found():
    temperature = fit_temperature(*drawn(60_000, slope=0.4))
    assert temperature.slope == pytest.approx(1 / 2.5, abs=0.01)
    assert temperature.intercept == 0
    platt = fit_platt(*drawn(60_000, slope=0.5, intercept=-1.0))
    assert (platt.slope, platt.intercept) == pytest.approx((0.5, -1.0), abs=0.03)


def test_two_confidences_by_hand():
    # 0.8 is right in 6 of 10, 0.2 in 1 of 10. Platt's two numbers meet both rates exactly.
    c, right = [0.8] * 10 + [0.2] * 10, [True] * 6 + [False] * 4 + [True] + [False] * 9
    assert fit_platt(c, right)([0.8, 0.2]) == pytest.approx([0.6, 0.1], abs=1e-5)
    assert list(fit_isotonic(c, right)([0.0, 0.2, 0.5, 0.8, 1.0])) == pytest.approx(
        [0.1, 0.1, 0.35, 0.6, 0.6]
    )
    # One confidence, right in 6 of 10: logit(0.9) / T = logit(0.6), so T = ln 9 / ln 1.5 = 5.419.
    assert 1 / fit_temperature([0.9] * 10, right[:10]).slope == pytest.approx(
        np.log(9) / np.log(1.5), rel=1e-4
    )


def test_isotonic_pools_what_falls_and_makes_ties():
    # Means 0, 1, 0, 1 at four confidences: the middle two are pooled to 0.5.
    mapped = fit_isotonic([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1])([0.2, 0.4, 0.6, 0.8])
    assert mapped == pytest.approx([0, 0.5, 0.5, 1])
    # Of the right and wrong pairs, all but (0.4 right, 0.6 wrong) were in order; that one is now a tie.
    assert roc_auc_score([0, 1, 0, 1], [0.2, 0.4, 0.6, 0.8]) == 0.75
    assert roc_auc_score([0, 1, 0, 1], mapped) == 0.875


@pytest.mark.parametrize("seed", range(3))
def test_each_fit_is_where_its_loss_is_least(seed):
    c, right = drawn(400, slope=0.6, intercept=-0.4, seed=seed)

    def loss(slope, intercept):
        return log_loss(right, expit(slope * logit(np.clip(c, CLIP, 1 - CLIP)) + intercept))

    temperature, platt = fit_temperature(c, right), fit_platt(c, right)
    for step in (0.02, -0.02):
        assert loss(temperature.slope + step, 0) > loss(temperature.slope, 0)
        assert loss(platt.slope + step, platt.intercept) > loss(platt.slope, platt.intercept)
        assert loss(platt.slope, platt.intercept + step) > loss(platt.slope, platt.intercept)
    # Isotonic: no other never falling map has a lower Brier score, Platt's and the base rate among them.
    best = ((fit_isotonic(c, right)(c) - right) ** 2).mean()
    for other in (platt(c), temperature(c), np.full(len(c), right.mean())):
        assert best < ((other - right) ** 2).mean()


ROWS = st.lists(
    st.tuples(st.sampled_from((0.0, 0.3, 0.5, 0.55, 0.9, 1.0)), st.booleans()), min_size=2, max_size=40
)


@given(ROWS, st.sampled_from(sorted(FITS)))
def test_no_map_leaves_the_unit_interval_or_bends_back(rows, name):
    c, right = map(list, zip(*rows, strict=True))
    if name == "platt" and len(set(right)) == 1:
        with pytest.raises(ValueError, match="every answer is right or every answer is wrong"):
            FITS[name](c, right)
        return
    found = FITS[name](c, right)
    mapped = found(GRID)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    steps = np.diff(mapped)
    assert (steps >= 0).all() or (name == "platt" and (steps <= 0).all() and found.slope < 0)


def test_a_positive_slope_keeps_the_auroc():
    c, right = drawn(500, slope=0.5, intercept=-1)
    for name in ("temperature", "platt"):
        assert roc_auc_score(right, FITS[name](c, right)(c)) == roc_auc_score(right, c)


def test_certainty_is_cut_to_half_a_hundredth():
    same = LogitMap(1.0, 0.0)
    assert same([0.0, 0.001, 0.5, 1.0]) == pytest.approx([0.005, 0.005, 0.5, 0.995])


def test_per_task_maps_and_the_tasks_that_fall_back():
    high, low = drawn(20_000, intercept=1.0, seed=1), drawn(20_000, intercept=-1.0, seed=2)
    few = ([0.5] * (LEAST_ROWS - 1), [True, False] * 24 + [True])
    right_only = ([0.5] * 100, [True] * 100)
    parts = {"high": high, "low": low, "few": few, "right only": right_only}
    c, right = (np.concatenate([part[place] for part in parts.values()]) for place in (0, 1))
    task = [name for name, part in parts.items() for _ in part[0]]
    maps = fit_per_task(fit_platt, c, right, task)
    assert maps.fell_back == ("few", "right only")
    mapped = maps([0.5] * 5, ["low", "high", "few", "unseen", "low"])
    assert mapped == pytest.approx([expit(-1), expit(1), 0.5, 0.5, expit(-1)], abs=0.02)
    assert mapped[2] == mapped[3] == maps.pooled([0.5])[0]


@pytest.mark.parametrize(
    ("c", "right", "said"),
    [
        ([], [], "rows"),
        ([0.5, 0.5], [1], "one of each a row"),
        ([1.2], [1], "not in"),
        ([np.nan], [1], "not in"),
    ],
)
def test_bad_input_is_refused(c, right, said):
    for fit in FITS.values():
        with pytest.raises(ValueError, match=said):
            fit(c, right)
    with pytest.raises(ValueError, match="one task a row"):
        fit_per_task(fit_platt, [0.5, 0.5], [0, 1], ["a"])
