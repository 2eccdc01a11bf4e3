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
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser

ROWS_PER_GROUP = 256
"""Rows held in memory, pictures included, and read at once by who reads the file."""
Usable = tuple[dict[str, Any], dict[str, Any]]
"""A row of the Parquet and its chat."""
PLACEHOLDERS = ("<image>", "<video>", "<audio>")


class Rejected(Exception):
    """A row that cannot be trained on. `reason` is the name it is counted under, the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def main() -> None:
    """Build the files, or say why not and exit with 2."""
    args = parse_arguments()
    from emocaliber.jsonl import RecordError

    try:
        build_or_reuse(args)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give other paths", file=sys.stderr)
        raise SystemExit(2) from None


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="JSON lines, as inference reads them")
    parser.add_argument("--output", type=Path, required=True, help="a name in .parquet")
    parser.add_argument(
        "--image-root", type=Path, help="what image paths are relative to (default: the records')"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--embed-images", action="store_true", help="the pictures' files in the Parquet (default)"
    )
    form.add_argument(
        "--image-paths", action="store_true", help="absolute paths: smaller, bound to this machine"
    )
    parser.add_argument(
        "--min-pixels", type=int, help="verl scales pictures up to this (default: the processor's)"
    )
    parser.add_argument("--max-pixels", type=int, help="verl scales pictures down to this")
    parser.add_argument("--chats", type=Path, help="also write the rows as ms-swift reads them")
    parser.add_argument(
        "--reuse",
        action="store_true",
        help="leave files that are whole and of the same records; keeps their sums in OUTPUT.built.json",
    )
    parser.add_argument("--split", default="train", help="what extra_info and the reward log call these rows")
    parser.add_argument("--limit", type=int, help="a random sample of so many usable rows")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--max-rejected", type=float, default=0.01, help="share of rows that may be left out")
    args = parser.parse_args()
    if args.output.suffix != ".parquet":
        parser.error(f"--output {args.output}: verl knows the format by the name; give one in .parquet")
    if not 0 <= args.max_rejected <= 1:
        parser.error(f"--max-rejected {args.max_rejected}: give a share between 0 and 1")
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit {args.limit}: give at least 1")
    return args


def build_or_reuse(args: argparse.Namespace) -> None:
    """Build, unless --reuse finds the files. Raises RecordError, and OSError for missing records."""
    from emocaliber.jsonl import write_text_atomic

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
    from emocaliber.provenance import file_sha256

    names = ("image_paths", "min_pixels", "max_pixels", "split", "limit", "seed", "max_rejected")
    root = str((args.image_root or args.records.parent).resolve())
    return {"records_sha256": file_sha256(args.records), "image_root": root} | {
        name: getattr(args, name) for name in names
    }


def stamp_text(made_of: dict[str, Any], args: argparse.Namespace) -> str:
    """`made_of` with the sum of every file, None for one that is not there."""
    from emocaliber.provenance import file_sha256

    files = [args.output] if args.chats is None else [args.output, args.chats]
    sums = {str(path): file_sha256(path) if path.is_file() else None for path in files}
    return json.dumps({**made_of, "files_sha256": sums}, indent=1) + "\n"


def build(args: argparse.Namespace) -> None:
    """Write the files and print the counts. Raises RecordError where there is nothing sound to write."""
    from emocaliber.jsonl import RecordError, read_jsonl, write_jsonl_atomic

    records = list(read_jsonl(args.records))
    if not records:
        raise RecordError(f"{args.records}: no rows; give the records of stage 3")
    rejected: list[dict[str, Any]] = []
    rows = usable_rows(records, args, rejected)
    listed = args.output.with_suffix(".rejected.jsonl")
    partial = args.output.with_name(f".{args.output.name}.partial")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        chats = write_parquet(partial, rows if args.limit is None else sample(rows, args.limit, args.seed))
        listed.unlink(missing_ok=True)
        if rejected:
            write_jsonl_atomic(listed, rejected)
            print(f"{listed}: {reasons(rejected)}", file=sys.stderr)
        share = len(rejected) / len(records)
        if share > args.max_rejected or not chats:
            raise RecordError(
                f"{args.records}: {len(rejected)} of {len(records)} rows cannot be used "
                f"({reasons(rejected)}; listed in {listed}); mend them, or allow more by --max-rejected"
            )
        partial.replace(args.output)
    finally:
        partial.unlink(missing_ok=True)
    if args.chats is not None:
        write_jsonl_atomic(args.chats, chats)
    tasks = Counter(chat["task"] for chat in chats)
    counts = ", ".join(f"{task} {count}" for task, count in sorted(tasks.items()))
    of = "" if args.limit is None else f", a sample of {len(records) - len(rejected)}"
    print(f"{args.output}: {len(chats)} rows ({counts}), {len(rejected)} left out{of}")


def reasons(rejected: Iterable[dict[str, Any]]) -> str:
    """The counts of the reasons, most frequent first."""
    counts = Counter(row["reason"] for row in rejected)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "no reason"


def sample(rows: Iterable[Usable], size: int, seed: int) -> list[Usable]:
    """So many of the rows at random, in their order; not more are held (Vitter's algorithm R)."""
    rng = random.Random(seed)
    chosen: list[tuple[int, Usable]] = []
    for number, row in enumerate(rows):
        if number < size:
            chosen.append((number, row))
        elif (place := rng.randrange(number + 1)) < size:
            chosen[place] = (number, row)
    return [row for _, row in sorted(chosen, key=lambda pair: pair[0])]


def usable_rows(
    records: Iterable[tuple[int, dict[str, Any]]], args: argparse.Namespace, rejected: list[dict[str, Any]]
) -> Iterator[Usable]:
    """Give (Parquet row, chat) of each record that can be used; put the others into `rejected`."""
    root = (args.image_root or args.records.parent).resolve()
    seen: set[str] = set()
    for number, record in records:
        try:
            chat = as_chat(record, seen)
            paths = [root / path for path in chat["images"]]
            images = [read_image(path) for path in paths]
        except Rejected as error:
            where = f"{args.records}:{number}"
            rejected.append(
                {"where": where, "id": record.get("id"), "reason": error.reason, "detail": str(error)}
            )
            continue
        chat["images"] = [str(path) for path in paths]
        form = (
            [{"image": path} for path in chat["images"]]
            if args.image_paths
            else [{"bytes": b} for b in images]
        )
        limits = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
        sized = [image | {name: value for name, value in limits.items() if value} for image in form]
        yield as_row(chat, sized, number - 1, args.split), chat


def as_chat(record: dict[str, Any], seen: set[str]) -> dict[str, Any]:
    """The record as ms-swift reads it, image paths as they were. Raises Rejected."""
    from emocaliber.jsonl import RecordError
    from emocaliber.prompts import SYSTEM_PROMPT
    from emocaliber.record_fields import content_id
    from emocaliber.records import record_candidates, record_images, record_text
    from emocaliber.taxonomy import canonical_task, match_label

    if not isinstance(record.get("task"), str) or not record["task"].strip():
        raise Rejected("no_task", "no task; give its name")
    task = canonical_task(record["task"])
    try:
        reason = "candidates"
        candidates = record_candidates(record)
        reason = "images"
        images = record_images(record)
        reason = "question"
        question = record_text(record).strip()
    except RecordError as error:
        raise Rejected(reason, str(error)) from None
    if not question or any(mark in question for mark in PLACEHOLDERS):
        raise Rejected("question", f"the question is empty or holds one of {', '.join(PLACEHOLDERS)}")
    truth = record.get("ground_truth")
    if not isinstance(truth, str) or not truth.strip():
        raise Rejected("no_truth", "no ground_truth; a reward needs one label")
    label = match_label(truth, candidates)
    if label is None:
        raise Rejected("truth_not_a_candidate", f"ground_truth {truth!r} is not among {candidates}")
    identity = record.get("id")
    if identity in (None, ""):
        identity = _free_id(content_id({**record, "task": task, "candidates": candidates}), seen)
    identity = str(identity)
    if identity in seen:
        raise Rejected("repeated_id", f"id {identity!r} is also that of an earlier row")
    seen.add(identity)
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "<image>" * len(images) + question},
    ]
    fields = {"id": identity, "task": task, "ground_truth": label, "candidates": candidates}
    return fields | {"messages": messages, "images": images}


