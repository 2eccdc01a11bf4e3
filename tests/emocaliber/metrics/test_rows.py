"""Images as patterns: the counts of any weighting equal those of the rows that it stands for, written out."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.metrics.counts import level_counts, tenth_of
from emocaliber.metrics.rows import Group, Rows, patterns, whole
from emocaliber.metrics.scores import scores as scores_of

LEVELS = tuple(Decimal(text) for text in ("0", "0.3", "0.5", "0.55", "0.9", "1"))
N_LABELS = 3
# A row: task, truth, label (-1 for none), level (-1 for none).
ROW = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(-1, 2), st.integers(-1, len(LEVELS) - 1))
IMAGES = st.lists(st.lists(ROW, min_size=1, max_size=3), min_size=1, max_size=12)


def as_rows(images):
    """Rows of images, each a list of rows; the images are numbered as they come."""
    flat = [row for image in images for row in image]
    task, truth, label, level = np.array(flat, dtype=np.int64).reshape(-1, 4).T
    return Rows(
        task=task,
        truth=truth,
        label=label,
        level=level,
        image=np.repeat(np.arange(len(images)), [len(image) for image in images]),
        confidence=np.array([float(level) for level in LEVELS]),
        tenth=np.array([tenth_of(level) for level in LEVELS]),
        n_labels=N_LABELS,
    )


def images_of_patterns(rows, found):
    """What the rows of each pattern's images say, sorted, read back from the patterns."""
    says = list(
        zip(*(getattr(rows, name).tolist() for name in ("task", "truth", "label", "level")), strict=True)
    )
    members = found.members.toarray().astype(int)
    kinds = [says[place] for place in found.row_of_cell]
    return [sorted(kind for kind, n in zip(kinds, line, strict=True) for _ in range(n)) for line in members]


def labels_of(images, tasks):
    """The labels that the tasks' rows name, which is what a group numbers its labels among."""
    rows = [row for image in images for row in image if row[0] in tasks]
    return sorted({label for _, truth, answer, _ in rows for label in (truth, answer)} - {-1})


def check_counts(counts, images, tasks, labels):
    """Compare the first entry of counts with the rows of the images, counted one by one."""
    rows = [row for image in images for row in image if row[0] in tasks]
    levels = counts.levels.first()
    stated = [None if level < 0 else LEVELS[level] for _, _, _, level in rows]
    expected = level_counts(stated, [truth == label for _, truth, label, _ in rows])
    # Levels that a weighting leaves out are there with no rows.
    there = np.isin(levels.confidence, expected.confidence)
    assert not levels.n[~there].any() and not levels.n_correct[~there].any()
    for name in ("confidence", "tenth", "n", "n_correct"):
        assert getattr(levels, name)[there].tolist() == getattr(expected, name).tolist(), name
    assert levels.n_missing == expected.n_missing
    assert levels.n_correct_missing == expected.n_correct_missing
    of_bin = [0 if c is None else tenth_of(c) + 1 for c in stated]
    pairs = [(one, truth, label) for one, (_, truth, label, _) in zip(of_bin, rows, strict=True)]
    for name, wanted in (
        ("support", Counter((one, truth) for one, truth, _ in pairs)),
        ("predicted", Counter((one, label) for one, _, label in pairs if label >= 0)),
        ("hits", Counter((one, truth) for one, truth, label in pairs if truth == label)),
    ):
        by_hand = [[wanted[tenth, label] for label in labels] for tenth in range(11)]
        assert getattr(counts, name)[0].tolist() == by_hand, name


def test_images_that_say_the_same_are_one_pattern():
    one, other = (0, 1, 1, 3), (1, 0, 2, -1)
    rows = as_rows([[one, other], [other], [other, one], [one, one], [other]])
    found = patterns(rows.cell, rows.image)
    by_pattern = dict(zip(map(str, images_of_patterns(rows, found)), found.weight.tolist(), strict=True))
    assert by_pattern == {str([one, other]): 2, str([other]): 2, str([one, one]): 1}


def test_what_differs_in_any_one_field_has_another_cell():
    row = (1, 1, 1, 1)
    others = [tuple(value + (place == field) for place, value in enumerate(row)) for field in range(4)]
    nothing = [(1, 1, -1, 1), (1, 1, 1, -1)]
    rows = as_rows([[row, *others, *nothing, row]])
    assert len(set(rows.cell.tolist())) == 7
    assert rows.cell[0] == rows.cell[-1]
    assert len(rows) == 8


def test_every_combination_has_its_own_cell():
    everything = [
        (task, truth, label, level)
        for task in range(3)
        for truth in range(3)
        for label in range(-1, 3)
        for level in range(-1, len(LEVELS))
    ]
    rows = as_rows([everything])
    assert len(np.unique(rows.cell)) == len(everything)


