"""Bootstrap, intervals, p-values and Holm's correction: by hand, by textbook formulae, in any order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.metrics.calibration import auroc, brier, ece
from emocaliber.metrics.intervals import (
    Resampled,
    difference,
    draw_weights,
    holm,
    interval,
    mean_interval,
    mean_over,
    p_value,
    resample,
)
from emocaliber.metrics.rows import Group, Rows, patterns, whole
from emocaliber.metrics.scores import SCORES, THRESHOLDS, accuracy

PERCENTS = np.arange(101) / 100
exactly = {"rel": 0, "abs": 1e-12}


def random_rows(seed, n_images, n_tasks=3):
    """Images of one to four rows, right or wrong together more often than not."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(n_images), rng.integers(1, 5, n_images))
    n, levels = len(image), np.array([0.0, 0.3, 0.55, 0.6, 0.8, 0.9, 0.95, 1.0])
    truth = rng.integers(0, 3, n)
    easy = rng.random(n_images)[image] < 0.7
    return Rows(
        task=rng.integers(0, n_tasks, n),
        truth=truth,
        label=np.where(easy, truth, rng.integers(-1, 3, n)),
        level=np.where(rng.random(n) < 0.1, -1, rng.integers(0, len(levels), n)),
        image=image,
        confidence=levels,
        tenth=np.array([0, 3, 5, 6, 8, 9, 9, 9]),
        n_labels=3,
    )


def draws_of(weight, n_draws, seed=0, at_once=1000):
    return np.concatenate(list(draw_weights(np.array(weight), n_draws, seed, at_once)))


def test_a_draw_has_as_many_images_as_the_data():
    draws = draws_of([5, 1, 30, 4], 200)
    assert draws.shape == (200, 4)
    assert (draws.sum(axis=1) == 40).all()
    assert (draws == draws.astype(int)).all() and (draws >= 0).all()


def test_weights_have_the_mean_and_the_variance_of_images_drawn_with_replacement():
    weight = np.array([5, 1, 30, 4])
    draws, share = draws_of(weight, 20_000), np.array([5, 1, 30, 4]) / 40
    # Of 40 images each falls into a pattern with the chance of its share: covariance 40 (p [i = j] - p q).
    expected = 40 * (np.diag(share) - np.outer(share, share))
    assert draws.mean(axis=0) == pytest.approx(weight, abs=4 * math.sqrt(10 / 20_000))
    assert np.cov(draws.T) == pytest.approx(expected, abs=0.35)


def test_draws_depend_on_the_seed_and_not_on_how_many_are_made_at_once():
    assert (draws_of([3, 7, 2], 50, at_once=7) == draws_of([3, 7, 2], 50)).all()
    assert (draws_of([3, 7, 2], 50, seed=1) != draws_of([3, 7, 2], 50, seed=2)).any()
    assert not len(list(draw_weights(np.array([3]), 0, 0, 10)))


def test_the_standard_error_of_accuracy_counts_images_and_not_rows():
    rows = random_rows(0, 300)
    found = patterns(rows.cell, rows.image)
    draws = accuracy(Group(rows, found, [0, 1, 2]).counts(draws_of(found.weight, 4000)).levels)
    right = (rows.truth == rows.label).astype(float)
    deviations = np.bincount(rows.image, right - right.mean())
    clustered = math.sqrt((deviations**2).sum()) / len(rows)
    of_rows = math.sqrt(right.mean() * (1 - right.mean()) / len(rows))
    assert clustered > 1.3 * of_rows
    # A standard deviation of 4,000 draws is known to 1.1 %.
    assert draws.std() == pytest.approx(clustered, rel=0.05)
    assert draws.mean() == pytest.approx(right.mean(), abs=4 * clustered / math.sqrt(4000))


