"""The figures about data: composition, labels, image sizes, token lengths, and which splits share images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data.inspection.summary import Description
from emocaliber.report import figure_style as style
from emocaliber.report.tables import printable, short_name
from emocaliber.taxonomy import GROUPS, task_group, task_sort_key

OTHER_TASKS = "other tasks"
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, "#CC79A7", "#E69F00", "#56B4E9", style.GREY)
_MOST_CELLS_WITH_NUMBERS = 30
_LEAST_SHARE_WITH_NAME = 0.025
_MOST_LABELS_A_PANEL = 30
_LONGEST_TICK = 28


def draw(folder: Path, description: Description) -> None:
    """Write the figures of a description, each that has something to show."""
    figures: dict[str, Callable[[], Figure]] = {
        "composition": lambda: composition(description.rows),
        "labels": lambda: label_shares(description.labels),
    }
    if any(description.sizes.values()):
        figures["image_sizes"] = lambda: image_sizes(description.sizes)
    if description.tokens:
        figures["token_lengths"] = lambda: token_lengths(description.tokens)
    write_figures(folder, figures)


def write_figures(folder: Path, figures: Mapping[str, Callable[[], Figure]]) -> None:
    """Draw each figure and write it as PNG and PDF."""
    with style.figure_settings():
        matplotlib.rcParams["text.parse_math"] = False  # a $ in a name is a $
        for name, drawn in figures.items():
            for suffix, content in style.encoded(drawn()).items():
                (folder / (name + suffix)).write_bytes(content)


def shared_images(
    cells: Sequence[tuple[str, str]], n_images: Sequence[int], shared: NDArray[np.int64]
) -> Figure:
    """A matrix over (split, task): how many images of the row's cell are the same as one of the column's.

    Colour: their share of the row's images. On the diagonal: the same as another file of the cell.
    """
    n = len(cells)
    figure = style.new_figure(max(5.0, 2.6 + 0.42 * n), max(3.6, 1.9 + 0.36 * n))
    axes = figure.add_subplot()
    share = shared / np.maximum(np.array(n_images)[:, None], 1)
    drawn = axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    names = [f"{_tick(split)} · {_tick(task)}" for split, task in cells]
    rows = [f"{name} ({count:,})" for name, count in zip(names, n_images, strict=True)]
    axes.set_xticks(range(n), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axes.set_yticks(range(n), rows, fontsize=7)
    for place in range(1, n):
        if cells[place][0] != cells[place - 1][0]:
            axes.axhline(place - 0.5, color=style.GREY, linewidth=0.8)
            axes.axvline(place - 0.5, color=style.GREY, linewidth=0.8)
    if n <= _MOST_CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(shared):
            colour = "white" if share[row, column] > 0.55 else "black"
            if count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_xlabel("… are the same as an image of", fontsize=8)
    axes.set_ylabel("Images of (number)", fontsize=8)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.03)
    bar.set_label("Share of the row's images", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _tick(name: str) -> str:
    """A name short enough to leave room for what is drawn."""
    shown = printable(name)
    return shown if len(shown) <= _LONGEST_TICK else shown[: _LONGEST_TICK - 1] + "…"


def composition(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Two rings for each split: groups inside, their tasks outside; `counts`: split -> task -> rows."""
    n = len(counts)
    columns = min(n, 3)
    lines = -(-n // columns)
    figure = style.new_figure(4.8 * columns, 4.6 * lines)
    for place, (split, tasks) in enumerate(counts.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        _rings(axes, tasks)
        axes.set_title(f"{short_name(split)}: {sum(tasks.values()):,} rows", fontsize=10)
    return figure


def _rings(axes: Axes, tasks: Mapping[str, int]) -> None:
    groups = (*GROUPS, OTHER_TASKS)
    members = {
        group: [t for t in sorted(tasks, key=task_sort_key) if (task_group(t) or OTHER_TASKS) == group]
        for group in groups
    }
    total = sum(tasks.values())
    inner = [sum(tasks[task] for task in members[group]) for group in groups]
    base = [to_rgb(style.LINES[group][0] if group in style.LINES else style.GREY) for group in groups]
    outer: list[int] = []
    colours: list[tuple[float, float, float]] = []
    names: list[str] = []
    for group, colour in zip(groups, base, strict=True):
        for place, task in enumerate(members[group]):
            lighter = 0.35 + 0.4 * place / max(len(members[group]) - 1, 1)
            outer.append(tasks[task])
            red, green, blue = (c + (1 - c) * lighter for c in colour)
            colours.append((red, green, blue))
            is_named = tasks[task] >= _LEAST_SHARE_WITH_NAME * total
            names.append(f"{short_name(task)}\n{tasks[task]:,}" if is_named else "")
    edge = {"width": 0.3, "edgecolor": "white", "linewidth": 0.8}
    clockwise: dict[str, Any] = {"startangle": 90, "counterclock": False, "wedgeprops": edge}
    axes.pie(outer, radius=1, colors=colours, labels=names, textprops={"fontsize": 7}, **clockwise)
    wedges = axes.pie(inner, radius=0.7, colors=base, **clockwise)[0]
    shown = [
        (wedge, f"{group} {count:,}")
        for wedge, group, count in zip(wedges, groups, inner, strict=True)
        if count
    ]
    axes.legend(
        *zip(*shown, strict=True),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        fontsize=7,
        frameon=False,
        ncols=2,
    )


def label_shares(labels: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """One panel a task: the share of each label in each split; `labels`: task -> split -> label -> rows."""
    tasks = sorted(labels, key=task_sort_key)
    splits = list(dict.fromkeys(split for task in tasks for split in labels[task]))
    columns = min(len(tasks), 3)
    lines = -(-len(tasks) // columns)
    figure = style.new_figure(4.2 * columns, 3.4 * lines + 0.4)
    handles: dict[str, Any] = {}
    for place, task in enumerate(tasks, start=1):
        axes = figure.add_subplot(lines, columns, place)
        names = sorted({label for counts in labels[task].values() for label in counts})
        names = names[:_MOST_LABELS_A_PANEL]
        height = 0.8 / len(splits)
        for number, split in enumerate(splits):
            counts = labels[task].get(split, {})
            total = sum(counts.values())
            share = [100 * counts.get(name, 0) / total if total else 0 for name in names]
            at = [row - 0.4 + (number + 0.5) * height for row in range(len(names))]
            bars = axes.barh(at, share, height, color=_COLOURS[number % len(_COLOURS)])
            handles.setdefault(split, bars)
        size = 7 if len(names) <= 12 else 5
        axes.set_yticks(range(len(names)), [_tick(name) for name in names], fontsize=size)
        axes.invert_yaxis()
        axes.set_title(short_name(task), fontsize=9)
        axes.set_xlabel("Share of the split's rows in %", fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        style.clean(axes)
    _legend(figure, list(handles.values()), handles)
    return figure


def image_sizes(sizes: Mapping[str, Sequence[tuple[int, int]]]) -> Figure:
    """Pixels and shape of the images of each split; `sizes`: split -> (width, height) in pixels."""
    figure = style.new_figure(9.0, 3.6)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    splits = [split for split, values in sizes.items() if values]
    of = [np.array(sizes[split], dtype=np.float64) for split in splits]
    _lines(left, [a[:, 0] * a[:, 1] / 1e6 for a in of], "Megapixels")
    handles = _lines(right, [a[:, 0] / a[:, 1] for a in of], "Width / height")
    _legend(figure, handles, splits)
    return figure


def token_lengths(lengths: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """One panel a part with a line a split; `lengths`: split -> part (image, …) -> tokens of each row."""
    named = list(next(iter(lengths.values())))
    parts = [part for part in named if any(any(lengths[split][part]) for split in lengths)]
    figure = style.new_figure(3.0 * len(parts), 3.4)
    for place, part in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), place)
        values = [np.array(lengths[split][part], dtype=np.float64) for split in lengths]
        handles = _lines(axes, values, part.capitalize() + " tokens")
    _legend(figure, handles, lengths)
    return figure


def _legend(figure: Figure, handles: list[Artist], splits: Collection[str]) -> None:
    names = [short_name(split) for split in splits]
    style.legend_below(figure, (handles, names), min(max(len(names), 1), 6))


def _lines(axes: Axes, values: Sequence[NDArray[np.float64]], label: str) -> list[Artist]:
    """Cumulative curves: no bins to choose, and a single common value is a clear step.

    The axis is logarithmic where the values span more than a decade.
    """
    dashes = ("-", "--", "-.", ":")
    handles: list[Artist] = []
    for number, of_split in enumerate(values):
        ordered = np.sort(of_split) if len(of_split) else np.array([np.nan])
        height = 100 * np.arange(1, len(ordered) + 1) / len(ordered)
        look: dict[str, Any] = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": dashes[number % 4]}
        handles += axes.step(np.r_[ordered[:1], ordered], np.r_[0, height], where="post", **look)
    everything = np.concatenate(values)
    if len(everything) and 0 < 10 * everything.min() < everything.max():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter("")
    axes.set_xlabel(label, fontsize=8)
    axes.set_ylabel("At or below, in %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_ylim(0, 101)
    style.clean(axes)
    return handles
