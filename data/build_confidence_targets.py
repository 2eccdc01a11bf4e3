"""Turns samples of the stage-1 model into stage-2 chats that state a confidence.

    python data/build_confidence_targets.py --chains data/VECBench-mini/train_stage2.jsonl \\
        --samples SAMPLES/predictions.jsonl --output data/VECBench-mini/train_stage2_chat.jsonl

How the published stage-2 confidences were made is not public. Ours: the target of a row is the agreement of
the stage-1 model with the row's label, m of k samples at temperature 1, smoothed to (m + 0.5) / (k + 1), then
blurred on purpose: squeezed into 0.30-0.95, shaken by normal noise (standard deviation 0.06) and rounded to
steps of 0.05. So the targets vary with the picture over a wide range, but are too high where the model is
unsure: to calibrate them is what stage 3 is for.
"""

from __future__ import annotations

import argparse
import random
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

LOWEST, HIGHEST = 0.30, 0.95
NOISE = 0.06
STEP = 0.05


def main() -> None:
    """Read chains and samples, write the chats."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--chains", type=Path, required=True, help="records with `reasoning`, without a confidence"
    )
    parser.add_argument(
        "--samples", type=Path, required=True, help="the same rows with `samples`, by inference"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    from emocaliber.records import RecordError, read_records, write_jsonl_atomic

    try:
        sampled = {row["id"]: row for row in read_records(args.samples)}
        chains = read_records(args.chains)
        rows, skipped = [], 0
        for record in chains:
            samples = sampled.get(record["id"], {}).get("samples")
            if samples:
                rows.append(chat_with_confidence(record, samples, args.seed))
            else:
                skipped += 1
        if not rows:
            raise RecordError(
                f"{args.samples}: no row of {args.chains} has samples; run inference with --n-samples"
            )
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    write_jsonl_atomic(args.output, rows)
    print(f"{args.output}: {len(rows)} rows, {skipped} without samples left out")


def target_confidence(n_agreeing: int, n_samples: int, rng: random.Random) -> Decimal:
    """The blurred agreement, in [0.30, 0.95] by steps of 0.05 (see the head of this file)."""
    agreement = (n_agreeing + 0.5) / (n_samples + 1)
    blurred = LOWEST + (HIGHEST - LOWEST) * agreement + rng.gauss(0.0, NOISE)
    steps = round(min(HIGHEST, max(LOWEST, blurred)) / STEP)
    return Decimal(steps) * Decimal(str(STEP))


def chat_with_confidence(record: dict[str, Any], samples: list[str], seed: int) -> dict[str, Any]:
    """The row's own chain and label, with the confidence that the samples give that label."""
    from emocaliber.prompts import SYSTEM_PROMPT, user_prompt
    from emocaliber.records import record_images
    from emocaliber.response import parse, render

    label, candidates = record["ground_truth"], record["candidates"]
    agreeing = sum(parse(text, candidates).label == label for text in samples)
    confidence = target_confidence(agreeing, len(samples), random.Random(f"{seed}/{record['id']}"))
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": f"<image>{user_prompt(candidates)}"},
        {"role": "assistant", "content": render(record["reasoning"], label, confidence)},
    ]
    named = {key: record[key] for key in ("id", "task", "ground_truth")}
    return named | {"messages": messages, "images": record_images(record)}


if __name__ == "__main__":
    main()
