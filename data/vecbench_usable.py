"""Chooses the images of the raw releases that can be used: readable, one for each content, of one label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vecbench_files import RawImage
from vecbench_readers import READERS, ReaderSettings
from vecbench_scan import Scanned, scan

from emocaliber.jsonl import JsonlAppender, RecordError

LISTED_FIELDS = ("dataset", "where", "reason", "message")


@dataclass(slots=True)
class UsableImage:
    """A labelled image of a release that decodes. Sums are bytes; `is_drawn`: some split holds it."""

    dataset: str
    path: str
    label: str
    split: str | None
    where: str
    sha256: bytes
    pixels_sha256: bytes
    is_drawn: bool = False


class Listing:
    """Lists things of the releases in a file as they come, and counts them by data set and reason.

    The file gets its name when it is closed, unless the build was interrupted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[tuple[str, str]] = Counter()
        self._partial = path.with_name(f".{path.name}.partial")
        self._partial.unlink(missing_ok=True)
        self._rows = JsonlAppender(self._partial)

    def add(self, dataset: str, where: str, reason: str, message: str) -> None:
        """Count and list one thing."""
        self.counts[dataset, reason] += 1
        self._rows.write(dict(zip(LISTED_FIELDS, (dataset, where, reason, message), strict=True)))

    def of(self, dataset: str) -> dict[str, int]:
        """Give the counts of one data set by reason, most frequent first."""
        return {reason: n for (name, reason), n in self.counts.most_common() if name == dataset}

    def text_of(self, dataset: str) -> str:
        """Give those counts in one line."""
        return ", ".join(f"{reason} {n:,}" for reason, n in self.of(dataset).items()) or "nothing"

    def close(self) -> None:
        """Put the list in its place; more than once does no harm."""
        self._rows.close()
        if self._partial.exists():
            self._partial.replace(self.path)

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self._rows.close()
            self._partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class UseSettings:
    """What can be used. See `one_of_each`; `reading` is for the readers."""

    max_copies: int = 10
    on_conflict: str = "drop"
    reading: ReaderSettings = field(default_factory=ReaderSettings)


def usable_images(
    raw: Mapping[str, Path],
    settings: UseSettings,
    cache: Path,
    workers: int,
    rejected: Listing,
    noted: Listing,
) -> dict[str, list[UsableImage]]:
    """Read and scan the releases; list what is left out, and what is unusual about the rest.

    Raises RecordError for a release without an image that can be used.
    """
    listed: dict[str, list[RawImage]] = {}
    for dataset, root in raw.items():
        listed[dataset] = []
        for row in READERS[dataset](root, settings.reading):
            if isinstance(row, RawImage):
                listed[dataset].append(row)
            else:
                rejected.add(dataset, row.where, row.reason, row.message)
    files = {f"{name}/{row.path}": raw[name] / row.path for name, rows in listed.items() for row in rows}
    found = scan(files.items(), cache, workers)
    del files
    images: dict[str, list[UsableImage]] = {}
    for dataset, root in raw.items():
        readable = list(_readable(dataset, listed.pop(dataset), found, rejected))
        images[dataset] = one_of_each(readable, settings.max_copies, settings.on_conflict, rejected)
        if not images[dataset]:
            raise RecordError(
                f"{root}: no image of {dataset} can be used ({rejected.text_of(dataset)}; listed in "
                f"{rejected.path}); give its folder as it was released, see --help for settings"
            )
        for image in images[dataset]:
            for reason, message in found[f"{dataset}/{image.path}"].notes:
                noted.add(dataset, image.where, reason, message)
    return images


def _readable(
    dataset: str, rows: Iterable[RawImage], found: Mapping[str, Scanned], rejected: Listing
) -> Iterator[UsableImage]:
    for row in rows:
        sums = found[f"{dataset}/{row.path}"]
        if sums.reason:
            rejected.add(dataset, row.where, sums.reason, sums.message)
        else:
            fields = (row.path, row.label, row.split, row.where, sums.sha256, sums.pixels_sha256)
            yield UsableImage(dataset, *fields)


def one_of_each(
    images: list[UsableImage], max_copies: int, on_conflict: str, rejected: Listing
) -> list[UsableImage]:
    """Give one image for each content of one release; list the others.

    A file that occurs under more than `max_copies` names is a placeholder ("image removed"). Files of equal
    pixels with one label count once, the test split's before others. With different labels none counts, or
    the first with `on_conflict="first"`. The result is in that order, then in that of the paths.
    """
    files = {image.path: image.sha256 for image in images}
    copies = Counter(files.values())
    del files
    order = {"test": 0, "val": 1, "train": 2}
    images = sorted(images, key=lambda image: (order.get(image.split or "", 3), image.path, image.where))
    first: dict[bytes, UsableImage] = {}
    conflicting: set[bytes] = set()
    for image in images:
        if first.setdefault(image.pixels_sha256, image).label != image.label:
            conflicting.add(image.pixels_sha256)
    kept = []
    for image in images:
        original = first[image.pixels_sha256]
        if copies[image.sha256] > max_copies:
            reason, message = "placeholder", f"the same file under {copies[image.sha256]} names"
        elif image.pixels_sha256 in conflicting and on_conflict == "drop":
            reason, message = "conflicting_labels", f"its pixels occur with another label than {image.label}"
        elif image is not original:
            reason, message = "duplicate", f"the same pixels as {original.path}, {original.label}"
        else:
            kept.append(image)
            continue
        rejected.add(image.dataset, image.where, reason, f"{image.path}: {message}")
    return kept
