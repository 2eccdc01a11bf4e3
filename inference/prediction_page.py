"""Write a page to look through predictions of which no truth is known: one HTML file, shown without network.

It lists every image with its answer, confidence, reasoning and error, to search, filter and sort.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from emocaliber.records import RecordError, iterate_with_places
from emocaliber.report.page import write_prediction_page
from inference.runs.run_folder import image_root_of_run

PAGE = "predictions.html"


def write_page_of(folder: Path, image_root: Path | None) -> Path:
    """Write the page of a finished run into its folder; gives its path. Raises RecordError, OSError."""
    predictions, page = folder / "predictions.jsonl", folder / PAGE
    write_page(predictions, page, image_root)
    return page


def write_page(predictions: Path, page: Path, image_root: Path | None) -> None:
    """Write the page of a file of predictions. Raises RecordError, OSError."""
    records = [record for _, record in iterate_with_places(predictions, need_truth=False)]
    if not records:
        raise RecordError(f"{predictions}: no rows; give a file with predictions")
    folder = predictions.resolve().parent
    write_prediction_page(
        page, records, title=folder.name, image_root=image_root, facts=_facts(folder, predictions)
    )


def _facts(folder: Path, predictions: Path) -> Mapping[str, str]:
    """Say where the predictions come from, as far as the run.json beside them tells."""
    facts = {"predictions": str(predictions)}
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        arguments = run["attempts"][-1]["arguments"]
        for name in ("checkpoint", "server_model", "temperature"):
            if arguments.get(name) is not None:
                facts[name] = str(arguments[name])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    return facts


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--predictions", required=True, type=Path, metavar="FILE", help="predictions.jsonl, plain or gzipped")
    add("--output", required=True, type=Path, metavar="FILE", help="the page, such as predictions.html")
    add(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="what the image paths are relative to (default: as in the run.json beside the predictions, else "
        "no pictures)",
    )
    arguments = parser.parse_args(argv)
    if arguments.image_root is not None and not arguments.image_root.is_dir():
        parser.error(f"--image-root {arguments.image_root} is no folder")
    if arguments.output.is_dir() or arguments.output.resolve() == arguments.predictions.resolve():
        parser.error(f"--output {arguments.output} is a folder or the predictions; give a file of its own")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: work(parse_arguments(argv)))


def work(arguments: argparse.Namespace) -> None:
    """Write the page and say so."""
    image_root = arguments.image_root or image_root_of_run(arguments.predictions)
    write_page(arguments.predictions, arguments.output, image_root)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    sys.exit(main())