def test_the_order_of_the_rows_changes_no_digit_of_any_score_in_any_draw():
    rows = random_rows(1, 120)
    rng = np.random.default_rng(2)
    order, name_of_image = rng.permutation(len(rows)), rng.permutation(120)
    columns = {name: getattr(rows, name)[order] for name in ("task", "truth", "label", "level")}
    shuffled = Rows(
        **columns,
        image=name_of_image[rows.image][order],
        confidence=rows.confidence,
        tenth=rows.tenth,
        n_labels=3,
    )
    sets = {"all": [0, 1, 2], "two": [0, 2], "one": [1]}
    results = []
    for one in (rows, shuffled):
        results.append(resample({"run": one}, sets, 60, 5).scored)
    names = {*SCORES, *(f"{name}_at_{t}" for name in ("acc", "f1", "coverage") for t in THRESHOLDS)}
    for name in sets:
        one, other = (result["run", name] for result in results)
        assert set(one.draws) == names
        for score in names:
            assert one.value(score) == other.value(score), score
            assert one.draws[score].shape == (60,)
            assert np.array_equal(one.draws[score], other.draws[score], equal_nan=True), score


def test_groups_see_the_same_draws_and_none_are_drawn_for_0():
    rows = random_rows(3, 40, n_tasks=1)
    result = resample({"a": rows, "b": rows}, {"all": [0]}, 20, 0).scored
    one, other = result["a", "all"], result["b", "all"]
    assert (one.draws["acc"] == other.draws["acc"]).all()
    assert len(set(one.draws["acc"].tolist())) > 5
    value, draws = difference(one, other, "ece")
    assert value == 0 and (draws == 0).all()
    none = resample({"a": rows}, {"all": [0]}, 0, 0).scored["a", "all"]
    assert none.value("acc") == one.value("acc") == np.mean(rows.truth == rows.label)
    assert none.draws["acc"].shape == (0,)
    assert none.interval("acc") is None


def test_percentiles_by_hand():
    assert interval(0.5, PERCENTS) == pytest.approx((0.025, 0.975), **exactly)
    assert interval(0.9, PERCENTS[::-1]) == interval(0.5, PERCENTS)
    # Between two draws: 2.5 % of the way from 0 to 1.
    assert interval(0.4, np.array([1.0, 0.0])) == pytest.approx((0.025, 0.975), **exactly)


def test_the_reversed_interval_by_hand():
    # 2 * 0.6 less the percentiles 0.025 and 0.975, and no more than 1.
    assert interval(0.6, PERCENTS, estimated=0.6) == pytest.approx((0.225, 1.0), **exactly)
    assert interval(0.4, PERCENTS, estimated=0.4) == pytest.approx((0.0, 0.775), **exactly)
    # The draws estimate 0.5 where the score is 0.3: 0.8 less the percentiles.
    assert interval(0.3, PERCENTS, estimated=0.5) == pytest.approx((0.0, 0.775), **exactly)
    # All draws lie far above twice the score: no less than 0.
    assert interval(0.1, np.array([0.3, 0.4]), estimated=0.1) == (0.0, 0.0)


def test_a_score_takes_the_interval_that_is_meant_for_it():
    point = {"acc": np.array(0.4), "ece": np.array(0.4), "auroc": np.array(np.nan)}
    point |= {"ece_debiased": np.array(0.3), "brier_discrimination": np.array(0.2)}
    one = Resampled(point, {name: PERCENTS for name in point}, point)
    assert one.interval("acc") == interval(0.4, PERCENTS)
    assert one.interval("ece") == interval(0.4, PERCENTS, estimated=0.4)
    assert one.interval("ece_debiased") == interval(0.3, PERCENTS, estimated=0.4, within=(-1, 1))
    assert one.interval("brier_discrimination") == interval(0.2, PERCENTS, estimated=0.2, within=(0, 0.25))
    assert one.interval("brier_discrimination")[1] == 0.25
    assert (one.value("auroc"), one.interval("auroc")) == (None, None)


def test_an_interval_needs_nine_tenths_of_the_draws():
    def with_undefined(n):
        return np.r_[np.full(n, np.nan), np.linspace(0, 1, 20 - n)]

    assert interval(0.5, with_undefined(2)) == pytest.approx((0.025, 0.975), **exactly)
    assert p_value(with_undefined(2)) == 2 * 2 / 19
    assert interval(0.5, with_undefined(3)) is None
    assert p_value(with_undefined(3)) is None
    assert interval(None, PERCENTS) is None
    assert interval(0.5, np.empty(0)) is None
    assert p_value(np.empty(0)) is None