def test_counts_by_hand():
    rows = as_rows([[(0, 0, 0, 4), (0, 1, 0, 4)], [(0, 1, -1, 5)], [(0, 2, 2, -1)], [(1, 0, 0, 0)]])
    found = patterns(rows.cell, rows.image)
    counts = Group(rows, found, [0]).counts(whole(found.weight))
    assert counts.levels.confidence.tolist() == [0.9, 1.0]
    assert counts.levels.tenth.tolist() == [9, 9]
    assert counts.levels.n.tolist() == [[2, 1]]
    assert counts.levels.n_correct.tolist() == [[1, 0]]
    assert (counts.levels.n_missing.tolist(), counts.levels.n_correct_missing.tolist()) == ([1], [1])
    assert counts.support[0, [0, 10]].tolist() == [[0, 0, 1], [1, 2, 0]]
    assert counts.predicted[0, [0, 10]].tolist() == [[0, 0, 1], [2, 0, 0]]
    assert counts.hits[0, [0, 10]].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert not counts.support[0, 1:10].any()


def test_different_lengths_are_refused():
    with pytest.raises(ValueError):
        patterns(np.array([1, 2]), np.array([0]))


@given(IMAGES, st.sampled_from(((0,), (1, 2), (0, 1, 2))))
def test_the_data_itself_is_counted_as_it_is(images, tasks):
    rows = as_rows(images)
    found = patterns(rows.cell, rows.image)
    assert found.weight.sum() == len(images)
    says = Counter(str(sorted(image)) for image in images)
    read_back = zip(map(str, images_of_patterns(rows, found)), found.weight.tolist(), strict=True)
    assert dict(read_back) == dict(says)
    check_counts(
        Group(rows, found, tasks).counts(whole(found.weight)), images, tasks, labels_of(images, tasks)
    )


@given(IMAGES, st.sampled_from(((0,), (1, 2), (0, 1, 2))), st.integers(0, 2**32 - 1))
def test_a_weighting_counts_the_images_that_it_draws_written_out(images, tasks, seed):
    rows = as_rows(images)
    found = patterns(rows.cell, rows.image)
    weights = np.random.default_rng(seed).integers(0, 4, (2, len(found.weight)))
    group = Group(rows, found, tasks)
    together = group.counts(weights.astype(float))
    of_pattern = images_of_patterns(rows, found)
    for entry, weight in enumerate(weights):
        drawn = [image for image, n in zip(of_pattern, weight, strict=True) for _ in range(n)]
        alone = group.counts(weight[None].astype(float))
        check_counts(alone, drawn, tasks, labels_of(images, tasks))
        assert together.levels.n[entry].tolist() == alone.levels.n[0].tolist()
        assert together.hits[entry].tolist() == alone.hits[0].tolist()


@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_and_of_their_rows_changes_no_count(images, shuffler):
    shuffled = [list(image) for image in images]
    shuffler.shuffle(shuffled)
    for image in shuffled:
        shuffler.shuffle(image)
    one, other = as_rows(images), as_rows(shuffled)
    found, found_again = patterns(one.cell, one.image), patterns(other.cell, other.image)
    assert found.weight.tolist() == found_again.weight.tolist()
    assert found.members.toarray().tolist() == found_again.members.toarray().tolist()
    assert images_of_patterns(one, found) == images_of_patterns(other, found_again)


def test_many_confidences_become_at_most_a_thousand_and_no_bin_or_ece_moves():
    rng = np.random.default_rng(3)
    levels = sorted({Decimal(int(n)).scaleb(-7) for n in rng.integers(0, 10**7 + 1, 3000)} | {Decimal("0.3")})
    n = 4000
    right = rng.integers(0, 2, n)
    fine = Rows(
        task=np.zeros(n, dtype=np.int64),
        truth=np.ones(n, dtype=np.int64),
        label=right,
        level=np.r_[np.arange(len(levels)), rng.integers(-1, len(levels), n - len(levels))],
        image=np.arange(n),
        confidence=np.array([float(level) for level in levels]),
        tenth=np.array([tenth_of(level) for level in levels]),
        n_labels=2,
    )
    coarse = fine.coarsened()
    assert len(coarse.confidence) <= 1000
    assert (np.diff(coarse.confidence) > 0).all()
    assert ((coarse.level < 0) == (fine.level < 0)).all()
    stated = fine.level >= 0
    before, after = fine.level[stated], coarse.level[stated]
    assert (coarse.tenth[after] == fine.tenth[before]).all()
    assert np.abs(coarse.confidence[after] - fine.confidence[before]).max() < 0.001
    scores = [{name: float(value[0]) for name, value in measure(rows).items()} for rows in (fine, coarse)]
    assert scores[1]["ece"] == pytest.approx(scores[0]["ece"], abs=1e-12)
    for score in ("brier", "auroc", "aurc", "smooth_ece"):
        assert scores[1][score] == pytest.approx(scores[0][score], abs=1e-3)
    few = replace(
        fine, level=np.minimum(fine.level, 999), confidence=fine.confidence[:1000], tenth=fine.tenth[:1000]
    )
    assert few.coarsened() is few


def measure(rows):
    found = patterns(rows.cell, rows.image)
    return scores_of(Group(rows, found, [0]).counts(whole(found.weight)))
