"""What the build of VECBench writes: records, links or copies of images, the manifest with sums, the card."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vecbench_draw import Drawn, place, ranked, task_label
from vecbench_usable import Listing, UsableImage

from emocaliber.jsonl import RecordError
from emocaliber.prompts import conversation
from emocaliber.provenance import commit, file_sha256, installed_versions
from emocaliber.taxonomy import PUBLISHED_TEST_ROWS, PUBLISHED_TRAIN_ROWS, TASKS

# Rises whenever the same seed and releases would give other files.
BUILD_VERSION = 1
SPLITS = ("test", "train")


def as_record(task: str, image: UsableImage) -> dict[str, Any]:
    """Give the published record of an image in a task, its id from the task and the file's content."""
    candidates = list(TASKS[task].labels)
    path = f"images/{image.dataset}/{image.path}"
    return {
        "id": f"{task}-{image.sha256.hex()[:16]}",
        "image": path,
        "conversations": conversation(path, candidates),
        "task": task,
        "ground_truth": task_label(task, image),
        "candidates": candidates,
    }


def records_of_test(drawn: Mapping[str, Drawn], seed: int) -> Iterator[dict[str, Any]]:
    """Give the test rows, task by task in the order of the tables, in random order within a task."""
    for name, task in drawn.items():
        for image in ranked(task.test, f"{seed}/{name}/test"):
            yield as_record(name, image)


def records_of_train(drawn: Mapping[str, Drawn], seed: int) -> Iterator[dict[str, Any]]:
    """Give the training rows of all tasks in one random order: tasks in turn would teach one by one."""
    rows = [(name, image) for name, task in drawn.items() for image in task.train]
    rows.sort(key=lambda row: place(row[1], f"{seed}/{row[0]}/train"))
    return (as_record(name, image) for name, image in rows)


def place_images(
    folder: Path, raw: Mapping[str, Path], drawn: Mapping[str, Drawn], *, copies: bool = False
) -> None:
    """Make FOLDER/DATASET: a link to the release, or a folder with copies of the images that are drawn.

    Copies that are there already are left. Raises RecordError where a link would replace a folder.
    """
    folder.mkdir(exist_ok=True)
    # Before any link is taken away: a release may be given by the link of an earlier build.
    roots = {dataset: root.resolve() for dataset, root in raw.items()}
    for dataset, root in roots.items():
        target = folder / dataset
        if target.is_symlink():
            target.unlink()
        elif target.exists() and not copies:
            raise RecordError(f"{target}: a folder, no link; remove it, or give --copy-images")
        if not copies:
            target.symlink_to(root, target_is_directory=True)
    if copies:
        _copy_images(folder, roots, drawn)


def _copy_images(folder: Path, raw: Mapping[str, Path], drawn: Mapping[str, Drawn]) -> None:
    from tqdm import tqdm

    used = {(image.dataset, image.path) for task in drawn.values() for image in [*task.test, *task.train]}
    for dataset, path in tqdm(sorted(used), desc="copies", unit="image", file=sys.stderr):
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
        "image_sha256": _sum_of_images(drawn),
        "versions": installed_versions(["pillow"]),
        "commit": commit(),
    }


def _task_counts(name: str, task: Drawn) -> dict[str, Any]:
    published = {"test": PUBLISHED_TEST_ROWS[name], "train": PUBLISHED_TRAIN_ROWS.get(name, 0)}
    rows = {"test": len(task.test), "train": len(task.train)}
    return {"rows": rows, "published_rows": published, "labels": label_counts(name, task)}


def label_counts(name: str, task: Drawn) -> dict[str, dict[str, int]]:
    """Give the rows of each split by label, in the order of the task's labels."""
    counts = {
        "test": Counter(task_label(name, image) for image in task.test),
        "train": Counter(task_label(name, image) for image in task.train),
    }
    return {split: {label: counts[split][label] for label in TASKS[name].labels} for split in SPLITS}


def _sum_of_images(drawn: Mapping[str, Drawn]) -> str:
    images = {
        (image.dataset, image.path, image.sha256)
        for task in drawn.values()
        for image in [*task.test, *task.train]
    }
    digest = hashlib.sha256()
    for dataset, path, sha256 in sorted(images):
        digest.update(f"{sha256.hex()}  images/{dataset}/{path}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def shortfalls(drawn: Mapping[str, Drawn], wanted: Mapping[str, int]) -> list[str]:
    """Say in a line each which test has fewer rows than wanted, and why."""
    return [
        f"{name}: {len(task.test):,} of {wanted[name]:,} test rows: {task.n_pool:,} images to draw from"
        for name, task in drawn.items()
        if len(task.test) < wanted[name]
    ]


def card(
    arguments: Mapping[str, Any],
    drawn: Mapping[str, Drawn],
    rejected: Listing,
    noted: Listing,
    short: list[str],
) -> str:
    """Give the README of the built benchmark: sizes, labels, what was left out and why, the settings."""
    lines = [
        "# VECBench, built from its raw releases",
        "",
        "| task | group | test | published | train | published |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, task in drawn.items():
        published = PUBLISHED_TRAIN_ROWS.get(name)
        cells = (
            *(name, TASKS[name].group, f"{len(task.test):,}", f"{PUBLISHED_TEST_ROWS[name]:,}"),
            *(f"{len(task.train):,}", f"{published:,}" if published else "-"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    totals = [sum(len(getattr(task, split)) for task in drawn.values()) for split in SPLITS]
    lines += [f"| Overall | | {totals[0]:,} | | {totals[1]:,} | |", ""]
    if short:
        lines += ["Smaller than published:", "", *(f"- {line}" for line in short), ""]
    lines += _card_of_labels(drawn)
    lines += _card_of_listing("Left out", rejected)
    lines += _card_of_listing("Noted about images that can be used", noted)
    lines += ["## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | `{json.dumps(value)}` |" for name, value in sorted(arguments.items())]
    lines += [
        "",
        "The published draw is not public: these are other images of the same releases. Train and test",
    ]
    lines += ["share no image content, within a task or across tasks.", ""]
    return "\n".join(lines)


def _card_of_labels(drawn: Mapping[str, Drawn]) -> list[str]:
    lines = ["## Labels", "", "| task | label | test | train |", "|---|---|---|---|"]
    for name, task in drawn.items():
        counts = label_counts(name, task)
        for label in TASKS[name].labels:
            lines.append(f"| {name} | {label} | {counts['test'][label]:,} | {counts['train'][label]:,} |")
    return [*lines, ""]


def _card_of_listing(title: str, listing: Listing) -> list[str]:
    lines = [f"## {title}", "", f"Each is in {listing.path.name}: where, reason, message.", ""]
    lines += ["| data set | reason | count |", "|---|---|---|"]
    for (dataset, reason), count in sorted(listing.counts.items()):
        lines.append(f"| {dataset} | {reason} | {count:,} |")
    return [*lines, ""]
