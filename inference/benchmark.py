"""Measure what this room costs: inference, the further confidences, the evaluation.

    python inference/benchmark.py infer       --checkpoint DIR --data FILE
    python inference/benchmark.py confidences --checkpoint DIR --data FILE
    python inference/benchmark.py evaluate    --predictions FILE

Each compares several ways in one run, and has a --help of its own.
"""

import sys
from collections.abc import Sequence

import benchmark_evaluate
import benchmark_infer

from emocaliber.command_line import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = CommandParser(description=__doc__)
    parser.add_argument("what", choices=("infer", "confidences", "evaluate"))
    what = parser.parse_args(given[:1]).what
    if what == "evaluate":
        return benchmark_evaluate.main(given[1:])
    return benchmark_infer.main(what, given[1:])


if __name__ == "__main__":
    sys.exit(main())
