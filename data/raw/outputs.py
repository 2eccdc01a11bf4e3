"""What the build of VECBench writes: records, links or copies of images, the manifest with sums, the card."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.raw.draw import Drawn
from data.raw.usable import Listing
from emocaliber.jsonl import RecordError
from emocaliber.prompts import conversation
from emocaliber.provenance import commit, file_sha256, installed_versions
from emocaliber.taxonomy import PUBLISHED_TEST_ROWS, PUBLISHED_TRAIN_ROWS, TASKS

# Rises whenever the same seed and releases would give other files.
BUILD_VERSION = 1
SPLITS = ("test", "train")

_DRAWN = """
SELECT task, drawn.label, dataset, path, sha256 FROM drawn JOIN image ON image.id = drawn.image
WHERE drawn.split = :split AND (:task IS NULL OR task = :task)
ORDER BY place(:seed || '/' || task || '/' || :split, sha256)
"""

_USED = "FROM image WHERE id IN (SELECT image FROM drawn)"


def records_of_test(
    database: sqlite3.Connection, tasks: Iterable[str], seed: int
) -> Iterator[dict[str, Any]]:
    """Give the test rows, task by task in the order of the tables, in random order within a task."""
    for task in tasks:
        for row in database.execute(_DRAWN, {"split": "test", "task": task, "seed": seed}):
            yield as_record(*row)


def records_of_train(database: sqlite3.Connection, seed: int) -> Iterator[dict[str, Any]]:
    """Give the training rows of all tasks in one random order: tasks in turn would teach one by one."""
    for row in database.execute(_DRAWN, {"split": "train", "task": None, "seed": seed}):
        yield as_record(*row)


def as_record(task: str, label: str, dataset: str, path: str, sha256: bytes) -> dict[str, Any]:
    """Give the published record of an image in a task, its id from the task and the file's content."""
    candidates = list(TASKS[task].labels)
    image = f"images/{dataset}/{path}"
    return {
        "id": f"{task}-{sha256.hex()[:16]}",
        "image": image,
        "conversations": conversation(image, candidates),
        "task": task,
        "ground_truth": label,
        "candidates": candidates,
    }


def place_images(folder: Path, raw: Mapping[str, Path], drawn: sqlite3.Connection | None = None) -> None:
    """Make FOLDER/DATASET: a link to the release, or a folder with copies of the images drawn in a database.

    Copies that are there already are left. Raises RecordError where a link would replace a folder.
    """
    folder.mkdir(exist_ok=True)
    # Before any link is taken away: a release may be given by the link of an earlier build.
    roots = {dataset: root.resolve() for dataset, root in raw.items()}
    for dataset, root in roots.items():
        target = folder / dataset
        if target.is_symlink():
            target.unlink()
        elif target.exists() and drawn is None:
            raise RecordError(f"{target}: a folder, no link; remove it, or give --copy-images")
        if drawn is None:
            target.symlink_to(root, target_is_directory=True)
    if drawn is not None:
        _copy_images(folder, roots, drawn)


def _copy_images(folder: Path, raw: Mapping[str, Path], drawn: sqlite3.Connection) -> None:
    (n_used,) = drawn.execute(f"SELECT count(*) {_USED}").fetchone()
    used = drawn.execute(f"SELECT dataset, path {_USED} ORDER BY dataset, path")
    for dataset, path in tqdm(used, total=n_used, desc="copies", unit="image", file=sys.stderr):
        source, copy = raw[dataset] / path, folder / dataset / path
        state = source.stat()
        if copy.is_file() and (copy.stat().st_size, copy.stat().st_mtime) == (state.st_size, state.st_mtime):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".{copy.name}.partial")
        shutil.copy2(source, partial)
        partial.replace(copy)


