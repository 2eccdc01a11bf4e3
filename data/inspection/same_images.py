"""Which images are the same, and which splits and tasks share them: fingerprints and rows in, counts out."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from data.inspection.rows import Row
from emocaliber.images import inspect_image, open_rgb, pixels_sha256

N_BITS = 64
METHOD = "sha256, RGB sha256, phash 64, phash 256"
"""Names what `fingerprint` gives: kept facts of another method are not used again."""
_MOST_PARTS_IN_KEY = 4


def fingerprint(path: str) -> dict[str, Any]:
    """Read and decode an image file: what tells it from others, exactly and by its looks.

    Returns:
        sha256 (of the bytes) and pixels_sha256 (of size and RGB pixels as shown, equal to that of
        `emocaliber.images.inspect_image`), phash (64 bits) and fine_phash (256 bits), all as hex.
    Raises:
        ImageFault: the file is no image that can be decoded to its last pixel.
    """
    sha256 = inspect_image(path, decode=False).sha256
    image = open_rgb(path)
    return {
        "sha256": sha256,
        "pixels_sha256": pixels_sha256(image),
        "phash": str(imagehash.phash(image, hash_size=8)),
        "fine_phash": str(imagehash.phash(image, hash_size=16)),
    }


def pairs_within(hashes: NDArray[np.uint64], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every pair of hashes that differ in at most `radius` bits; none is missed.

    The 64 bits are cut into radius + k parts. Two hashes at that distance agree in at least k parts, so they
    meet when all are sorted by some k of them: one sort for each choice of k, instead of all n (n - 1) / 2
    comparisons (the pigeonhole principle; Norouzi et al. 2012, "Fast search in Hamming space with multi-index
    hashing"). k grows with n, so that few others share a key.

    Args:
        hashes: [n]; equal ones are pairs too.
        radius: bits, 0 or above; fast as long as it is small against the 64.
    Returns:
        first, second [pairs]: places in `hashes`, first < second, in ascending order.
    """
    n = len(hashes)
    found: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for mask in _key_masks(n, radius):
        key = hashes & mask
        order = np.argsort(key, kind="stable")
        key = key[order]
        # In sorted order equal keys stand together: compare neighbours, then those two apart, and so on.
        step, place = 1, np.arange(n - 1)
        while len(place := place[place + step < n]) and len(place := place[key[place] == key[place + step]]):
            one, other = order[place], order[place + step]
            near = np.bitwise_count(hashes[one] ^ hashes[other]) <= radius
            one, other = one[near], other[near]
            found.append(np.minimum(one, other) * n + np.maximum(one, other))
            step += 1
    first, second = np.divmod(np.unique(np.concatenate(found)), max(n, 1))
    return first, second


