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

import sys
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser

SQUEEZED = (0.50, 1.00)


def main() -> None:
    """Read chains and samples, write the chats."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--chains", type=Path, required=True, help="stage-2 records with their `reasoning`")
    parser.add_argument(
        "--samples", type=Path, required=True, help="the same rows, or some of them, with `samples`"
    )
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    from emocaliber.jsonl import RecordError, write_jsonl_atomic
    from emocaliber.records import read_records

    try:
        sampled = read_samples(args.samples)
        chains = read_records(args.chains)
        with_samples = [record for record in chains if sampled.get(record["id"])]
        chats = [chat_with_confidence(record, sampled[record["id"]]) for record in with_samples]
        rows = [chat for chat in chats if chat is not None]
        if not rows:
            raise RecordError(f"{args.samples}: no samples with a label; run inference with --n-samples")
        write_jsonl_atomic(args.output, rows)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {args.output}: {error.strerror}; give another --output", file=sys.stderr)
        raise SystemExit(2) from None
    print(
        f"{args.output}: {len(rows)} rows of {len(chains)} chains; left out: "
        f"{len(chains) - len(with_samples)} without samples, {len(chats) - len(rows)} without a sampled label"
    )


def read_samples(path: Path) -> dict[str, list[str]]:
    """The samples of every row in the predictions of a stage-1 model; none of a row that has failed.

    Raises RecordError, also for `samples` that are no list of texts.
    """
    from emocaliber.jsonl import RecordError
    from emocaliber.records import read_records

    samples: dict[str, list[str]] = {}
    for row in read_records(path):
        written = [] if row.get("samples") is None else row["samples"]
        if not isinstance(written, list) or not all(isinstance(text, str) for text in written):
            raise RecordError(
                f"{path}: row {row['id']!r}: samples is not a list of texts; give the predictions of "
                "inference/infer.py --n-samples"
            )
        samples[row["id"]] = written
    return samples


def target_confidence(n_agreeing: int, n_samples: int) -> Decimal:
    """The squeezed agreement in hundredths (see the head of this file); below 1 for less than 50 samples."""
    agreement = (n_agreeing + 0.5) / (n_samples + 1)
    return round(Decimal(SQUEEZED[0] + (SQUEEZED[1] - SQUEEZED[0]) * agreement), 2)


def majority(labels: Sequence[str | None]) -> tuple[str, int] | None:
    """The label that most samples name, and how many do; of equals the one named first."""
    counts = Counter(label for label in labels if label is not None)
    return counts.most_common(1)[0] if counts else None


def chat_with_confidence(record: dict[str, Any], samples: Sequence[str]) -> dict[str, Any] | None:
    """The row's chain with the samples' conclusion and its confidence; None if no sample has a label.

    Raises RecordError for a record whose chain does not conclude with its ground truth.
    """
    from emocaliber.jsonl import RecordError
    from emocaliber.prompts import training_chat, user_prompt
    from emocaliber.records import record_images
    from emocaliber.response import parse, render

    truth, candidates = record.get("ground_truth"), record["candidates"]
    reasoning = record.get("reasoning")
    if not isinstance(reasoning, dict) or not str(reasoning.get("analysis")).endswith(f" {truth}."):
        raise RecordError(
            f"row {record['id']!r}: no `reasoning` that concludes with {truth!r}; give stage-2 rows"
        )
    voted = majority([parse(text, candidates).label for text in samples])
    if voted is None:
        return None
    label, agreeing = voted
    concluded = reasoning | {"analysis": f"{reasoning['analysis'].removesuffix(f'{truth}.')}{label}."}
    confidence = target_confidence(agreeing, len(samples))
    chat = training_chat(
        record_images(record)[0], user_prompt(candidates), render(concluded, label, confidence)
    )
    return {key: record[key] for key in ("id", "task", "ground_truth")} | chat


if __name__ == "__main__":
    main()
