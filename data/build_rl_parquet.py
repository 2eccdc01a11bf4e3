"""Turns records into the Parquet file that verl's GRPO reads, and the same rows into ms-swift's chats.

    python data/build_rl_parquet.py --records data/VECBench-mini/train_stage3.jsonl --output train.parquet
    python data/build_rl_parquet.py --records stage3.jsonl --image-root /data --output stage3.parquet \\
        --image-paths --min-pixels 200704 --max-pixels 451584 --chats stage3_chats.jsonl

Columns: data_source (the task), prompt [{role, content}] with one <image> a picture, images, ability,
reward_model {style, ground_truth} and extra_info {index, id, task, candidates, split}. A row without a usable
truth, candidates, question or picture is left out, counted by its reason and listed with it in
OUTPUT.rejected.jsonl; with more than --max-rejected of them nothing is written but that list. A sample
(--limit) is drawn from the rows that can be used: what is refused hangs on the records and not on the seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.vec_cot.rl_rows import build
from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import write_text_atomic
from emocaliber.provenance import file_sha256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: build_or_reuse(parse_arguments(argv)))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--records", type=Path, required=True, help="JSON lines, as inference reads them")
    add("--output", type=Path, required=True, help="a name in .parquet")
    add("--image-root", type=Path, help="what image paths are relative to (default: the records')")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--embed-images", action="store_true", help="the pictures' files in the Parquet (default)"
    )
    form.add_argument(
        "--image-paths", action="store_true", help="absolute paths: smaller, bound to this machine"
    )
    add("--min-pixels", type=int, help="verl scales pictures up to this (default: the processor's)")
    add("--max-pixels", type=int, help="verl scales pictures down to this")
    add("--chats", type=Path, help="also write the rows as ms-swift reads them")
    add(
        "--reuse",
        action="store_true",
        help="leave files that are whole and of the same records; keeps their sums in OUTPUT.built.json",
    )
    add("--split", default="train", help="what extra_info and the reward log call these rows")
    add("--limit", type=int, help="a random sample of so many usable rows")
    add("--seed", type=int, default=0, help="of the sample")
    add("--max-rejected", type=float, default=0.01, help="share of rows that may be left out")
    args = parser.parse_args(argv)
    if args.output.suffix != ".parquet":
        parser.error(f"--output {args.output}: verl knows the format by the name; give one in .parquet")
    if not 0 <= args.max_rejected <= 1:
        parser.error(f"--max-rejected {args.max_rejected}: give a share between 0 and 1")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit {args.limit}: give at least 1")
    return args


def build_or_reuse(args: argparse.Namespace) -> None:
    """Build, unless --reuse finds the files. Raises RecordError, and OSError for missing records."""
    if not args.reuse:
        build(args)
        return
    stamp = args.output.with_suffix(".built.json")
    made_of = made_of_these(args)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == stamp_text(made_of, args):
        print(f"{args.output}: is there, of the same records")
        return
    stamp.unlink(missing_ok=True)  # written last: without it nothing is taken for whole
    build(args)
    write_text_atomic(stamp, stamp_text(made_of, args))


def made_of_these(args: argparse.Namespace) -> dict[str, Any]:
    """The sum of the records, and what else the files follow from. Raises OSError."""
    names = ("image_paths", "min_pixels", "max_pixels", "split", "limit", "seed", "max_rejected")
    root = str((args.image_root or args.records.parent).resolve())
    return {"records_sha256": file_sha256(args.records), "image_root": root} | {
        name: getattr(args, name) for name in names
    }


def stamp_text(made_of: dict[str, Any], args: argparse.Namespace) -> str:
    """`made_of` with the sum of every file, None for one that is not there."""
    files = [args.output] if args.chats is None else [args.output, args.chats]
    sums = {str(path): file_sha256(path) if path.is_file() else None for path in files}
    return json.dumps({**made_of, "files_sha256": sums}, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
