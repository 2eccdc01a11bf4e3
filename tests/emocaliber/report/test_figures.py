"""Figures: which ones there are, that they are pictures of the numbers, and the same for the same numbers."""

import io
from decimal import Decimal

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from emocaliber.report.figures import draw_figures, figure_files
from emocaliber.report.summary import evaluate
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import task_group


def row(number, task, confidence, is_right):
    return ScoredRow(
        id=str(number),
        task=task,
        group=task_group(task),
        truth="positive",
        candidates=("positive", "negative"),
        label="positive" if is_right else "negative",
        correct=is_right,
        confidence=None if confidence is None else Decimal(confidence),
        status="answered",
        label_reason=None,
        confidence_reason=None if confidence else "missing",
        flags=frozenset(),
        posterior=None,
    )


def picture(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def test_a_reliability_diagram_per_group_and_three_curves():
    rows = [row(1, "FI-2", "0.9", True), row(2, "FI-8", "0.3", False), row(3, "Mine-2", "1.0", True)]
    figures = draw_figures(evaluate(rows))
    assert set(figures) == {
        "reliability_id_vsa.png",
        "reliability_id_ver.png",
        "reliability_overall.png",
        "accuracy_vs_threshold.png",
        "coverage_vs_threshold.png",
        "accuracy_vs_coverage.png",
    }
    assert set(figures) <= set(figure_files())
    for png in figures.values():
        image = picture(png)
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_different_numbers_are_different_pictures_and_equal_numbers_equal_bytes():
    right = draw_figures(evaluate([row(1, "FI-2", "0.9", True), row(2, "FI-2", "0.4", False)]))
    same = draw_figures(evaluate([row(2, "FI-2", "0.4", False), row(1, "FI-2", "0.9", True)]))
    wrong = draw_figures(evaluate([row(1, "FI-2", "0.9", False), row(2, "FI-2", "0.3", False)]))
    assert right == same
    assert all(right[name] != wrong[name] for name in right)


def test_the_bar_of_a_bin_reaches_its_accuracy():
    # All 0.95 and half of them right: one bar on the right, up to one half.
    figures = draw_figures(evaluate([row(n, "FI-2", "0.95", n % 2 == 0) for n in range(4)]))
    blue = [255 * (0.35 * part + 0.65) for part in to_rgb("#0072B2")]
    image = picture(figures["reliability_id_vsa.png"]).convert("RGB")
    width, height = image.size
    y, x = np.nonzero(np.all(np.abs(np.asarray(image) - blue) < 3, axis=2))
    # The legend shows the colour too, on the left.
    y, x = y[x > width / 2], x[x > width / 2]
    assert width / 20 < np.ptp(x) < width / 8
    # The axes are 1.04 high on about two thirds of the figure.
    assert 0.25 * height < np.ptp(y) < 0.4 * height


def test_rows_without_confidence_have_no_figures():
    assert draw_figures(evaluate([row(1, "FI-2", None, True)])) == {}


def test_a_group_without_confidence_is_left_out():
    figures = draw_figures(evaluate([row(1, "FI-2", None, True), row(2, "FI-8", "0.5", True)]))
    assert "reliability_id_vsa.png" not in figures
    assert "reliability_id_ver.png" in figures
