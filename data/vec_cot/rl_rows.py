"""Records as the rows of stage 3: verl's Parquet and ms-swift's chats, and why a record is no such row."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import RecordError, read_jsonl, write_jsonl_atomic
from emocaliber.prompts import SYSTEM_PROMPT
from emocaliber.records import Unusable, content_id, record_candidates, record_images, record_text
from emocaliber.taxonomy import canonical_task, match_label

ROWS_PER_GROUP = 256
"""Rows held in memory, pictures included, and read at once by who reads the file."""

Usable = tuple[dict[str, Any], dict[str, Any]]
"""A row of the Parquet and its chat."""

PLACEHOLDERS = ("<image>", "<video>", "<audio>")


def build(args: argparse.Namespace) -> None:
    """Write the files and print the counts. Raises RecordError where there is nothing sound to write."""
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
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"


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
    limits = {name: value for name in ("min_pixels", "max_pixels") if (value := getattr(args, name))}
    seen: set[str] = set()
    for number, record in records:
        try:
            chat = as_chat(record, seen)
            paths = [root / path for path in chat["images"]]
            images = [read_image(path) for path in paths]
        except Unusable as error:
            where = f"{args.records}:{number}"
            rejected.append(
                {"where": where, "id": record.get("id"), "reason": error.reason, "detail": str(error)}
            )
            continue
        chat["images"] = [str(path) for path in paths]
        name, values = ("image", chat["images"]) if args.image_paths else ("bytes", images)
        sized = [{name: value, **limits} for value in values]
        yield as_row(chat, sized, number - 1, args.split), chat


def as_chat(record: dict[str, Any], seen: set[str]) -> dict[str, Any]:
    """The record as ms-swift reads it, image paths as they were. Raises Unusable."""
    if not isinstance(record.get("task"), str) or not record["task"].strip():
        raise Unusable("no_task", "no task; give its name")
    task = canonical_task(record["task"])
    try:
        reason = "candidates"
        candidates = record_candidates(record)
        reason = "images"
        images = record_images(record)
        reason = "question"
        question = record_text(record).strip()
    except RecordError as error:
        raise Unusable(reason, str(error)) from None
    if not question or any(mark in question for mark in PLACEHOLDERS):
        raise Unusable("question", f"the question is empty or holds one of {', '.join(PLACEHOLDERS)}")
    truth = record.get("ground_truth")
    if not isinstance(truth, str) or not truth.strip():
        raise Unusable("no_truth", "no ground_truth; a reward needs one label")
    label = match_label(truth, candidates)
    if label is None:
        raise Unusable("truth_not_a_candidate", f"ground_truth {truth!r} is not among {candidates}")
    identity = record.get("id")
    if identity in (None, ""):
        identity = _free_id(content_id({**record, "task": task, "candidates": candidates}), seen)
    identity = str(identity)
    if identity in seen:
        raise Unusable("repeated_id", f"id {identity!r} is also that of an earlier row")
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
    """The bytes of a picture's file, which decode. Raises Unusable."""
    try:
        inspect_image(path)
    except ImageFault as fault:
        if fault.reason == "image_missing":
            raise Unusable(fault.reason, f"{path} is missing; set --image-root") from None
        raise Unusable("image_unreadable", fault.message) from None
    return path.read_bytes()


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
    writer: pq.ParquetWriter | None = None
    remaining = iter(rows)
    while group := list(islice(remaining, ROWS_PER_GROUP)):
        table = pa.Table.from_pylist([row for row, _ in group], schema=writer.schema if writer else None)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        chats += [chat for _, chat in group]
    if writer:
        writer.close()
    return chats