def test_p_values_by_hand():
    assert p_value(np.array([0.1] * 19)) == 2 * 1 / 20
    assert p_value(np.array([-0.1] * 18 + [0.1])) == 2 * 2 / 20
    # A draw at 0 is on both sides; at most 1.
    assert p_value(np.array([0.1] * 18 + [0.0])) == 2 * 2 / 20
    assert p_value(np.zeros(19)) == 1.0
    assert p_value(np.array([-0.1, 0.1])) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06], **exactly)
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06], **exactly)
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04], **exactly)
    assert holm([0.6, 0.7, 0.001]) == pytest.approx([1.0, 1.0, 0.003], **exactly)
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.sampled_from((0.001, 0.01, 0.02, 0.5, 1.0)), max_size=8))
def test_holm_equals_its_definition(p_values):
    m, ranked = len(p_values), sorted(p_values)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        last = max(rank for rank, value in enumerate(ranked) if value == p)
        expected = min(1.0, max((m - rank) * ranked[rank] for rank in range(last + 1)))
        assert adjusted == pytest.approx(expected, **exactly)


def test_the_mean_over_tasks_is_over_those_that_are_defined():
    one, other = (
        Resampled(*({"auroc": np.array(value)} for value in (point, draws, point)))
        for point, draws in ((0.5, [0.2, np.nan, 0.3]), (np.nan, [0.4, 0.6, np.nan]))
    )
    both = mean_over([one, other])
    assert both.value("auroc") == 0.5
    assert both.draws["auroc"] == pytest.approx([0.2, np.nan, 0.3], nan_ok=True, **exactly)
    assert mean_over([other, other]).value("auroc") is None
    third = Resampled(*({"auroc": np.array(value)} for value in (0.9, [0.8, 0.8, 0.7], 0.9)))
    # Undefined in one of the tasks in the second draw: a mean over the other would be another score.
    assert mean_over([one, third]).draws["auroc"] == pytest.approx([0.5, np.nan, 0.5], nan_ok=True, **exactly)


def test_the_draws_of_a_difference_of_distances_are_reflected():
    def run(point, draws, drawn_from):
        values = (np.array(point), np.array(draws), np.array(drawn_from))
        return Resampled(*({"ece": value, "acc": value} for value in values))

    first, other = run(0.2, [0.3, 0.25], 0.2), run(0.1, [0.25, 0.15], 0.1)
    value, draws = difference(first, other, "acc")
    assert (value, draws) == (pytest.approx(-0.1), pytest.approx([-0.05, -0.1]))
    # 2 * -0.1 less the draws; where the draws see -0.12 in the data, -0.1 - 0.12 less them.
    assert difference(first, other, "ece")[1] == pytest.approx([-0.15, -0.1])
    assert difference(first, run(0.1, [0.25, 0.15], 0.08), "ece")[1] == pytest.approx([-0.17, -0.12])
    assert difference(first, run(np.nan, [0.1, 0.1], np.nan), "ece")[0] is None


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_interval_of_a_ratio_equals_the_textbook(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 12, 40)
    values, weights = rng.random(40), rng.random(40) + 0.5
    ratio = values.sum() / weights.sum()
    images = sorted(set(image.tolist()))
    totals = [(values[image == one].sum(), weights[image == one].sum()) for one in images]
    spread = sum((y - ratio * x) ** 2 for y, x in totals) / (len(images) - 1)
    mean_weight = weights.sum() / len(images)
    error = math.sqrt(spread / len(images)) / mean_weight
    expected = (ratio - 1.959963984540054 * error, ratio + 1.959963984540054 * error)
    found = mean_interval(values, weights, image)
    assert found == pytest.approx(expected, **exactly)
    order, renamed = rng.permutation(40), rng.permutation(12)
    assert mean_interval(values[order], weights[order], renamed[image][order]) == found


def test_the_interval_of_a_plain_mean_by_hand():
    # Two images with sums 1 of 2 and 0 of 2 rows: mean 1/4, image deviations 1/2 and -1/2, over 4 rows;
    # variance 2 * (1/8)^2 * 2 / (2 - 1) = 1/16.
    found = mean_interval(np.array([1.0, 0, 0, 0]), np.ones(4), np.array([0, 0, 1, 1]))
    half = 1.959963984540054 / 4
    assert found == pytest.approx((0.25 - half, 0.25 + half), **exactly)
    assert mean_interval(np.array([1.0, 0.0]), np.ones(2), np.array([4, 4])) is None
    assert mean_interval(np.ones(3), np.ones(3), np.array([0, 1, 7])) == (1.0, 1.0)
    assert mean_interval(np.empty(0), np.empty(0), np.empty(0, np.int64)) is None


