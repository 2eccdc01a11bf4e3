"""Run a model over a benchmark, or over images of your own: every row gets a response or a named error.

Finished rows are on disk as they finish. The same command again continues where it stopped; other arguments
in the same output folder are refused. Writes predictions.jsonl, error.jsonl, merged.jsonl and run.json.
"""

import argparse
import sys
from collections.abc import Sequence

from emocaliber.command_line import run_command
from inference.runs.arguments import parse_arguments


def work(arguments: argparse.Namespace) -> int:
    """Continue or start a run; gives the exit status. Raises RecordError, EngineError, OSError."""
    from inference.prediction_page import write_page_of
    from inference.runs.conduct import conduct

    return conduct(arguments, write_page_of)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(argv, description=__doc__)
    is_worker = arguments.worker is not None  # its parent says it
    return run_command(
        lambda: work(arguments), if_interrupted="" if is_worker else "the same command continues"
    )


if __name__ == "__main__":
    sys.exit(main())
