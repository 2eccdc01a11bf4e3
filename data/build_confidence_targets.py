"""Turns samples of the stage-1 model into stage-2 chats that state a confidence.

    python data/build_confidence_targets.py --chains data/VECBench-mini/train_stage2.jsonl \\
        --samples SAMPLES/predictions.jsonl --output data/VECBench-mini/train_stage2_chat.jsonl

How the published stage-2 confidences were made is not public. Ours: k samples of the stage-1 model are drawn
for each row at temperature 1. The row's chain concludes with the label that most of them name, and the
confidence follows from their agreement, m of k: (m + 0.5) / (k + 1), squeezed on purpose into 0.50-1.00 and
rounded to hundredths. So the targets vary with the picture but are overconfident, as what language models
state is (Xiong et al. 2024, arXiv 2306.13063): to calibrate them is what stage 3 is for.

The agreement of few samples is mostly chance (its standard deviation is 0.19 with 6 at p = 0.7, 0.11 with
16), and a model learns to state confidences as uncertain as its targets, which hides what it knows of the
picture: more samples of fewer rows teach more than the same number spread thin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data.vec_cot.confidence import chat_with_confidence, read_samples
from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_jsonl_atomic
from emocaliber.records import read_records


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: build(parse_arguments(argv)))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--chains", type=Path, required=True, help="stage-2 records with their `reasoning`")
    parser.add_argument(
        "--samples", type=Path, required=True, help="the same rows, or some of them, with `samples`"
    )
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(argv)


def build(args: argparse.Namespace) -> None:
    """Read chains and samples, write the chats. Raises RecordError if there is none."""
    sampled = read_samples(args.samples)
    chains = read_records(args.chains)
    with_samples = [record for record in chains if sampled.get(record["id"])]
    chats = [chat_with_confidence(record, sampled[record["id"]]) for record in with_samples]
    rows = [chat for chat in chats if chat is not None]
    if not rows:
        raise RecordError(f"{args.samples}: no samples with a label; run inference with --n-samples")
    write_jsonl_atomic(args.output, rows)
    print(
        f"{args.output}: {len(rows)} rows of {len(chains)} chains; left out: "
        f"{len(chains) - len(with_samples)} without samples, {len(chats) - len(rows)} without a sampled label"
    )


if __name__ == "__main__":
    sys.exit(main())