def manifest(
    folder: Path,
    arguments: Mapping[str, Any],
    database: sqlite3.Connection,
    drawn: Mapping[str, Drawn],
    rejected: Listing,
    noted: Listing,
) -> dict[str, Any]:
    """Give settings, counts and sums: of the files, and one over name and content of the images used."""
    names = ("test.jsonl", "train.jsonl", "rejected.jsonl", "noted.jsonl", "README.md")
    return {
        "build_version": BUILD_VERSION,
        "arguments": dict(arguments),
        "tasks": {name: _task_counts(name, task) for name, task in drawn.items()},
        "left_out": {name: rejected.of(name) for name in sorted({key[0] for key in rejected.counts})},
        "noted": {name: noted.of(name) for name in sorted({key[0] for key in noted.counts})},
        "sha256": {name: file_sha256(folder / name) for name in names},
        "image_sha256": _sum_of_images(database),
        "versions": installed_versions(["pillow"]),
        "commit": commit(),
    }


def _task_counts(name: str, task: Drawn) -> dict[str, Any]:
    published = {"test": PUBLISHED_TEST_ROWS[name], "train": PUBLISHED_TRAIN_ROWS.get(name, 0)}
    rows = {split: task.rows(split) for split in SPLITS}
    return {"rows": rows, "published_rows": published, "labels": task.labels}


def _sum_of_images(database: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    for dataset, path, sha256 in database.execute(
        f"SELECT dataset, path, sha256 {_USED} ORDER BY dataset, path"
    ):
        digest.update(f"{sha256.hex()}  images/{dataset}/{path}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def shortfalls(drawn: Mapping[str, Drawn], wanted: Mapping[str, int]) -> list[str]:
    """Say in a line each which test has fewer rows than wanted, and why."""
    return [
        f"{name}: {task.rows('test'):,} of {wanted[name]:,} test rows: {task.n_pool:,} images to draw from"
        for name, task in drawn.items()
        if task.rows("test") < wanted[name]
    ]


def card(
    arguments: Mapping[str, Any],
    drawn: Mapping[str, Drawn],
    rejected: Listing,
    noted: Listing,
    short: list[str],
) -> str:
    """Give the README of the built benchmark: sizes, labels, what was left out and why, the settings."""
    sizes = []
    for name, task in drawn.items():
        published = PUBLISHED_TRAIN_ROWS.get(name)
        tested = (f"{task.rows('test'):,}", f"{PUBLISHED_TEST_ROWS[name]:,}")
        trained = (f"{task.rows('train'):,}", f"{published:,}" if published else "-")
        sizes.append((name, TASKS[name].group, *tested, *trained))
    totals = [f"{sum(task.rows(split) for task in drawn.values()):,}" for split in SPLITS]
    *table, end = _table(("task", "group", "test", "published", "train", "published"), sizes)
    lines = ["# VECBench, built from its raw releases", "", *table]
    lines += [f"| Overall | | {totals[0]} | | {totals[1]} | |", end]
    if short:
        lines += ["Smaller than published:", "", *(f"- {line}" for line in short), ""]
    lines += _card_of_labels(drawn)
    lines += _card_of_listing("Left out", rejected)
    lines += _card_of_listing("Noted about images that can be used", noted)
    settings = ((name, f"`{json.dumps(value)}`") for name, value in sorted(arguments.items()))
    lines += ["## Settings", "", *_table(("setting", "value"), settings)]
    lines += ["The published draw is not public: these are other images of the same releases. Train and test"]
    lines += ["share no image content, within a task or across tasks.", ""]
    return "\n".join(lines)


def _card_of_labels(drawn: Mapping[str, Drawn]) -> list[str]:
    rows = (
        (name, label, f"{n:,}", f"{task.labels['train'][label]:,}")
        for name, task in drawn.items()
        for label, n in task.labels["test"].items()
    )
    return ["## Labels", "", *_table(("task", "label", "test", "train"), rows)]


def _card_of_listing(title: str, listing: Listing) -> list[str]:
    rows = ((*key, f"{count:,}") for key, count in sorted(listing.counts.items()))
    about = f"Each is in {listing.path.name}: where, reason, message."
    return [f"## {title}", "", about, "", *_table(("data set", "reason", "count"), rows)]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, and the empty line after it."""
    head, *body = (f"| {' | '.join(row)} |" for row in (titles, *rows))
    return [head, "|---" * len(titles) + "|", *body, ""]