def _key_masks(n: int, radius: int) -> list[np.uint64]:
    """The bits to sort by, one mask for each choice of parts."""
    wanted_bits = math.log2(max(n, 2))
    in_key = 1
    while in_key < _MOST_PARTS_IN_KEY and in_key * N_BITS / (radius + in_key) < wanted_bits:
        in_key += 1
    n_parts = radius + in_key
    edges = [N_BITS * part // n_parts for part in range(n_parts + 1)]
    parts = [(1 << end) - (1 << start) for start, end in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(parts, in_key)]


KINDS = ("same_file", "same_bytes", "same_pixels", "perceptual")
"""How two images are the same, the strictest first; each holds the ones before it."""
Cell = tuple[str, str]  # split, task


class Fingerprint(NamedTuple):
    """What tells an image from others: digests of its bytes and of its pixels, and hashes of its looks.

    phash has 64 bits; fine_phash has 256, as 32 bytes.
    """

    sha256: bytes
    pixels_sha256: bytes
    phash: int
    fine_phash: bytes


def as_fingerprint(facts: Mapping[str, Any]) -> Fingerprint:
    """What `fingerprint` gives, as it is held in memory."""
    sha256, pixels, fine = (bytes.fromhex(facts[n]) for n in ("sha256", "pixels_sha256", "fine_phash"))
    return Fingerprint(sha256, pixels, int(facts["phash"], 16), fine)


@dataclass(frozen=True)
class Radius:
    """How many bits may differ between the hashes of images that look the same: of 64, and of 256."""

    bits: int = 4
    fine_bits: int = 16


@dataclass(frozen=True)
class Pair:
    """Two rows with the same image: how, in how many of 256 bits their looks differ, and the files."""

    kind: str
    distance_bits: int
    rows: tuple[Row, Row]
    files: tuple[str, str]


class SharedImages:
    """All images of some rows, told apart by file, by bytes, by pixels and by looks.

    Files that hold training rows are numbered first, so the first of every class of equal images is one of
    training where the class has any. A file without a fingerprint is only ever the same as itself.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        prints: Mapping[str, Fingerprint],
        *,
        training: Collection[str],
        test: Collection[str],
        radius: Radius | None,
    ) -> None:
        """`radius`: None leaves looks out."""
        self.training, self.test, self.radius = set(training), set(test), radius
        self.rows_of: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.split not in self.training):
            for file in dict.fromkeys(row.files):
                self.rows_of.setdefault(file, []).append(row)
        self.files = list(self.rows_of)
        self._number = {file: number for number, file in enumerate(self.files)}
        self.cells: list[Cell] = sorted({(row.split, row.task) for row in rows})
        known = [prints.get(file) for file in self.files]
        self.without_print = {file for file, p in zip(self.files, known, strict=True) if p is None}
        self._class_of = {  # [files] each
            "same_file": np.arange(len(self.files)),
            "same_bytes": _numbered(p.sha256 if p else number for number, p in enumerate(known)),
            "same_pixels": _numbered(p.pixels_sha256 if p else number for number, p in enumerate(known)),
        }
        if radius is not None:
            looks = [p[2:] if p else number for number, p in enumerate(known)]
            self._class_of["perceptual"] = _numbered(looks)
        self.kinds = tuple(self._class_of)
        self._first_of = {
            kind: np.unique(classes, return_index=True)[1] for kind, classes in self._class_of.items()
        }
        self._near = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))  # classes of looks
        self._distance = np.empty(0, dtype=np.int64)
        if radius is not None:
            self._find_near([known[file] for file in self._first_of["perceptual"]], radius)

    def _find_near(self, looks: Sequence[Fingerprint | None], radius: Radius) -> None:
        hashed = [(place, p) for place, p in enumerate(looks) if p is not None]
        one, other = pairs_within(np.array([p.phash for _, p in hashed], dtype=np.uint64), radius.bits)
        fine = np.frombuffer(b"".join(p.fine_phash for _, p in hashed), dtype=np.uint64).reshape(-1, 4)
        distance = np.bitwise_count(fine[one] ^ fine[other]).sum(axis=1, dtype=np.int64)
        near = distance <= radius.fine_bits
        places = np.array([place for place, _ in hashed], dtype=np.int64)
        self._near = (places[one[near]], places[other[near]])
        self._distance = distance[near]

    def shared(self, kind: str) -> NDArray[np.int64]:
        """Images of cell A that are the same, by this kind or a stricter one, as one of cell B [A, B].

        On the diagonal: images that are the same as another file of the same cell.
        """
        counts = self._counts(kind)[self._class_of[kind]]
        matrix = (self._has_file.T @ (counts > 0).astype(np.int64)).toarray()
        twice = self._has_file.multiply((counts >= 2).astype(np.int64))
        np.fill_diagonal(matrix, np.asarray(twice.sum(axis=0)).ravel())
        result: NDArray[np.int64] = matrix
        return result

    def n_images(self) -> list[int]:
        """Files of each cell."""
        return [int(n) for n in np.asarray(self._has_file.sum(axis=0)).ravel()]

    @cached_property
    def _has_file(self) -> Any:
        """[files, cells], sparse, 1 where the cell has the file."""
        number = {cell: place for place, cell in enumerate(self.cells)}
        pairs = {
            (self._number[file], number[row.split, row.task])
            for file, rows in self.rows_of.items()
            for row in rows
        }
        at = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        shape = (len(self.files), len(self.cells))
        return csr_array((np.ones(len(at), dtype=np.int64), (at[:, 0], at[:, 1])), shape=shape)

    def _counts(self, kind: str) -> Any:
        """[classes, cells], sparse: files of the cell in the class, or near it."""
        classes = self._class_of[kind]
        counts = _incidence(classes, np.arange(len(classes)), (len(self._first_of[kind]), len(classes)))
        counts = counts @ self._has_file
        if kind != "perceptual":
            return counts
        one, other = self._near
        shape = (counts.shape[0], counts.shape[0])
        return counts + _incidence(np.r_[one, other], np.r_[other, one], shape) @ counts

    def pairs(self) -> Iterator[Pair]:
        """Every copy with the first of its kind, and the firsts of looks that are near each other.

        Of k equal images that is k - 1 pairs, not k (k - 1) / 2: a placeholder does not fill the list.
        """
        for file, rows in self.rows_of.items():
            for row in rows[1:]:
                yield Pair("same_file", 0, (rows[0], row), (file, file))
        for kind, distance, one, other in self._links():
            rows_of_both = self._row(one), self._row(other, of_test=True)
            yield Pair(kind, distance, rows_of_both, (self.files[one], self.files[other]))

    def _links(self) -> Iterator[tuple[str, int, int, int]]:
        """(kind, distance, file, file), enough of them to connect all that is the same."""
        representatives = np.arange(len(self.files))
        for kind in self.kinds[1:]:
            firsts = self._first_of[kind]
            for file in representatives:
                first = firsts[self._class_of[kind][file]]
                if first != file:
                    yield kind, 0, int(first), int(file)
            representatives = firsts
        first_of = self._first_of[self.kinds[-1]]
        for one, other, distance in zip(*self._near, self._distance, strict=True):
            low, high = sorted((int(first_of[one]), int(first_of[other])))
            yield "perceptual", int(distance), low, high

    def leaks(self) -> Iterator[Pair]:
        """One pair for every image and task of a test split that occurs in training, the training row first.

        Of several the strictest kind and the smallest distance. Not by way of a third image.
        """
        n_training = sum(rows[0].split in self.training for rows in self.rows_of.values())
        nearest = self._nearest_in_training(n_training)
        for file, rows in self.rows_of.items():
            tested = {row.task: row for row in reversed(rows) if row.split in self.test}
            if not tested:
                continue
            number = self._number[file]
            for kind in self.kinds:
                first = int(self._first_of[kind][self._class_of[kind][number]])
                if first < n_training:
                    found = kind, 0, first
                    break
            else:
                looks = int(self._class_of[self.kinds[-1]][number])
                found = self.kinds[-1], *nearest.get(looks, (0, -1))
            kind, distance, known = found
            if known >= 0:
                for row in tested.values():
                    yield Pair(kind, distance, (self._row(known), row), (self.files[known], file))

    def _nearest_in_training(self, n_training: int) -> dict[int, tuple[int, int]]:
        """Class of looks -> distance and file of the nearest other class that has a training image."""
        first = self._first_of[self.kinds[-1]]
        nearest: dict[int, tuple[int, int]] = {}
        one, other = np.r_[self._near], np.r_[self._near[::-1]]
        distance = np.r_[self._distance, self._distance]
        is_training = first[other] < n_training
        for c, near, d in zip(one[is_training], other[is_training], distance[is_training], strict=True):
            nearest[int(c)] = min(nearest.get(int(c), (int(d), int(first[near]))), (int(d), int(first[near])))
        return nearest

    def groups(self) -> NDArray[np.int64]:
        """The number of each file's group [files]: all that is connected by being the same, step by step.

        Images of one row are in one group, and so are files that rows of the test splits call by one name.
        """
        links = [(one, other) for _, _, one, other in self._links()]
        named: dict[str, int] = {}
        for rows in self.rows_of.values():
            for row in rows:
                numbers = [self._number[file] for file in row.files]
                links += [(numbers[0], number) for number in numbers[1:]]
                if row.split in self.test:
                    called = zip(row.images, numbers, strict=True)
                    links += [(named.setdefault(image, number), number) for image, number in called]
        at = np.array(links, dtype=np.int64).reshape(-1, 2)
        graph = _incidence(at[:, 0], at[:, 1], (len(self.files), len(self.files)))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)

    def _row(self, file: int, *, of_test: bool = False) -> Row:
        """A row that stands for a file: of training, or if so asked of a test split, where it has any."""
        rows = self.rows_of[self.files[file]]
        return next((row for row in rows if of_test and row.split in self.test), rows[0])


def _numbered(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    """Number keys by their first occurrence."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _incidence(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Any:
    return csr_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)
