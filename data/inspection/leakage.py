"""The report of shared images: what is counted, listed, drawn and printed of them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.inspection.figures import shared_images, write_figures
from data.inspection.same_images import Pair, SharedImages
from emocaliber.jsonl import write_jsonl_atomic, write_text_atomic
from emocaliber.report.tables import free_table, printable
from emocaliber.taxonomy import task_sort_key

EXACT = "same_pixels"
_MOST_LINES = 30


def write_report(folder: Path, images: SharedImages, left_out: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write every file into the folder; gives what leakage.json holds."""
    leaks = list(images.leaks())
    n_pairs: Counter[str] = Counter()

    def counted() -> Iterator[dict[str, Any]]:
        for pair in images.pairs():
            n_pairs[pair.kind] += 1
            yield _as_line(pair)

    write_jsonl_atomic(folder / "duplicates.jsonl", counted())
    write_jsonl_atomic(folder / "leaks.jsonl", map(_as_line, leaks))
    write_jsonl_atomic(folder / "unreadable.jsonl", left_out)
    groups = images.groups()
    clusters = {"images": _clusters(images, groups)}
    write_text_atomic(folder / "clusters.json", json.dumps(clusters, ensure_ascii=False, indent=0) + "\n")
    shared = {"exact": images.shared(EXACT), "all": images.shared(images.kinds[-1])}
    n_images = images.n_images()
    figures = {
        "shared_images": partial(shared_images, images.cells, n_images, shared["all"]),
        "shared_images_exact": partial(shared_images, images.cells, n_images, shared["exact"]),
    }
    write_figures(folder, figures)
    found = _summary(images, leaks, shared, groups)
    found["not_compared"] = _not_compared(images, leaks, left_out)
    found["pairs"] = {kind: n_pairs[kind] for kind in images.kinds}
    found["left_out"] = dict(Counter(entry["reason"] for entry in left_out).most_common())
    write_text_atomic(folder / "leakage.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def _not_compared(
    images: SharedImages, leaks: Sequence[Pair], left_out: Sequence[dict[str, Any]]
) -> dict[str, int]:
    """What the answer says nothing about: images of both sides that cannot be read, rows that name none.

    A test image that cannot be read, but is in training by its path, is known to be there.
    """
    leaked = {pair.files[1] for pair in leaks}
    splits = {file: {row.split for row in images.rows_of[file]} for file in images.without_print}
    no_image = [entry["split"] for entry in left_out if entry["reason"] == "no_image"]
    return {
        "test_images": sum(bool(of & images.test) and file not in leaked for file, of in splits.items()),
        "training_images": sum(bool(of & images.training) for of in splits.values()),
        "rows_without_image": sum(split in images.test | images.training for split in no_image),
    }


def _as_line(pair: Pair) -> dict[str, Any]:
    """The pair as one line: every field that differs between the two rows is a list of two."""
    line: dict[str, Any] = {"kind": pair.kind, "distance_bits": pair.distance_bits, "files": pair.files}
    names = {"ids": "id", "splits": "split", "tasks": "task", "labels": "label", "where": "where"}
    return line | {name: [getattr(row, field) for row in pair.rows] for name, field in names.items()}


def _clusters(images: SharedImages, groups: NDArray[np.int64]) -> dict[str, str]:
    """Image of a test split, as its rows name it -> group, for groups that hold several of them.

    A row of several images is named by all their paths, one a line, as evaluation names it. Without a test
    split all rows are taken.
    """
    group_of = dict(zip(images.files, groups.tolist(), strict=True))
    members: defaultdict[int, set[str]] = defaultdict(set)
    for rows in images.rows_of.values():
        for row in rows:
            if row.split in images.test or not images.test:
                members[group_of[row.files[0]]].add("\n".join(row.images))
    several = [sorted(names) for names in members.values() if len(names) > 1]
    return {image: f"group-{number}" for number, names in enumerate(sorted(several)) for image in names}


