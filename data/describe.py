"""Describe data: composition, labels, image sizes, token lengths, and contact sheets to look at the images.

    python data/describe.py data/VECBench-mini/test.jsonl data/VECBench-mini/train_stage*.jsonl \\
        --output-dir description --checkpoint models/EmoCaliber-mini
    python data/describe.py test=test.jsonl train=stage1.jsonl train=stage2.jsonl \\
        --image-root /data/VECBench --output-dir description

Reads records and chats. Writes:
    summary.txt, summary.json    rows per file and task, labels, image sizes and formats, token lengths
    composition.png              rings by group and task, for each file or name given
    labels.png                   share of each label, a panel a task
    image_sizes.png              pixels and shape
    token_lengths.png            tokens of image, text and answer under the processor of --checkpoint
    contact_sheets/index.html    a page a task with some images of each label; needs no network
    left_out.jsonl               images and rows that cannot be read, by reason
    images.jsonl                 what was read of each image: an interrupted run goes on from it
Each figure is there as PDF too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from data.inspection.rows import Row, add_sources, iterate_rows, sources_of
from data.inspection.summary import Description, TokenCounter, form_of, image_facts, summary_text, unreadable
from emocaliber.command_line import CommandParser, run_command
from emocaliber.image_scan import CAN_GO_ON, ImageMemory
from emocaliber.jsonl import RecordError, write_jsonl_atomic, write_text_atomic


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: describe(parse_arguments(argv)), **CAN_GO_ON)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add_sources(add)
    add("--checkpoint", metavar="DIR", help="whose processor counts the tokens (default: not counted)")
    add("--min-pixels", type=int, metavar="N", help="of an image as the model sees it")
    add("--max-pixels", type=int, metavar="N", help="(defaults: the checkpoint's own)")
    sheets = "images on a contact sheet for each label and file name, 0 for no sheets"
    add("--per-label", type=int, default=8, metavar="N", help=f"{sheets} (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the choice of these (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.per_label < 0:
        parser.error(f"--per-label {args.per_label}: give 0 or more")
    for name in ("min_pixels", "max_pixels"):
        value = getattr(args, name)
        if value is not None and (value < 1 or args.checkpoint is None):
            parser.error(f"--{name.replace('_', '-')}: give at least 1, and --checkpoint with it")
    return args


def describe(args: argparse.Namespace) -> None:
    """Read everything, write every file and print the summary."""
    from data.inspection.figures import draw
    from data.inspection.sheets import write_sheets

    sources = sources_of(args.files, args.image_root)
    counter = None
    if args.checkpoint is not None:
        counter = TokenCounter(args.checkpoint, args.min_pixels, args.max_pixels)
    left_out: list[dict[str, Any]] = []
    rows: list[Row] = []
    description = Description()
    for row, record in iterate_rows(sources, left_out):
        rows.append(row)
        description.add(row, record)
    if not rows:
        raise RecordError(f"{args.files[0]}: no row names an image; give records or chats")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with ImageMemory(args.output_dir / "images.jsonl", "size") as memory:
        every = (file for row in rows for file in row.files)
        facts, faults = memory.gather(every, image_facts, form_of, workers=args.workers)
    left_out += unreadable(rows, faults)
    description.add_images(rows, facts)
    if counter is not None:
        description.tokens = counter.lengths(iterate_rows(sources, []), facts)
    content = description.content(dict(Counter(entry["reason"] for entry in left_out)))
    write_jsonl_atomic(args.output_dir / "left_out.jsonl", left_out)
    draw(args.output_dir, description)
    if args.per_label:
        write_sheets(args.output_dir / "contact_sheets", rows, args.per_label, args.seed)
    # Last, as they say that all else is there.
    write_text_atomic(
        args.output_dir / "summary.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    )
    text = summary_text(content)
    write_text_atomic(args.output_dir / "summary.txt", text + "\n")
    print(f"{text}\nWritten to {args.output_dir}")


if __name__ == "__main__":
    sys.exit(main())
