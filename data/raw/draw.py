"""Draws test and training images of every task from the usable images of the releases, by a seed.

An image's place in the order of a draw is a sum over the seed, the task and the file's content. It depends
neither on names nor on which other images are there, so a few missing images change a few rows only.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emocaliber.taxonomy import DERIVED_LABELS, PUBLISHED_TEST_ROWS, PUBLISHED_TRAIN_ROWS, TASKS, Task


@dataclass(frozen=True)
class DrawSettings:
    """How the draw is made.

    The published sizes are known, the way to them is not. They add up to no more than a release has if tasks
    of one data set share no image (FI-2 and FI-8: 22,760 of about 23,185; WebEmo: 248,193 of about 268,000)
    and WEBEmo's own splits are not kept (245,196 training rows, 213,952 images in its training list); hence
    the defaults.

    test_rows, train_rows: most rows of each task; a task that train_rows lacks is not limited.
    apart: an image belongs to one task of its data set, else to all. official: data sets whose own test
    split gives the test and whose training split the training. stratify: every label keeps its share of the
    pool in the test, else the test is a plain sample.
    """

    seed: int = 0
    test_rows: Mapping[str, int] = field(default_factory=lambda: PUBLISHED_TEST_ROWS)
    train_rows: Mapping[str, int] = field(default_factory=dict)
    apart: bool = True
    official: frozenset[str] = frozenset({"EmoSet-118K"})
    stratify: bool = True


@dataclass(frozen=True)
class Drawn:
    """What a task got: the rows of each split by label, and of how many images its test was drawn."""

    labels: Mapping[str, Mapping[str, int]]
    n_pool: int

    def rows(self, split: str) -> int:
        """Give the rows of a split."""
        return sum(self.labels[split].values())


def task_label(task: str, label: str) -> str:
    """Give the label in a task of an image that has this one in its release."""
    derived = DERIVED_LABELS.get(task)
    return derived[label] if derived else label


def place(salt: str, sha256: bytes) -> bytes:
    """Give an image's place in the random order that belongs to the salt."""
    return hashlib.blake2b(salt.encode() + b"/" + sha256, digest_size=16).digest()


def draw(database: sqlite3.Connection, datasets: Iterable[str], settings: DrawSettings) -> dict[str, Drawn]:
    """Draw the tasks of the given data sets from the `image`s into `drawn`, in the order of the tables.

    No image of any test has the content of a training image of any task. From here on SQL has `place`.
    """
    database.create_function("place", 2, place, deterministic=True)
    database.create_function("task_label", 2, task_label, deterministic=True)
    n_pools: dict[str, int] = {}
    for dataset in datasets:
        n_pools |= _draw_dataset(database, dataset, settings)
    for content in ("pixels_sha256", "sha256"):
        database.execute(
            "DELETE FROM drawn WHERE split = 'train' AND image IN"
            f" (SELECT id FROM image WHERE {content} IN (SELECT {content} FROM in_test))"
        )
    for name, most in settings.train_rows.items():
        database.execute(
            "DELETE FROM drawn WHERE rowid IN (SELECT rowid FROM drawn WHERE task = ? AND split = 'train'"
            " ORDER BY place, image LIMIT -1 OFFSET ?)",
            (name, most),
        )
    database.commit()
    return {name: Drawn(_label_counts(database, name), n_pools[name]) for name in TASKS if name in n_pools}


def _label_counts(database: sqlite3.Connection, task: str) -> dict[str, dict[str, int]]:
    counts = {split: dict.fromkeys(TASKS[task].labels, 0) for split in ("test", "train")}
    rows = database.execute(
        "SELECT split, label, count(*) FROM drawn WHERE task = ? GROUP BY split, label", (task,)
    )
    for split, label, n in rows:
        counts[split][label] = n
    return counts


