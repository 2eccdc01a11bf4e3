"""Draws test and training images of every task from the usable images of the releases, by a seed.

An image's place in the order of a draw is a sum over the seed, the task and the file's content. It depends
neither on names nor on which other images are there, so a few missing images change a few rows only.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from vecbench_usable import UsableImage

from emocaliber.taxonomy import (
    MIKELS_TO_POLARITY,
    PUBLISHED_TEST_ROWS,
    PUBLISHED_TRAIN_ROWS,
    TASKS,
    WEBEMO_25_TO_2,
    WEBEMO_25_TO_7,
    Task,
)

DERIVED_LABELS: dict[str, Mapping[str, str]] = {
    "FI-2": MIKELS_TO_POLARITY,
    "WebEmo-7": WEBEMO_25_TO_7,
    "WebEmo-2": WEBEMO_25_TO_2,
}
"""Tasks whose labels follow from those of the release."""


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


@dataclass
class Drawn:
    """Images of one task; `n_pool` is how many the test could be drawn from."""

    test: list[UsableImage]
    train: list[UsableImage]
    n_pool: int


def task_label(task: str, image: UsableImage) -> str:
    """Give the label of an image in a task."""
    derived = DERIVED_LABELS.get(task)
    return derived[image.label] if derived else image.label


def draw(images: Mapping[str, Sequence[UsableImage]], settings: DrawSettings) -> dict[str, Drawn]:
    """Draw the tasks of the given data sets, in the order of the tables.

    No image of any test has the content of a training image of any task.
    """
    drawn: dict[str, Drawn] = {}
    for dataset, pool in images.items():
        drawn |= _draw_dataset(dataset, pool, settings)
    in_test = {image.pixels_sha256 for task in drawn.values() for image in task.test}
    in_test |= {image.sha256 for task in drawn.values() for image in task.test}
    for name, task in drawn.items():
        task.train = [
            image
            for image in task.train
            if image.pixels_sha256 not in in_test and image.sha256 not in in_test
        ]
        del task.train[settings.train_rows.get(name, len(task.train)) :]
        for image in [*task.test, *task.train]:
            image.is_drawn = True
    return {name: drawn[name] for name in TASKS if name in drawn}


def _draw_dataset(dataset: str, pool: Sequence[UsableImage], settings: DrawSettings) -> dict[str, Drawn]:
    tasks = [task for task in TASKS.values() if task.dataset == dataset]
    has_splits = dataset in settings.official and any(image.split for image in pool)
    test_pool = [image for image in pool if image.split == "test"] if has_splits else pool
    train_pool = [image for image in pool if image.split == "train"] if has_splits else ()
    test_parts = _parts(test_pool, tasks, settings, PUBLISHED_TEST_ROWS if has_splits else _published_rows())
    train_parts = _parts(train_pool, tasks, settings, PUBLISHED_TRAIN_ROWS)
    drawn = {}
    for task in tasks:
        part = ranked(test_parts[task.name], f"{settings.seed}/{task.name}")
        wanted = settings.test_rows.get(task.name, 0)
        trains = task.name in PUBLISHED_TRAIN_ROWS
        test = sample(
            part,
            rows_of_test(task.name, wanted, len(part), keeps_training=trains and not has_splits),
            partial(task_label, task.name) if settings.stratify else lambda _: "",
        )
        chosen = {id(image) for image in test}
        rest = ranked(train_parts[task.name], f"{settings.seed}/{task.name}")
        if trains and not has_splits:
            rest = [image for image in part if id(image) not in chosen]
        drawn[task.name] = Drawn(test, rest, len(part))
    return drawn


def _published_rows() -> dict[str, int]:
    return {name: rows + PUBLISHED_TRAIN_ROWS.get(name, 0) for name, rows in PUBLISHED_TEST_ROWS.items()}


def _parts(
    pool: Sequence[UsableImage], tasks: Sequence[Task], settings: DrawSettings, sizes: Mapping[str, int]
) -> dict[str, list[UsableImage]]:
    """Give each task its images: all of them, or a part in proportion to the published sizes."""
    if len(tasks) == 1 or not settings.apart:
        return {task.name: list(pool) for task in tasks}
    weights = [sizes[task.name] for task in tasks]
    counts = in_proportion(len(pool), weights)
    order = ranked(pool, f"{settings.seed}/{tasks[0].dataset}")
    parts, start = {}, 0
    for task, count in zip(tasks, counts, strict=True):
        parts[task.name] = order[start : start + count]
        start += count
    return parts


def rows_of_test(task: str, wanted: int, n_pool: int, *, keeps_training: bool) -> int:
    """Give the rows of a test: those wanted, or fewer if the pool is small.

    Where the rest is for training and the test would take more than half, it takes its published share.
    """
    if not keeps_training or n_pool >= 2 * wanted:
        return min(wanted, n_pool)
    published = PUBLISHED_TEST_ROWS[task]
    share = published / (published + PUBLISHED_TRAIN_ROWS[task])
    return min(wanted, max(1, round(share * n_pool))) if n_pool > 1 else 0


def place(image: UsableImage, salt: str) -> bytes:
    """Give an image's place in the random order that belongs to the salt."""
    return hashlib.blake2b(salt.encode() + b"/" + image.sha256, digest_size=16).digest()


def ranked(images: Iterable[UsableImage], salt: str) -> list[UsableImage]:
    """Put images into the random order that belongs to the salt."""
    return sorted(images, key=lambda image: place(image, salt))


def sample(images: Sequence[UsableImage], n: int, stratum: Callable[[UsableImage], str]) -> list[UsableImage]:
    """Give `n` images of a ranked sequence, from each stratum as many as its share, its first ones."""
    strata: dict[str, list[UsableImage]] = defaultdict(list)
    for image in images:
        strata[stratum(image)].append(image)
    names = sorted(strata)
    counts = in_proportion(n, [len(strata[name]) for name in names])
    return [image for name, count in zip(names, counts, strict=True) for image in strata[name][:count]]


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