def _summary(
    images: SharedImages, leaks: Sequence[Pair], shared: dict[str, Any], groups: NDArray[np.int64]
) -> dict[str, Any]:
    by_kind = Counter({pair.files[1]: pair.kind for pair in leaks}.values())
    by_task: dict[str, dict[str, int]] = {}
    for task in sorted({task for split, task in images.cells if split in images.test}, key=task_sort_key):
        kinds = Counter(pair.kind for pair in leaks if pair.rows[1].task == task)
        of_task = [[row.split for row in rows if row.task == task] for rows in images.rows_of.values()]
        n_images = sum(not images.test.isdisjoint(splits) for splits in of_task)
        by_task[task] = {"n_images": n_images, **{kind: kinds[kind] for kind in images.kinds}}
    sizes = np.bincount(groups)
    return {
        "test_splits": sorted(images.test),
        "training_splits": sorted(images.training),
        "radius": None if images.radius is None else asdict(images.radius),
        "n_images": len(images.files),
        "n_training_images": sum(rows[0].split in images.training for rows in images.rows_of.values()),
        "test_images_in_training": {
            "n": sum(by_kind.values()),
            "of": sum(any(row.split in images.test for row in rows) for rows in images.rows_of.values()),
            "by_kind": {kind: by_kind[kind] for kind in images.kinds},
            "by_task": by_task,
        },
        "groups": {"n_of_several_images": int((sizes > 1).sum()), "largest": int(sizes.max())},
        "cells": [
            {"split": split, "task": task, "n_images": n}
            for (split, task), n in zip(images.cells, images.n_images(), strict=True)
        ],
        "shared": {name: matrix.tolist() for name, matrix in shared.items()},
    }


def answer(found: dict[str, Any], folder: Path) -> list[str]:
    """The lines to print: is the test clean, task by task, and who shares images with whom."""
    leaked = found["test_images_in_training"]
    kinds = list(leaked["by_kind"])
    lines = [
        f"{found['n_images']:,} images; test: {_names(found['test_splits'])}; "
        f"training: {_names(found['training_splits'])}"
    ]
    if found["left_out"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in found["left_out"].items())
        lines.append(f"Left out, not compared: {reasons} (see {folder / 'unreadable.jsonl'})")
    if not found["test_splits"] or not found["training_splits"]:
        lines.append(
            "Test and training are not both there, so nothing can leak: name splits by --test, --training."
        )
    else:
        titles = ["Test task", "Images", "In training", *(kind.replace("_", " ") for kind in kinds)]
        body = []
        for task, counts in leaked["by_task"].items():
            n_of_kind = [counts[kind] for kind in kinds]
            body.append([task, *(f"{n:,}" for n in (counts["n_images"], sum(n_of_kind), *n_of_kind))])
        lines += [*_verdict(found), free_table(titles, [body])]
    lines += _sharing(found)
    groups = found["groups"]
    lines.append(
        f"{groups['n_of_several_images']:,} groups of several images, the largest of {groups['largest']:,}. "
        f"Written to {folder}"
    )
    return lines


def _verdict(found: dict[str, Any]) -> list[str]:
    """The answer with how many images it is about, and what it is not about."""
    leaked, left = found["test_images_in_training"], found["not_compared"]
    question = "Does any test image occur in training?"
    if not any(left.values()):
        return [f"{question} {'yes' if leaked['n'] else 'no'}: {leaked['n']:,} of {leaked['of']:,}"]
    n_compared = leaked["of"] - left["test_images"]
    said = "yes" if leaked["n"] else "none found"
    return [
        f"{question} {said}: {leaked['n']:,} of {n_compared:,} compared, {left['test_images']:,} not",
        f"Not compared: {left['test_images']:,} of {leaked['of']:,} test images, "
        f"{left['training_images']:,} of {found['n_training_images']:,} training images, "
        f"{left['rows_without_image']:,} rows that name no image; mend them, or give --allow-uncompared",
    ]


def _names(splits: Sequence[str]) -> str:
    return ", ".join(map(printable, splits)) or "none"


def _sharing(found: dict[str, Any]) -> list[str]:
    """Which two splits and tasks share images, most first."""
    cells, exact, shared = found["cells"], found["shared"]["exact"], found["shared"]["all"]
    pairs = [
        (shared[a][b], exact[a][b], a, b) for a in range(len(cells)) for b in range(a + 1) if shared[a][b]
    ]
    if not pairs:
        return ["No two images are the same."]
    named = [f"{cell['split']} · {cell['task']}" for cell in cells]
    body = []
    for n, n_exact, a, b in sorted(pairs, key=lambda pair: (-pair[0], pair[2:])):
        share = f"{100 * n / cells[a]['n_images']:.1f}"
        body.append([named[a], "itself" if a == b else named[b], f"{n:,}", share, f"{n_exact:,}"])
    lines = [
        "Which splits and tasks share images?",
        free_table(["Images of", "same as one of", "Images", "in %", "exactly"], [body[:_MOST_LINES]]),
    ]
    if len(body) > _MOST_LINES:
        lines.append(f"{len(body) - _MOST_LINES} more pairs are in leakage.json.")
    return lines
