"""What a run is asked to do: its command line, read and checked before anything heavy is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint import Checkpoint, file_sha256, open_checkpoint
from run_folder import OUTPUT_FIELDS

from emocaliber.command_line import CommandParser
from emocaliber.records import Record, RecordError, read_records, record_images

ROOM_FOR_TEXT_TOKENS = 2048
PIXELS_PER_IMAGE_TOKEN = 28 * 28
DECIDING = (
    "limit",
    "temperature",
    "top_p",
    "max_new_tokens",
    "n_samples",
    "min_pixels",
    "max_pixels",
    "seed",
    "dtype",
)


def parse_arguments(argv: Sequence[str] | None = None, *, description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=description)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="DIR", help="a checkpoint folder, or a name on the hub")
    add("--data", required=True, type=Path, metavar="FILE", help="records, JSON lines, plain or gzipped")
    add("--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there")
    add(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="image paths are relative to it (default: folder of --data)",
    )
    add("--limit", type=positive, metavar="N", help="the first N rows only")
    add("--overwrite", action="store_true", help="discard what the output folder holds of a run")
    add("--retry-errors", action="store_true", help="when continuing, ask rows that have an error once more")
    sampling = parser.add_argument_group("what decides a response")
    add = sampling.add_argument
    add("--temperature", type=not_negative, default=0.7, help="0 decodes greedily (default: %(default)s)")
    add("--top-p", type=fraction, default=1.0, help="(default: %(default)s)")
    add("--max-new-tokens", type=positive, default=1024, help="longest response (default: %(default)s)")
    add("--n-samples", type=positive, default=1, help="samples a row; the first is the response (default: 1)")
    add(
        "--min-pixels",
        type=positive,
        default=256 * 28 * 28,
        help="smaller images grow to it (default: %(default)s)",
    )
    add(
        "--max-pixels",
        type=positive,
        default=576 * 28 * 28,
        help="larger ones shrink to it (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="with a row's id it gives the row's seed (default: %(default)s)")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="(default: %(default)s)",
    )
    add(
        "--max-model-len",
        type=positive,
        help="prompt, image and response tokens (default: what the limits need)",
    )
    machine = parser.add_argument_group("the machine")
    add = machine.add_argument
    add(
        "--batch-size", type=positive, default=256, help="rows in the engine at a time (default: %(default)s)"
    )
    add("--workers", type=positive, default=1, help="engines side by side, one a GPU (default: %(default)s)")
    add("--tensor-parallel-size", type=positive, default=1, help="GPUs of one engine (default: %(default)s)")
    add("--gpu-memory-utilization", type=fraction, default=0.9, help="(default: %(default)s)")
    add("--verbose", action="store_true", help="show vLLM's own messages")
    add("--worker", type=int, help=argparse.SUPPRESS)  # set by --workers for its own processes
    arguments = parser.parse_args(argv)
    if arguments.min_pixels > arguments.max_pixels:
        parser.error(f"--min-pixels {arguments.min_pixels} is above --max-pixels {arguments.max_pixels}")
    return arguments


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(text)


def not_negative(text: str) -> float:
    """Read a number from 0 on."""
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return float(text)


def fraction(text: str) -> float:
    """Read a number above 0 and at most 1."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return float(text)


@dataclass
class Plan:
    """A run whose arguments, data and checkpoint have been looked at, before anything heavy is imported."""

    arguments: argparse.Namespace
    checkpoint: Checkpoint
    records: list[Record]
    image_root: Path
    images_per_row: int
    max_model_len: int
    identity: dict[str, Any]
    warnings: list[str]


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Check everything a user can get wrong. Raises RecordError; writes nothing."""
    checkpoint = open_checkpoint(arguments.checkpoint)
    records = read_records(arguments.data, need_truth=False)[: arguments.limit]
    if not records:
        raise RecordError(f"{arguments.data}: no rows; give a file of JSON lines")
    records = [_without_outputs(record) for record in records]
    image_root: Path = arguments.image_root or arguments.data.parent
    if not image_root.is_dir():
        raise RecordError(f"{image_root}: no such folder; check --image-root")
    images_per_row = max(len(record_images(record)) for record in records)
    max_model_len = choose_max_model_len(arguments, checkpoint, images_per_row)
    identity: dict[str, Any] = {
        "checkpoint": checkpoint.sha256 or checkpoint.name,
        "data": file_sha256(arguments.data),
        "image_root": str(image_root.resolve()),
        "max_model_len": max_model_len,
    }
    identity |= {name: getattr(arguments, name) for name in DECIDING}
    warnings = pixel_warnings(arguments, checkpoint)
    return Plan(arguments, checkpoint, records, image_root, images_per_row, max_model_len, identity, warnings)


def choose_max_model_len(arguments: argparse.Namespace, checkpoint: Checkpoint, images_per_row: int) -> int:
    """Give the tokens of prompt and response that a row may have: as asked, else what the limits need."""
    most = checkpoint.max_positions
    asked: int | None = arguments.max_model_len
    if asked is not None:
        if most is not None and asked > most:
            raise RecordError(f"--max-model-len {asked}: {checkpoint.name} has {most} positions; lower it")
        return asked
    image_tokens = images_per_row * (arguments.max_pixels // PIXELS_PER_IMAGE_TOKEN)
    needed: int = image_tokens + ROOM_FOR_TEXT_TOKENS + arguments.max_new_tokens
    return needed if most is None else min(needed, most)


def pixel_warnings(arguments: argparse.Namespace, checkpoint: Checkpoint) -> list[str]:
    """Say so if images will be larger than the checkpoint's own image processor makes them."""
    own = checkpoint.own_max_pixels
    if own is None or own >= arguments.max_pixels:
        return []
    if own < arguments.min_pixels:
        what = f"every image will have at least {arguments.min_pixels} pixels"
    else:
        what = f"images may have up to {arguments.max_pixels} pixels"
    return [f"{what}; {checkpoint.name} was made for at most {own} (see --min-pixels, --max-pixels)"]


def _without_outputs(record: Record) -> Record:
    return {name: value for name, value in record.items() if name == "id" or name not in OUTPUT_FIELDS}
