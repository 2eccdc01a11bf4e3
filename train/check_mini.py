"""Checks that EmoCaliber-mini perceives: what its reasoning states against what the scenes hold.

    python train/check_mini.py --predictions infer_results/DIR/predictions.jsonl \\
        --scenes data/VECBench-mini/test_scenes.jsonl

Rewards and answers do not show a reasoning that has gone wrong; this does. Prints the figures of the model
card (in-distribution tasks) and exits with 1 if one of them misses its aim.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, read_jsonl
from emocaliber.records import read_records


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="rows with `response`, by inference")
    parser.add_argument("--scenes", type=Path, required=True, help="test_scenes.jsonl of VECBench-mini")
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> int:
    """Print what was measured; 1 where an aim is missed. Raises RecordError."""
    from train.stages.perception import measure, missed_aims

    scenes = {row.get("id"): row.get("scene") for _, row in read_jsonl(arguments.scenes)}
    records = read_records(arguments.predictions)
    unknown = [record["id"] for record in records if not isinstance(scenes.get(record["id"]), dict)]
    if unknown:
        raise RecordError(
            f"{arguments.scenes}: no scene of row {unknown[0]!r}; give the scenes of the same build"
        )
    measured = measure(records, scenes)
    print(json.dumps(measured, indent=1))
    missed = missed_aims(measured)
    print("\n".join(missed) if missed else "every aim is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
