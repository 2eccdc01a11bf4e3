"""Says what files of this repository are, what is wrong in them, on which line, and what to do.

    python data/validate.py data/VECBench-mini/*.jsonl
    python data/validate.py infer_results/mini/predictions.jsonl train.parquet rewards.jsonl
    python data/validate.py test.jsonl --check-images --image-root /data/VECBench --report faults.jsonl

Known by their content, plain or gzipped: records, predictions, chats for ms-swift (captions, stages 1 and 2,
GRPO), Parquet for verl, reward logs, scenes of VECBench-mini, and the published layouts of VECBench. Every
row is checked, and every fault of a row is told. Files are streamed: memory grows by the ids only. Exit
status 0: nothing is wrong; 1: something is; 2: a file cannot be read or is of no known kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from data.published.layouts import COLUMN, columns_of
from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, StagedJsonl

KIND_NAMES = (
    *("records", "predictions", "captions", "stage1_chats", "stage2_chats", "rl_chats", "verl_parquet"),
    *("reward_log", "scenes", "left_out", "std_json", "metadata_csv"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Check every file, and give by the exit status what was found."""
    return run_command(lambda: validate(parse_arguments(argv)), if_interrupted="no report was written")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE")
    add("--kind", choices=KIND_NAMES, help="what the files are to be (default: as they look)")
    add("--check-images", action="store_true", help="decode every image to its last pixel")
    add("--image-root", type=Path, help="what image paths are relative to (default: the file)")
    add("--show", type=int, default=5, help="faults printed of each reason (default 5)")
    add("--report", type=Path, help="list every fault there: where, reason, message")
    add("--column", **COLUMN)
    args = parser.parse_args(argv)
    args.columns = columns_of(parser, args.column)
    if args.report and args.report.resolve() in [path.resolve() for path in args.files]:
        parser.error(f"--report {args.report}: that is a file to check; give the list another name")
    return args


def validate(args: argparse.Namespace) -> int:
    """Check the files one after the other; give the exit status. Raises OSError for the report."""
    from data.validation.kinds import check_file

    status = 0
    with StagedJsonl(args.report) if args.report else nullcontext() as report:
        for path in args.files:
            try:
                found = check_file(path, args, report)
            except RecordError as error:
                print(f"error: {error}", file=sys.stderr)
                status = 2
                continue
            print("\n".join(found.lines()), flush=True)
            status = max(status, int(bool(found.counts)))
        if report is not None:
            report.finish()
    return status


if __name__ == "__main__":
    sys.exit(main())
