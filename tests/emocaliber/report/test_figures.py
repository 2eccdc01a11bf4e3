"""Figures: which ones there are, that they show the numbers, and are the same for the same numbers."""

import io
import multiprocessing
import warnings
from contextlib import contextmanager
from decimal import Decimal

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from emocaliber.report.figure_style import BLUE, encoded, figure_settings
from emocaliber.report.figures import (
    accuracy_vs_coverage,
    accuracy_vs_threshold,
    draw_figures,
    drawing_process,
    figure_files,
    reliability_diagram,
    reliability_of_tasks,
    risk_curve,
    risk_vs_coverage,
)
from emocaliber.report.summary import evaluate
from emocaliber.scoring import ScoredRow
from emocaliber.taxonomy import TASKS, task_group


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


def many_rows(*tasks):
    rng = np.random.default_rng(0)
    levels = [None, "0.35", "0.5", "0.62", "0.7", "0.75", "0.8", "0.9", "0.95", "1.0"]
    return [
        row(f"{task} {number}", task, levels[rng.integers(len(levels))], rng.random() < 0.6)
        for task in tasks
        for number in range(40)
    ]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


@contextmanager
def every_warning_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def overlaps(figure):
    """Texts that are cut off by the edge of the figure, and pairs that lie on each other."""
    figure.draw_without_rendering()
    unseen = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    boxes = [
        (text.get_text().strip(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text not in unseen and text.get_text().strip()
    ]
    boxes = [(text, box) for text, box in boxes if text and box.width > 1]
    width, height = figure.bbox.size
    cut = [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    pairs = [
        (text, other)
        for place, (text, box) in enumerate(boxes)
        for other, other_box in boxes[:place]
        if box.x0 < other_box.x1 and other_box.x0 < box.x1 and box.y0 < other_box.y1 and other_box.y0 < box.y1
    ]
    return cut, pairs


def test_every_figure_in_two_formats_but_none_of_a_group_without_a_confidence(monkeypatch):
    rows = [*many_rows("FI-2", "FI-8", "Mine-2"), row(0, "Abstract-8", None, True)]
    evaluation = evaluate(rows, n_draws=20)
    with monkeypatch.context() as fewer:
        fewer.setattr("emocaliber.report.figures._SELECTIVE", {})
        some = draw_figures(evaluation)
    assert len(some) == 8
    # The names of all, without drawing them.
    monkeypatch.setattr(
        "emocaliber.report.figures.encoded", lambda figure, suffixes: dict.fromkeys(suffixes, b"")
    )
    names = {
        "reliability_id_vsa",
        "reliability_id_ver",
        "reliability_overall",
        "reliability_tasks",
        "accuracy_vs_threshold",
        "coverage_vs_threshold",
        "accuracy_vs_coverage",
        "risk_vs_coverage",
    }
    figures = draw_figures(evaluation)
    assert set(figures) == {name + suffix for name in names for suffix in (".png", ".pdf")}
    assert set(figures) > set(some)
    assert set(draw_figures(evaluation, (".png",))) == {f"{name}.png" for name in names}
    assert set(figure_files()) - set(figures) == {"reliability_ood_ver.png", "reliability_ood_ver.pdf"}
    for name in {name.rpartition(".")[0] for name in some}:
        image = Image.open(io.BytesIO(some[name + ".png"]))
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(1 << 20)) > 20
        pdf = some[name + ".pdf"]
        assert pdf.startswith(b"%PDF-")
        assert b"/FontFile2" in pdf, "embedded TrueType"
        assert b"/Type3" not in pdf
        assert b"CreationDate" not in pdf


def test_different_numbers_are_different_pictures_and_equal_numbers_equal_bytes(monkeypatch):
    curve = {"accuracy_vs_coverage": accuracy_vs_coverage}
    monkeypatch.setattr("emocaliber.report.figures._SELECTIVE", curve)

    def drawn(*rows):
        return draw_figures(evaluate(rows, n_draws=10))

    right = drawn(row(1, "FI-2", "0.9", True), row(2, "FI-2", "0.4", False))
    wrong = drawn(row(1, "FI-2", "0.9", False), row(2, "FI-2", "0.3", False))
    with matplotlib.rc_context({"font.size": 20, "pdf.fonttype": 3}):
        same = drawn(row(2, "FI-2", "0.4", False), row(1, "FI-2", "0.9", True))
        assert matplotlib.rcParams["font.size"] == 20
    assert len(right) == 8
    assert right == same
    assert all(right[name] != wrong[name] for name in right)


def test_the_bar_of_a_bin_reaches_its_accuracy_the_hatching_over_what_chance_allows():
    # All 0.95 and half of them right: one bar on the right, up to one half.
    overall = evaluate([row(n, "FI-2", "0.95", n % 2 == 0) for n in range(4)], n_draws=100).overall
    axes = reliability_diagram(overall).axes[0]
    bar, band = axes.patches
    assert to_hex(bar.get_facecolor()) == BLUE.lower()
    assert (bar.get_x(), bar.get_width(), bar.get_height()) == pytest.approx((0.9, 0.1, 0.5))
    last = overall.bins[-1]
    assert (band.get_x(), band.get_width(), band.get_y()) == pytest.approx((0.9, 0.1, last.null_low))
    # Of four that are right with chance 0.95, at least half are in more than 97.5 % of the draws.
    assert 0.5 <= last.null_low < last.null_high == pytest.approx(band.get_y() + band.get_height()) == 1
    dot = axes.lines[-1]
    assert (*dot.get_xdata(), *dot.get_ydata()) == (0.95, 0.5)


def test_the_numbers_stand_in_the_reliability_diagram():
    overall = evaluate(many_rows("FI-2"), n_draws=50).overall
    names, numbers, notes = (
        text.splitlines() for text in texts(reliability_diagram(overall)) if "\n" in text
    )
    assert names[1:] == ["Acc", "ECE", "Smooth ECE", "Brier", "ROC AUC"]
    for line, score in zip(numbers[1:], ("acc", "ece", "smooth_ece", "brier", "auroc"), strict=True):
        low, high = overall.intervals[score] or (None, None)
        interval = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
        assert line.strip() == f"{100 * overall.scores[score]:.2f}{interval}"
    assert numbers[1].endswith("]")
    assert notes[1] == "of all 40 rows"
    chance = overall.by_chance
    assert notes[2] == f"if calibrated: {100 * chance.mean:.2f}, 95 % below {100 * chance.p95:.2f}"


def test_without_draws_there_are_no_intervals_and_no_range_of_chance():
    evaluation = evaluate(many_rows("FI-2"), n_draws=0)
    for figure in (
        reliability_diagram(evaluation.overall),
        reliability_of_tasks(evaluation.tasks),
        risk_vs_coverage(evaluation.pooled),
    ):
        assert not [text for text in texts(figure) if "[" in text or "if calibrated" in text]
        assert not [patch for axes in figure.axes for patch in axes.patches if patch.get_hatch()]


def test_the_risk_inside_a_tie_is_its_growing_errors_over_the_coverage():
    # Two rows with one wrong, then two right ones: a quarter of all rows is wrong throughout the second tie.
    curve = risk_curve([(0.5, 0.5), (1.0, 0.25)])
    assert curve[:2] == [(0.0, 0.5), (0.5, 0.5)]
    assert curve[-1] == (1.0, 0.25)
    assert all(risk == pytest.approx(0.25 / coverage) for coverage, risk in curve[1:])
    assert dict(curve)[0.75] == pytest.approx(1 / 3)


def test_the_errors_under_the_risk_curve_are_the_augrc_in_the_legend():
    evaluation = evaluate(many_rows("FI-2", "FI-8"), n_draws=0)
    figure = risk_vs_coverage(evaluation.pooled)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 50]
    assert len(lines) == 3
    for line, summary in zip(lines, evaluation.pooled, strict=True):
        coverage, risk = line.get_xdata(), line.get_ydata()
        assert (coverage[0], coverage[-1]) == (0, 1)
        assert risk[-1] == pytest.approx(1 - summary.acc)
        assert np.trapezoid(risk * coverage, coverage) == pytest.approx(summary.scores["augrc"], abs=1e-4)
        assert np.trapezoid(risk, coverage) == pytest.approx(summary.scores["aurc"], abs=0.01)
        shown = [text.strip() for text in texts(figure)]
        assert f"{100 * summary.scores['aurc']:.2f}" in shown
        assert f"{100 * summary.scores['augrc']:.2f}" in shown


def test_the_accuracy_of_the_most_confident_ends_at_the_rows_with_a_confidence():
    rows = [row(1, "FI-2", "0.9", True), row(2, "FI-2", "0.8", False), row(3, "FI-2", None, True)]
    line = accuracy_vs_coverage([evaluate(rows, n_draws=0).overall]).axes[0].lines[0]
    assert line.get_xdata()[-1] == pytest.approx(2 / 3)
    assert line.get_ydata()[-1] == pytest.approx(1 / 2)


def test_every_task_has_a_panel_whatever_its_name():
    names = [*TASKS, "$x^$ 情感 " + 40 * "long ", "_hidden"]
    rows = [*many_rows(*names), row(0, "Silent-2", None, True)]
    tasks = evaluate(rows, n_draws=10).tasks
    assert len(tasks) == 12
    with every_warning_an_error(), figure_settings():
        figure = reliability_of_tasks(tasks)
        assert list(encoded(figure, (".png",))) == [".png"]
        assert overlaps(figure) == ([], [])
    for axes, task in zip(figure.axes, tasks, strict=True):
        title = axes.get_title(loc="left")
        assert title.startswith(f"{task.name[:25]}")
        assert f"(n = {task.n})\nAcc {100 * task.acc:.2f}" in title
        assert ("none states a confidence" in title) == (task.name == "Silent-2")


def test_of_very_many_tasks_the_first_are_drawn():
    rows = [row(number, f"Mine-{number:02}", "0.8", True) for number in range(40)]
    tasks = evaluate(rows, n_draws=0).tasks
    with figure_settings():
        figure = reliability_of_tasks(tasks)
    assert [axes.get_title(loc="left").split(" ")[0] for axes in figure.axes] == [
        one.name for one in tasks[:24]
    ]
    assert figure.get_suptitle().endswith(", the first 24 of 40 tasks")


def test_confidences_below_every_threshold_are_drawn():
    rows = [row(1, "FI-2", "0.05", True), row(2, "FI-2", "0.05", False)]
    with every_warning_an_error(), figure_settings():
        figure = accuracy_vs_threshold(evaluate(rows, n_draws=0).pooled)
        assert len(encoded(figure)) == 2
    assert "N/A" in [text.strip() for text in texts(figure)]


@pytest.mark.parametrize(("n_tasks", "n_draws"), [(1, 0), (9, 30)])
def test_no_text_is_cut_off_or_lies_on_another(n_tasks, n_draws):
    evaluation = evaluate(many_rows(*list(TASKS)[:n_tasks]), n_draws=n_draws)
    with figure_settings():
        for figure in (
            reliability_diagram(evaluation.overall),
            reliability_of_tasks(evaluation.tasks),
            accuracy_vs_coverage(evaluation.pooled),
            risk_vs_coverage(evaluation.pooled),
        ):
            assert overlaps(figure) == ([], [])


def test_rows_without_confidence_have_no_figures():
    assert draw_figures(evaluate([row(1, "FI-2", None, True)], n_draws=0)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_a_process_draws_the_same_figures_and_costs_none_if_it_dies(monkeypatch, dies):
    evaluation = evaluate([row(1, "FI-2", "0.9", True), row(2, "FI-2", "0.4", False)], n_draws=0)
    expected = draw_figures(evaluation, (".png",))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    with drawing_process((".png",)) as draw:
        [process] = multiprocessing.active_children()
        if dies:
            process.kill()
            process.join()
        assert draw(evaluation)() == expected
    assert not process.is_alive()


def test_on_one_core_there_is_no_process(monkeypatch):
    evaluation = evaluate([row(1, "FI-2", None, True)], n_draws=0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with drawing_process((".png",)) as draw:
        assert multiprocessing.active_children() == []
        assert draw(evaluation)() == {}
