"""Checks a fine-tuning run before anything heavy starts: data, images, tokens, model, machine.

    python train/sft/check_inputs.py --model DIR_OR_HUB_NAME --dataset FILE --settings YAML --output-dir DIR

Every row is checked. Bad ones are counted by reason and listed in OUTPUT_DIR/rejected_rows.jsonl; the others
are written to OUTPUT_DIR/dataset.jsonl, which training then takes. Without a bad row neither file is there.
With more than the share MAX_BAD_SHARE (default 0.01) the run is refused. Exit status 2: something to mend.

Environment variables:
    IMAGE_ROOT                            folder of the images (default: that of the data set)
    N_GPU                                 GPUs that the run will use (default 1)
    MIN_PIXELS, MAX_PIXELS                go before those of the settings
    MAX_IMAGE_TOKENS                      image tokens of a row (default: half of max_length)
    MAX_DECODED_IMAGES                    read to the last pixel, the others' header alone (default 5000)
    NEEDED_DISK_GB                        go before what checkpoints of the whole model need
    NEEDED_MEMORY_GB                      have to be free on the host (default: not asked)
    PREFLIGHT=rows                        leave out what loads ms-swift: processor, batch, lengths in tokens
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_jsonl_atomic, write_text_atomic
from train.preflight.machine import check_machine, check_model, check_versions, visible_gpus
from train.preflight.variables import check_variables, number
from train.sft.batch import check_tokens
from train.sft.rows import Row, check_images, read_rows
from train.sft.settings import check_keys, limits_of, read_settings

REJECTED, CLEANED = "rejected_rows.jsonl", "dataset.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Check; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True, help="the yaml of `swift sft`")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--stage", default="", help="1 and 2 ask for the response grammar, others do not")
    parser.add_argument("flags", nargs="*", help="after --: flags of `swift sft` that go before the settings")
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(args: Namespace) -> None:
    """Check, the cheap things first, and say what was found. Raises RecordError for the first mistake."""
    check_variables()
    check_versions()
    settings = read_settings(args.settings, args.flags)
    n_weights = check_model(args.model)
    if settings["tuner_type"] != "full":
        n_weights = 0  # a checkpoint of adapters is small
    n_gpus = int(number("N_GPU", 1))
    if n_gpus == 1 and settings.get("torch_dtype") == "float32" and not visible_gpus():
        n_gpus = 0
    machine = check_machine(args.output_dir, n_gpus, n_weights, int(settings.get("save_total_limit") or 1))
    root = Path(os.environ.get("IMAGE_ROOT") or args.dataset.parent)
    rows = list(read_rows(args.dataset, args.stage))
    if not rows:
        raise RecordError(f"{args.dataset}: no rows")
    sizes = check_images(rows, root, int(number("MAX_DECODED_IMAGES", 5000)))
    # A file that is refused anyway is refused before ms-swift is loaded.
    refuse_too_many(rows, args.dataset, args.output_dir)
    encoded = "tokens not counted (PREFLIGHT=rows)"
    if os.environ.get("PREFLIGHT") != "rows":
        os.environ["LOG_LEVEL"] = "ERROR"  # ms-swift's own, read when it is imported
        check_keys(settings, args.settings)
        encoded = check_tokens(rows, args.model, root, sizes, limits_of(settings))
        refuse_too_many(rows, args.dataset, args.output_dir)
    write_cleaned(rows, args.output_dir)
    good = sum(not row.reason for row in rows)
    print(
        f"{args.dataset}: {good} of {len(rows)} rows to train on, {len(sizes)} images; {encoded}; {machine}"
    )


def refuse_too_many(rows: Sequence[Row], dataset: Path, output_dir: Path) -> None:
    """List the bad rows in a file; raise RecordError if they are too many, or if none is left."""
    bad = [row for row in rows if row.reason]
    listed = output_dir / REJECTED
    listed.unlink(missing_ok=True)
    if not bad:
        return
    write_jsonl_atomic(
        listed,
        ({"where": f"{dataset}:{row.number}", "reason": row.reason, "detail": row.detail} for row in bad),
    )
    counts = ", ".join(
        f"{count} {reason}" for reason, count in Counter(row.reason for row in bad).most_common()
    )
    said = f"{dataset}: {len(bad)} of {len(rows)} rows cannot be trained on ({counts}), listed in {listed}"
    share = number("MAX_BAD_SHARE", 0.01)
    if len(bad) > share * len(rows) or len(bad) == len(rows):
        example = f"the first is line {bad[0].number}, {bad[0].detail}"
        raise RecordError(f"{said}; {example}; mend them, or allow more by MAX_BAD_SHARE (now {share:g})")
    print(f"warning: {said}; they are left out", file=sys.stderr)


def write_cleaned(rows: Sequence[Row], output_dir: Path) -> None:
    """The good rows as they were, if there are bad ones; else no file."""
    cleaned = output_dir / CLEANED
    cleaned.unlink(missing_ok=True)
    if any(row.reason for row in rows):
        write_text_atomic(cleaned, "".join(f"{row.line.strip()}\n" for row in rows if not row.reason))


if __name__ == "__main__":
    sys.exit(main())