# How often the intervals hold the truth, over many samples of a population whose scores are known

LEVELS = np.array([0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
TENTH = np.array([3, 5, 6, 7, 8, 8, 9, 9, 9])
SHARE = np.array([0.02, 0.03, 0.05, 0.1, 0.2, 0.2, 0.2, 0.15, 0.05])
N_IMAGES, N_SAMPLES, N_DRAWS = 200, 200, 200
SCORERS = {"acc": accuracy, "brier": brier, "auroc": auroc, "ece": ece}


def exact_scores(chance):
    """The scores of the population: `SHARE` of the rows state each level, right with that chance."""
    right, wrong = SHARE * chance, SHARE * (1 - chance)
    wins = sum(right[i] * (wrong[:i].sum() + wrong[i] / 2) for i in range(len(LEVELS)))
    gaps = [abs((right - SHARE * LEVELS)[tenth == TENTH].sum()) for tenth in np.unique(TENTH)]
    return {
        "acc": right.sum(),
        "brier": (right * (1 - LEVELS) ** 2 + wrong * LEVELS**2).sum(),
        "auroc": wins / (right.sum() * wrong.sum()),
        "ece": sum(gaps),
    }


def sample(rng, chance):
    """Images of one or two rows, of which the second says and is what the first does: about 300 rows."""
    level = rng.choice(len(LEVELS), N_IMAGES, p=SHARE)
    wrong = rng.random(N_IMAGES) >= chance[level]
    image = np.repeat(np.arange(N_IMAGES), rng.integers(1, 3, N_IMAGES))
    nothing = np.zeros(len(image), dtype=np.int64)
    return Rows(nothing, nothing, wrong[image].astype(np.int64), level[image], image, LEVELS, TENTH, 2)


def coverage(chance):
    """The share of samples in which each score's interval holds its truth; the ECE's also not reversed."""
    truth = exact_scores(chance)
    held = dict.fromkeys((*SCORERS, "ece_percentiles"), 0)
    for number in range(N_SAMPLES):
        rows = sample(np.random.default_rng(number), chance)
        found = patterns(rows.cell, rows.image)
        group = Group(rows, found, [0])
        data = group.counts(whole(found.weight)).levels
        drawn = group.counts(next(draw_weights(found.weight, N_DRAWS, number, N_DRAWS))).levels
        for name in held:
            score = name.removesuffix("_percentiles")
            draws, point = SCORERS[score](drawn), float(SCORERS[score](data)[0])
            low, high = interval(point, draws, estimated=point if name == "ece" else None)
            held[name] += low <= truth[score] + 1e-12 and truth[score] <= high
    return {name: n / N_SAMPLES for name, n in held.items()}


@pytest.mark.parametrize(
    ("overconfidence", "ece", "ece_percentiles"), [(0.0, 0.71, 0.0), (0.03, 0.93, 0.33), (0.10, 0.89, 0.94)]
)
def test_intervals_hold_the_truth_as_often_as_the_readme_says(overconfidence, ece, ece_percentiles):
    held = coverage(LEVELS - overconfidence)
    for score in ("acc", "brier", "auroc"):
        assert held[score] == pytest.approx(0.95, abs=0.05), held
    # Where the ECE is mostly noise its percentiles lie above the truth; the basic interval reaches to it.
    assert held["ece"] == pytest.approx(ece, abs=0.03), held
    assert held["ece_percentiles"] == pytest.approx(ece_percentiles, abs=0.03), held


def test_the_scores_of_the_population_by_hand():
    # Honest confidences: accuracy is their mean, Brier the mean of c (1 - c), ECE 0.
    found = exact_scores(LEVELS)
    assert found["acc"] == pytest.approx((SHARE * LEVELS).sum(), abs=1e-12)
    assert found["brier"] == pytest.approx((SHARE * LEVELS * (1 - LEVELS)).sum(), abs=1e-12)
    assert found["ece"] == pytest.approx(0, abs=1e-12)
    assert exact_scores(LEVELS - 0.03)["ece"] == pytest.approx(0.03, abs=1e-12)
    assert exact_scores(np.full(9, 0.5))["auroc"] == pytest.approx(0.5, abs=1e-12)
