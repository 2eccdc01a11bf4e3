"""Builds VECBench from the raw releases of its six data sets: test and training records, sums, a card.

    python data/build_vecbench.py --raw /raw/EmoSet-118K /raw/FI /raw/WEBEmo /raw/UnbiasedEmo \\
        /raw/ArtPhoto /raw/Abstract --output-dir data/VECBench --seed 0
    python data/build_vecbench.py --raw FI=/raw/flickr --output-dir data/FI

A folder is known by what is in it or by its name, or say NAME=FOLDER. A part of the six gives their tasks.
Writes test.jsonl and train.jsonl, whose images are images/DATASET/…, a link to the release or, with
--copy-images, a folder of copies; rejected.jsonl and noted.jsonl: all that is left out, and what is unusual
about the rest, such as a wrong extension (where, reason, message); README.md, the card; and, last,
manifest.json with settings, counts and sums. What each image holds is kept in scan.jsonl: an interrupted
build goes on there, and another one with other settings decodes no image again.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from data.raw.draw import Drawn, DrawSettings, draw
from data.raw.outputs import card, manifest, place_images, records_of_test, records_of_train, shortfalls
from data.raw.readers import ReaderSettings, check_outside
from data.raw.scan import BUILD_TABLES, SCAN, temporary_database
from data.raw.usable import Listing, UseSettings, usable_images
from emocaliber.command_line import CommandParser, run_command
from emocaliber.image_scan import CAN_GO_ON, WORKERS, ImageMemory
from emocaliber.jsonl import RecordError, write_jsonl_atomic, write_text_atomic
from emocaliber.taxonomy import PUBLISHED_TEST_ROWS, PUBLISHED_TRAIN_ROWS, TASKS, rows_of_task

DATASETS = tuple(dict.fromkeys(task.dataset for task in TASKS.values()))
MARKS = {  # what tells the releases apart, the surest first
    "ABSTRACT_groundTruth.csv": "Abstract",
    "testImages_artphoto": "ArtPhoto",
    "emotion_dataset": "FI",
    "train25.txt": "WEBEmo",
    "train.json": "EmoSet-118K",
    "images/train": "WEBEmo",
    "images/anger": "UnbiasedEmo",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    return run_command(lambda: build(parse_arguments(argv)), **CAN_GO_ON)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--raw", nargs="+", required=True, metavar="FOLDER", help="each a release, or NAME=FOLDER")
    add("--output-dir", type=Path, required=True)
    add("--seed", type=int, default=0, help="of the draw (default 0)")
    add("--test-rows", nargs="+", default=[], metavar="TASK=N", help="instead of the published sizes")
    add("--train-rows", choices=("all", "published"), default="all", help="the rest, or at most as published")
    add("--stratify", choices=("label", "none"), default="label", help="labels keep their shares in the test")
    add("--tasks", choices=("apart", "shared"), default="apart", help="may tasks of a data set share images")
    add(
        "--official-splits",
        nargs="*",
        default=["EmoSet-118K"],
        choices=DATASETS,
        metavar="DATASET",
        help="whose own splits are kept (default EmoSet-118K)",
    )
    add("--max-copies", type=int, default=10, help="more files of one content are placeholders (default 10)")
    add("--on-conflict", choices=("drop", "first"), default="drop", help="of one image under two labels")
    add("--webemo-source", choices=("auto", "lists", "folders"), default="auto", help="where its labels are")
    add("--webemo-file-name", default="{basename}", help="of a list's line: {basename} {stem} {extension} …")
    add("--copy-images", action="store_true", help="copy the images that are used, rather than link")
    add("--workers", **WORKERS)
    args = parser.parse_args(argv)
    if args.max_copies < 1:
        parser.error("--max-copies must be at least 1")
    try:
        args.webemo_file_name.format(basename="", stem="", extension="", line=1, index=0)
    except (KeyError, IndexError, ValueError) as error:
        parser.error(f"--webemo-file-name: no field {error}; fields: basename, stem, extension, line, index")
    try:
        args.test_rows = dict(rows_of_task(text) for text in args.test_rows)
    except ValueError as error:
        parser.error(f"--test-rows {error}")
    return args


def releases(texts: list[str]) -> dict[str, Path]:
    """Give the folder of each data set. Raises RecordError for a folder that is not known as one."""
    found: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=") if text.partition("=")[0] in DATASETS else ("", "", text)
        root = Path(folder)
        if not root.is_dir():
            raise RecordError(f"--raw {text}: no folder {folder}; give that of a release")
        named = {dataset.casefold(): dataset for dataset in DATASETS}.get(root.resolve().name.casefold())
        marked = next((dataset for mark, dataset in MARKS.items() if (root / mark).exists()), None)
        dataset = name or marked or named
        if dataset is None:
            raise RecordError(
                f"--raw {text}: not known as a release; say NAME={folder} ({', '.join(DATASETS)})"
            )
        if dataset in found:
            raise RecordError(f"--raw {text}: {dataset} is given twice ({found[dataset]}); give one")
        found[dataset] = root
    return {dataset: found[dataset] for dataset in DATASETS if dataset in found}


def build(args: argparse.Namespace) -> None:
    """Read, scan, draw, write. Raises RecordError where there is nothing sound to write."""
    folder: Path = args.output_dir
    raw = releases(args.raw)
    check_outside(folder, raw.values())
    folder.mkdir(parents=True, exist_ok=True)
    settings = DrawSettings(
        seed=args.seed,
        test_rows=PUBLISHED_TEST_ROWS | args.test_rows,
        train_rows=PUBLISHED_TRAIN_ROWS if args.train_rows == "published" else {},
        apart=args.tasks == "apart",
        official=frozenset(args.official_splits),
        stratify=args.stratify == "label",
    )
    reading = ReaderSettings(args.webemo_source, args.webemo_file_name)
    use = UseSettings(args.max_copies, args.on_conflict, reading)
    with (
        ImageMemory(folder / SCAN) as memory,  # from here on no other process builds here
        temporary_database(BUILD_TABLES) as database,
        Listing(folder / "rejected.jsonl") as rejected,
        Listing(folder / "noted.jsonl") as noted,
    ):
        # Without it, what is there is not a benchmark: from here to the end the files are not of one build.
        (folder / "manifest.json").unlink(missing_ok=True)
        usable_images(raw, use, memory, database, args.workers, rejected, noted)
        drawn = draw(database, raw, settings)
        list_undrawn(database, rejected)
        place_images(folder / "images", raw, database if args.copy_images else None)
        write_files(args, settings, database, drawn, rejected, noted)


def list_undrawn(database: sqlite3.Connection, rejected: Listing) -> None:
    """List the images that can be used and are in no split."""
    rows = database.execute(
        "SELECT dataset, path, split, listed_at, pixels_sha256 IN (SELECT pixels_sha256 FROM in_test)"
        " FROM image WHERE id NOT IN (SELECT image FROM drawn) ORDER BY id"
    )
    for dataset, path, split, where, is_in_test in rows:
        reason, message = "not_drawn", "left over by the draw"
        if is_in_test:
            reason, message = "in_a_test", "a test of another data set holds its content"
        elif split == "val":
            message = "the split val is not used"
        rejected.add(dataset, where, reason, f"{path}: {message}")


def write_files(
    args: argparse.Namespace,
    settings: DrawSettings,
    database: sqlite3.Connection,
    drawn: dict[str, Drawn],
    rejected: Listing,
    noted: Listing,
) -> None:
    """Write records and card, then the manifest, and say what was built."""
    folder: Path = args.output_dir
    # What decides about the rows: not where the releases lie, nor how many processes read them.
    arguments = {k: v for k, v in vars(args).items() if k not in ("raw", "output_dir", "workers")}
    short = shortfalls(drawn, settings.test_rows)
    write_jsonl_atomic(folder / "test.jsonl", records_of_test(database, drawn, args.seed))
    write_jsonl_atomic(folder / "train.jsonl", records_of_train(database, args.seed))
    write_text_atomic(folder / "README.md", card(arguments, drawn, rejected, noted, short))
    for listing in (rejected, noted):
        listing.close()
    content = manifest(folder, arguments, database, drawn, rejected, noted)
    write_text_atomic(folder / "manifest.json", json.dumps(content, indent=1) + "\n")
    for line in short:
        print(line, file=sys.stderr)
    for dataset in {TASKS[name].dataset: None for name in drawn}:
        counts = f"left out {rejected.text_of(dataset)}; noted {noted.text_of(dataset)}"
        print(f"{dataset}: {counts}", file=sys.stderr)
    tests, trains = (sum(task.rows(split) for task in drawn.values()) for split in ("test", "train"))
    print(f"{folder}: {len(drawn)} tasks, {tests:,} test rows, {trains:,} training rows")


if __name__ == "__main__":
    sys.exit(main())