def _draw_dataset(database: sqlite3.Connection, dataset: str, settings: DrawSettings) -> dict[str, int]:
    """Draw the tasks of a data set. Gives the sizes of their pools."""
    tasks = [task for task in TASKS.values() if task.dataset == dataset]
    splits = database.execute("SELECT DISTINCT split FROM image WHERE dataset = ?", (dataset,))
    has_splits = dataset in settings.official and any(split for (split,) in splits)
    if has_splits:
        _deal(database, tasks, settings, PUBLISHED_TEST_ROWS, "test")
    else:
        _deal(database, tasks, settings, _published_rows(), None)
    n_pools = {}
    for task in tasks:
        keeps_training = task.name in PUBLISHED_TRAIN_ROWS and not has_splits
        n_pools[task.name] = _draw_test(database, task.name, settings, keeps_training=keeps_training)
        if keeps_training:
            database.execute(
                "UPDATE drawn SET split = 'train' WHERE task = ? AND split = 'pool'", (task.name,)
            )
    database.execute("DELETE FROM drawn WHERE split = 'pool'")
    if has_splits:
        _deal(database, tasks, settings, PUBLISHED_TRAIN_ROWS, "train")
        database.execute("UPDATE drawn SET split = 'train' WHERE split = 'pool'")
    return n_pools


def _published_rows() -> dict[str, int]:
    return {name: rows + PUBLISHED_TRAIN_ROWS.get(name, 0) for name, rows in PUBLISHED_TEST_ROWS.items()}


def _deal(
    database: sqlite3.Connection,
    tasks: Sequence[Task],
    settings: DrawSettings,
    sizes: Mapping[str, int],
    split: str | None,
) -> None:
    """Give each task its pool of the images of a split, None for all of the data set.

    All of those, or, if the tasks are to be apart, a part in proportion to the published sizes.
    """
    dataset = tasks[0].dataset
    pool = "FROM image WHERE dataset = :dataset AND (:split IS NULL OR split = :split)"
    order, start = f"{settings.seed}/{dataset}", 0
    given: dict[str, Any] = {"dataset": dataset, "split": split, "order": order}
    (n_images,) = database.execute(f"SELECT count(*) {pool}", given).fetchone()
    is_shared = len(tasks) == 1 or not settings.apart
    counts = [n_images] * len(tasks)
    if not is_shared:
        counts = in_proportion(n_images, [sizes[task.name] for task in tasks])
    for task, count in zip(tasks, counts, strict=True):
        given |= {"task": task.name, "salt": f"{settings.seed}/{task.name}"}
        database.execute(
            "INSERT INTO drawn SELECT :task, 'pool', task_label(:task, label), place(:salt, sha256), id"
            f" {pool} ORDER BY place(:order, sha256), id LIMIT :count OFFSET :start",
            given | {"count": count, "start": start},
        )
        start += 0 if is_shared else count


def _draw_test(
    database: sqlite3.Connection, task: str, settings: DrawSettings, *, keeps_training: bool
) -> int:
    """Draw the test of a task from its pool, from each label as many as its share. Gives the pool's size."""
    pool = "FROM drawn WHERE task = ? AND split = 'pool'"
    strata = f"SELECT label, count(*) {pool} GROUP BY label ORDER BY label"
    if not settings.stratify:
        strata = f"SELECT NULL, count(*) {pool}"
    sizes: dict[str | None, int] = dict(database.execute(strata, (task,)))
    n_pool = sum(sizes.values())
    n_rows = rows_of_test(task, settings.test_rows.get(task, 0), n_pool, keeps_training=keeps_training)
    for label, count in zip(sizes, in_proportion(n_rows, list(sizes.values())), strict=True):
        database.execute(
            "UPDATE drawn SET split = 'test' WHERE rowid IN"
            f" (SELECT rowid {pool} AND ifnull(label = ?, 1) ORDER BY place, image LIMIT ?)",
            (task, label, count),
        )
    return n_pool


def rows_of_test(task: str, wanted: int, n_pool: int, *, keeps_training: bool) -> int:
    """Give the rows of a test: those wanted, or fewer if the pool is small.

    Where the rest is for training and the test would take more than half, it takes its published share.
    """
    if not keeps_training or n_pool >= 2 * wanted:
        return min(wanted, n_pool)
    published = PUBLISHED_TEST_ROWS[task]
    share = published / (published + PUBLISHED_TRAIN_ROWS[task])
    return min(wanted, max(1, round(share * n_pool))) if n_pool > 1 else 0


def in_proportion(n: int, weights: Sequence[int]) -> list[int]:
    """Divide `n` whole things by weights, what is left over to the largest remainders (Hamilton's method)."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    counts = [n * weight // total for weight in weights]
    remainders = [n * weight % total for weight in weights]
    for index in sorted(range(len(weights)), key=lambda i: -remainders[i])[: n - sum(counts)]:
        counts[index] += 1
    return counts