def _free_id(identity: str, seen: set[str]) -> str:
    """The id of a row that has none, as `emocaliber.records` gives it: repeats are numbered from 2."""
    n, free = 1, identity
    while free in seen:
        n += 1
        free = f"{identity}-{n}"
    return free


def read_image(path: Path) -> bytes:
    """The bytes of a picture's file, which decode. Raises Rejected."""
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.convert("RGB")
    except FileNotFoundError:
        raise Rejected("image_missing", f"{path} is missing; set --image-root") from None
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Rejected("image_unreadable", f"{path}: {error or type(error).__name__}") from None
    return data


def as_row(chat: dict[str, Any], images: list[dict[str, Any]], index: int, split: str) -> dict[str, Any]:
    """A row as verl's RLHFDataset reads it."""
    return {
        "data_source": chat["task"],
        "prompt": chat["messages"],
        "images": images,
        "ability": "visual emotion",
        "reward_model": {"style": "rule", "ground_truth": chat["ground_truth"]},
        "extra_info": {
            "index": index,
            "id": chat["id"],
            "task": chat["task"],
            "candidates": chat["candidates"],
            "split": split,
        },
    }


def write_parquet(path: Path, rows: Iterable[Usable]) -> list[dict[str, Any]]:
    """Write the rows group by group, so that not all pictures are held at once; give their chats."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chats: list[dict[str, Any]] = []
    group: list[dict[str, Any]] = []
    writer: pq.ParquetWriter | None = None

    def flush() -> None:
        nonlocal writer
        if group:
            table = pa.Table.from_pylist(group, schema=writer.schema if writer else None)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            group.clear()

    for row, chat in rows:
        chats.append(chat)
        group.append(row)
        if len(group) == ROWS_PER_GROUP:
            flush()
    flush()
    if writer:
        writer.close()
    return chats


if __name__ == "__main__":
    main()
