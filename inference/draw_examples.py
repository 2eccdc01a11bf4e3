"""Draws answered rows: picture, five reasoning steps, answer, confidence, the true distribution.

    python inference/draw_examples.py --predictions infer_results/mini/predictions.jsonl \\
        --image-root data/VECBench-mini --ids ID [ID ...] --output images/mini_examples.png
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError
from emocaliber.records import read_records, record_images
from emocaliber.response import parse

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe-Ito: told apart with every kind of colour vision.
ANSWER_COLOUR, OTHER_COLOUR, TEXT_COLOUR = "#0072B2", "#BBBBBB", "#222222"
CHARACTERS_A_LINE = 74
LONGEST_LABEL_LIST = 8


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--image-root", type=Path, required=True)
    parser.add_argument("--ids", nargs="+", required=True, help="row ids, one panel each")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: work(parse_arguments(argv)))


def work(arguments: argparse.Namespace) -> None:
    """Read the rows that are asked for and write the picture."""
    by_id = {record["id"]: record for record in read_records(arguments.predictions)}
    for name in arguments.ids:
        if "response" not in by_id.get(name, {}):
            raise RecordError(f"{arguments.predictions}: no answered row {name!r}; give ids that it holds")
    draw_examples([by_id[name] for name in arguments.ids], arguments.image_root, arguments.output)
    print(arguments.output)


def draw_examples(records: Sequence[Mapping[str, Any]], image_root: Path, output: Path) -> None:
    """One panel a row: picture, reasoning, distribution."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(12.5, 2.75 * len(records)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(records), 3, squeeze=False, width_ratios=(1.0, 2.7, 1.35))
    for (picture, text, bars), record in zip(panels, records, strict=True):
        with Image.open(image_root / record_images(record)[0]) as image:
            picture.imshow(image.convert("RGB"))
        picture.set_axis_off()
        picture.set_title(str(record["task"]), fontsize=11)
        parsed = parse(record["response"], record["candidates"])
        confidence = "no confidence" if parsed.confidence is None else f"confidence {parsed.confidence}"
        write_reasoning(text, parsed.reasoning, f"{parsed.label or 'no answer'}, {confidence}")
        draw_distribution(bars, record, parsed.label)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110, facecolor="white", metadata={"Software": None})


def write_reasoning(axes: Axes, reasoning: Mapping[str, str], answer: str) -> None:
    """The five sections, their names in bold, and the answer below."""
    axes.set_axis_off()
    y, line_height = 1.0, 0.083
    for name, content in reasoning.items():
        lines = textwrap.wrap(content, CHARACTERS_A_LINE)
        axes.text(0.0, y, name, fontsize=9, weight="bold", va="top", color=TEXT_COLOUR)
        axes.text(0.15, y, "\n".join(lines), fontsize=9, va="top", color=TEXT_COLOUR, linespacing=1.25)
        y -= line_height * len(lines) + 0.03
    axes.text(0.0, y - 0.02, f"→ {answer}", fontsize=11.5, weight="bold", va="top", color=ANSWER_COLOUR)


def draw_distribution(axes: Axes, record: Mapping[str, Any], answer: str | None) -> None:
    """p(label | image), the most probable first; the answer in colour, the drawn label with a star."""
    posterior: Mapping[str, float] = record.get("posterior") or {}
    truth = record.get("ground_truth")  # there need be none where the distribution is known
    ranked = sorted(posterior, key=lambda label: -posterior[label])
    shown = ranked[:LONGEST_LABEL_LIST]
    for label in (truth, answer):
        if label in ranked and label not in shown:
            shown[-1] = label
    names = [f"★ {label}" if label == truth else label for label in shown]
    colours = [ANSWER_COLOUR if label == answer else OTHER_COLOUR for label in shown]
    bars = axes.barh(names, [posterior[label] for label in shown], color=colours)
    axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks([])
    axes.tick_params(axis="y", labelsize=9, length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_title("true p(label | image)   ★ drawn label", fontsize=9)


if __name__ == "__main__":
    sys.exit(main())
