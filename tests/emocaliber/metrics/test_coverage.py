"""How often the 95 % intervals hold the truth, over many samples of a population whose scores are known."""

import numpy as np
import pytest

from emocaliber.metrics.calibration import auroc, brier, ece
from emocaliber.metrics.intervals import draw_weights, interval
from emocaliber.metrics.rows import Group, Rows, patterns, whole
from emocaliber.metrics.scores import accuracy

LEVELS = np.array([0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
TENTH = np.array([3, 5, 6, 7, 8, 8, 9, 9, 9])
SHARE = np.array([0.02, 0.03, 0.05, 0.1, 0.2, 0.2, 0.2, 0.15, 0.05])
N_IMAGES, N_SAMPLES, N_DRAWS = 200, 200, 200
SCORES = {"acc": accuracy, "brier": brier, "auroc": auroc, "ece": ece}


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
    held = dict.fromkeys((*SCORES, "ece_percentiles"), 0)
    for number in range(N_SAMPLES):
        rows = sample(np.random.default_rng(number), chance)
        found = patterns(rows.cell, rows.image)
        group = Group(rows, found, [0])
        data = group.counts(whole(found.weight)).levels
        drawn = group.counts(next(draw_weights(found.weight, N_DRAWS, number, N_DRAWS))).levels
        for name in held:
            score = name.removesuffix("_percentiles")
            draws, point = SCORES[score](drawn), float(SCORES[score](data)[0])
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
