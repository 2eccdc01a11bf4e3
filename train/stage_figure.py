"""The stages' scores as one figure: a panel a score, a line a group, a place a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stage_scores import OPTIMUM
from stage_tables import run_title

from emocaliber.report.figure_style import LINES, clean, encoded, figure_settings, legend_below, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {
    "acc": "Accuracy (%)",
    "ece": "ECE (%)",
    "brier": "Brier score (%)",
    "auroc": "AUROC within tasks (%)",
    "distance": "Distance to the true posterior (%)",
    "facts": "Scene facts right in the reasoning (%)",
}


def png(results: Mapping[str, Any]) -> bytes:
    """Draw the figure; returns the content of a PNG file."""
    names = [name for name in results["runs"] if name != OPTIMUM]
    with figure_settings():
        figure = new_figure(13, 8, column_gap=0.05)
        panels = figure.subplots(2, 3, sharex=True)
        for axes, (score, title) in zip(panels.flat, PANELS.items(), strict=True):
            _draw(axes, results["runs"], names, score)
            axes.set_title(title, fontsize=10)
            clean(axes)
        for axes in panels[-1]:
            titles = [run_title(name).replace("`", "") for name in names]
            axes.set_xticks(range(len(names)), titles, rotation=60, ha="right", fontsize=8)
        legend_below(figure, panels[0, 0].get_legend_handles_labels(), 3)
        return encoded(figure)[".png"]


def _draw(axes: Axes, runs: Mapping[str, Any], names: list[str], score: str) -> None:
    """One panel, with 95 % intervals; the groups side by side at each place."""
    for shift, group in zip((-0.15, 0.0, 0.15), LINES, strict=False):
        colour, marker, _ = LINES[group]
        found = [runs[name]["groups"].get(group, {}).get(score) for name in names]
        placed = [(place + shift, one) for place, one in enumerate(found) if one and one["value"] is not None]
        if not placed:
            continue
        values = [100 * one["value"] for _, one in placed]
        ends = [one["interval"] or (one["value"], one["value"]) for _, one in placed]
        # A basic interval can leave its score outside by rounding.
        bars = [
            [max(0.0, value - 100 * low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, 100 * high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        axes.errorbar(
            [place for place, _ in placed],
            values,
            yerr=bars,
            color=colour,
            marker=marker,
            linestyle="none",
            capsize=2,
            markersize=5,
            label=group,
        )
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
