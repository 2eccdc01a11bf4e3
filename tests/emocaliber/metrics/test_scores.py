"""All scores by name: each is its metric, and the threshold table by hand, at its edges and in any order."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from emocaliber.metrics import calibration, selective
from emocaliber.metrics import calibration as smooth
from emocaliber.metrics import scores as accuracy
from emocaliber.metrics.counts import level_counts, number, tenth_of
from emocaliber.metrics.rows import Group, GroupCounts, Rows, patterns, whole
from emocaliber.metrics.scores import BIASED_UPWARD, SCORES, THRESHOLDS, scores, threshold_scores

CONFIDENCE = st.one_of(st.none(), st.integers(0, 20).map(lambda twentieths: Decimal(twentieths) / 20))
LABEL = st.sampled_from(("awe", "fear"))
ROWS = st.lists(st.tuples(LABEL, st.one_of(st.none(), LABEL), CONFIDENCE), min_size=1, max_size=50)
LABELS = ("awe", "fear")


def counted(rows):
    """The counts of (truth, predicted label, confidence), an image a row."""
    levels = sorted({c for _, _, c in rows if c is not None})
    arrays = Rows(
        task=np.zeros(len(rows), dtype=np.int64),
        truth=np.array([LABELS.index(truth) for truth, _, _ in rows]),
        label=np.array([-1 if label is None else LABELS.index(label) for _, label, _ in rows]),
        level=np.array([-1 if c is None else levels.index(c) for _, _, c in rows]),
        image=np.arange(len(rows)),
        confidence=np.array([float(level) for level in levels]),
        tenth=np.array([tenth_of(level) for level in levels], dtype=np.int64),
        n_labels=len(LABELS),
    )
    found = patterns(arrays.cell, arrays.image)
    return Group(arrays, found, [0]).counts(whole(found.weight))


def table(rows):
    """(rows kept, coverage, accuracy, F1) by threshold."""
    found = {name: number(values[0]) for name, values in threshold_scores(counted(rows)).items()}
    return {
        threshold: (
            round(found[f"coverage_at_{threshold}"] * len(rows)),
            *(found[f"{name}_at_{threshold}"] for name in ("coverage", "acc", "f1")),
        )
        for threshold in THRESHOLDS
    }


def test_the_names_are_those_of_the_scores_each_once():
    rows = counted([("awe", "awe", Decimal("0.5"))])
    assert tuple(scores(rows)) == SCORES
    assert len(set(SCORES)) == len(SCORES)
    assert set(SCORES) > BIASED_UPWARD
    names = {f"{name}_at_{threshold}" for name in ("acc", "f1", "coverage") for threshold in THRESHOLDS}
    assert set(threshold_scores(rows)) == names


@given(ROWS)
@settings(max_examples=50)
def test_each_score_is_its_metric(rows):
    found = {name: float(values[0]) for name, values in scores(counted(rows)).items()}
    correct = [truth == label for truth, label, _ in rows]
    levels = level_counts([c for _, _, c in rows], correct)
    ranked = selective.ranked(levels)
    expected = {
        "acc": accuracy.accuracy(levels),
        "smooth_ece": smooth.smooth_ece(levels),
        **{
            name: getattr(calibration, name)(levels)
            for name in ("ece", "brier", "auroc", "average_precision")
        },
        **{name: getattr(calibration, name)(levels) for name in ("ece_equal_mass", "ece_debiased")},
        **{f"brier_{name}": value for name, value in calibration.brier_parts(levels).items()},
        **{name: getattr(selective, name)(ranked) for name in ("aurc", "eaurc", "augrc")},
        **{f"risk_at_coverage_{share}": selective.risk_at_coverage(ranked, share) for share in (50, 70, 90)},
        **{f"coverage_at_risk_{share}": selective.coverage_at_risk(ranked, share) for share in (5, 10, 20)},
    }
    assert set(expected) == set(SCORES) - {"f1"}
    for name, value in expected.items():
        value = np.nan if number(value) is None else float(value)
        assert found[name] == pytest.approx(value, rel=0, abs=1e-12, nan_ok=True), name
    truth, predicted = as_published(rows)
    f1 = f1_score(truth, predicted, average="weighted", zero_division=0)
    assert found["f1"] == pytest.approx(f1, rel=0, abs=1e-12)


def test_the_thresholds_are_the_nine_tenths_exactly():
    assert [Decimal(threshold) for threshold in THRESHOLDS] == [Decimal(tenth) / 10 for tenth in range(1, 10)]
    assert list(THRESHOLDS) == [f"0.{tenth}" for tenth in range(1, 10)]


@pytest.mark.parametrize("edge", ["0.3", "0.6", "0.7"])
def test_a_confidence_equal_to_the_threshold_is_kept(edge):
    by_threshold = table([("awe", "awe", Decimal(edge))])
    assert by_threshold[edge] == (1, 1.0, 1.0, 1.0)
    assert by_threshold[str(Decimal(edge) + Decimal("0.1"))] == (0, 0.0, None, None)


def test_threshold_table_by_hand():
    rows = [
        ("awe", "awe", Decimal("0.95")),
        ("awe", "fear", Decimal("0.90")),
        ("fear", "fear", Decimal("0.50")),
        ("fear", None, None),  # no confidence: never kept, still in the coverage
        ("fear", None, Decimal("1.0")),  # no answer: kept, and wrong
    ]
    by_threshold = table(rows)
    # 0.9 keeps rows 1, 2, 5: one right of three; awe F1 = 2*1/(2+1) = 2/3 with weight 2, fear F1 = 0.
    assert by_threshold["0.9"] == (3, 0.6, pytest.approx(1 / 3), pytest.approx(4 / 9))
    # 0.5 also keeps row 3: fear has one hit, 2 true, 2 predicted -> 1/2; (2 * 2/3 + 2 * 1/2) / 4.
    assert by_threshold["0.5"] == (4, 0.8, 0.5, pytest.approx(7 / 12))
    assert by_threshold["0.1"] == by_threshold["0.5"]
    assert by_threshold["0.6"] == by_threshold["0.9"]


def test_a_table_of_no_confidences_keeps_nothing():
    assert set(table([("awe", "awe", None)]).values()) == {(0, 0.0, None, None)}


def test_a_draw_without_a_row_has_no_number():
    levels = level_counts([], [])
    nothing = np.zeros((11, 2))
    empty = GroupCounts(levels, nothing, nothing, nothing)
    assert {number(value) for value in scores(empty).values()} == {None}
    assert {number(value) for value in threshold_scores(empty).values()} == {None}


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_rows_changes_no_digit(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    one, other = counted(rows), counted(shuffled)
    assert str(scores(one)) == str(scores(other))
    assert table(rows) == table(shuffled)


@given(ROWS)
@settings(max_examples=30)
def test_the_table_is_that_of_the_rows_at_or_above_each_threshold(rows):
    for threshold, (n, coverage, acc, f1) in table(rows).items():
        kept = [row for row in rows if row[2] is not None and row[2] >= Decimal(threshold)]
        assert (n, coverage) == (len(kept), len(kept) / len(rows))
        if not kept:
            assert (acc, f1) == (None, None)
            continue
        truth, predicted = as_published(kept)
        assert acc == pytest.approx(accuracy_score(truth, predicted), rel=0, abs=1e-12)
        expected = f1_score(truth, predicted, average="weighted", zero_division=0)
        assert f1 == pytest.approx(expected, rel=0, abs=1e-12)


@given(ROWS)
def test_the_curve_agrees_with_the_table(rows):
    points = selective.selective_curve(counted(rows).levels.first())
    for threshold, (n, _, acc, _) in table(rows).items():
        reached = [point for point in points if point.threshold >= float(threshold)]
        assert n == (reached[-1].n if reached else 0)
        assert acc == (reached[-1].accuracy if reached else None)


@given(ROWS)
def test_at_zero_everything_stated_is_kept(rows):
    stated = [row for row in rows if row[2] is not None]
    counts = counted(rows)
    kept = [getattr(counts, name)[0, 1:].sum(axis=0) for name in ("support", "predicted", "hits")]
    f1 = number(accuracy.weighted_f1(*kept))
    assert f1 == (number(scores(counted(stated))["f1"][0]) if stated else None)


def as_published(rows):
    return [truth for truth, _, _ in rows], ["unknown" if label is None else label for _, label, _ in rows]
