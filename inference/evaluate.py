"""Measure predictions: how often they are right, how honest their confidence is, and how sure that is.

Writes metric.log, metric_conf.log, metrics.json, merged_conf.jsonl, the figures and report.html into a
folder, and prints both tables. The files are moved in one by one once all are finished: an error before that
changes none. merged_conf.jsonl holds the rows as given, but for the fields `prediction` and `confidence`:
they are what was read from the response, whatever the input says there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from inference.outputs.log_to import add_option, log_to_each, require_installed


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSON lines with a `response` (or `samples`) or an `error` each, plain or gzipped: a "
        "predictions.jsonl of inference/infer.py or a published merged.jsonl; several files count as one",
    )
    parser.add_argument(
        "--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there"
    )
    parser.add_argument(
        "--protocol",
        choices=("default", "paper", "both"),
        default="default",
        help="default: the correct numbers; paper: the published evaluator's, faults included, as metric.log "
        "and metric_conf.log; both: also metric_paper.log and metric_conf_paper.log, and what differs",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=2000,
        metavar="N",
        help="bootstrap draws for the 95 %% intervals, 0 for none, else at least 100 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--no-page", action="store_true", help="do not write report.html")
    parser.add_argument("--no-figures", action="store_true", help="do not draw the figures")
    parser.add_argument("--pdf", action="store_true", help="draw every figure as a PDF as well as a PNG")
    parser.add_argument(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="what the image paths are relative to, for the thumbnails of the page (default: as in the "
        "run.json beside the predictions, else no thumbnails)",
    )
    parser.add_argument(
        "--clusters",
        type=Path,
        metavar="FILE",
        help="the clusters.json of data/check_leakage.py: its groups of images that are the same are drawn "
        "together for the intervals (default: an image is its path)",
    )
    add_option(parser)
    arguments = parser.parse_args(argv)
    require_installed(parser, arguments.log_to)
    if arguments.draws != 0 and arguments.draws < 100:
        parser.error("--draws must be 0 or at least 100")
    if arguments.seed < 0:
        parser.error("--seed must be 0 or above")
    if arguments.image_root is not None and not arguments.image_root.is_dir():
        parser.error(f"--image-root {arguments.image_root} is no folder")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: work(parse_arguments(argv)))


def work(arguments: argparse.Namespace) -> int:
    """Evaluate, write, print and log; returns the exit status."""
    from inference.outputs.evaluation import evaluate_files

    lines, written = evaluate_files(arguments)
    print("\n".join(lines))
    return log_to_each(arguments.log_to, arguments.output_dir, written)


if __name__ == "__main__":
    sys.exit(main())
