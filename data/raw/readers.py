"""Readers of the six raw releases behind VECBench: what each lists, image by image, without opening one.

Every reader takes the folder of its release and yields a RawImage for each image that has a label, and a
Skipped for each thing that has none. Paths are relative to that folder. The layouts are those of the
releases as described by their authors; where a release leaves something open, `ReaderSettings` says how it
is read. Raises RecordError for a folder that is not the release.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from data.raw.scan import storable, temporary_database
from emocaliber.jsonl import RecordError
from emocaliber.taxonomy import MIKELS_8, UNBIASED_6, WEBEMO_25, match_label

IMAGE_EXTENSIONS = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".jfif"}


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image of a release. `split` is the release's own, None if it has none; `where` says who lists it."""

    path: str
    label: str
    split: str | None
    where: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something listed in a release that is no labelled image: where, a reason to count by, more in words."""

    where: str
    reason: str
    message: str


Rows = Iterator[RawImage | Skipped]


@cache
def label_of(text: str, labels: tuple[str, ...]) -> str | None:
    """Give the label that a release's word stands for (`Content`, `sad`), None if it stands for none."""
    return match_label(text, labels)


def is_image_name(name: str) -> bool:
    """Tell whether a name ends as that of an image file."""
    return posixpath.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def path_inside(path: str) -> str | None:
    """Give a relative path in one spelling, None if it is empty or leads out of its folder."""
    spelled = posixpath.normpath(path.strip().replace("\\", "/")) if path.strip() else ".."
    is_out = spelled.startswith(("/", "../")) or spelled in ("..", ".") or "\0" in spelled
    return None if is_out else spelled


def files_below(root: Path, folder: str = "") -> Iterator[str]:
    """Yield the files of a folder of the release, relative to the release, in the order of their names."""
    try:
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    except OSError as error:
        raise RecordError(f"{root / folder}: cannot be read ({error.strerror}); check --raw") from None
    for entry in entries:
        relative = posixpath.join(folder, entry.name)
        if entry.is_dir():
            yield from files_below(root, relative)
        else:
            yield relative


def folder_of(root: Path, name: str, dataset: str) -> str:
    """Give the folder that the release keeps its images in, or "" if `root` is that folder itself."""
    if (root / name).is_dir():
        return name
    if root.name == name and root.is_dir():
        return ""
    raise RecordError(f"{root}: no folder {name}; give the folder of {dataset} that holds it")


def _labelled(path: str, label: str | None, why_none: str, split: str | None = None) -> RawImage | Skipped:
    """Give a file of a release that is listed by its own name."""
    if not is_image_name(path):
        return Skipped(path, "other_file", "its name is not that of an image")
    return RawImage(path, label, split, path) if label else Skipped(path, "unknown_label", why_none)


def labelled_folders(root: Path, folder: str, labels: tuple[str, ...]) -> Rows:
    """Read FOLDER/LABEL/…/IMAGE: the folder below the given one is the label."""
    for path in files_below(root, folder):
        written, *inner = posixpath.relpath(path, folder or ".").split("/")
        label = label_of(written, labels) if inner else None
        yield _labelled(path, label, f"not in a folder named as one of {', '.join(labels)}")


def json_list(path: Path) -> list[Any]:
    """Read a JSON file that holds a list. Raises RecordError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(rows, list):
        raise RecordError(f"{path}: a JSON {type(rows).__name__}, not a list of rows; fetch it again")
    return rows


def quoted_csv(path: Path) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (line number, cells) of a csv whose cells may be wrapped in single or double quotes."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, skipinitialspace=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip().strip("'\"").strip() for cell in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecordError(f"{path}: cannot be read ({reason}); give the csv as it was released") from None


def check_outside(output_dir: Path, releases: Iterable[Path]) -> None:
    """Raise RecordError if the output would lie in a release: it would be read as a part of it."""
    folder = output_dir.resolve()
    for release in releases:
        if release.resolve() in (folder, *folder.parents):
            raise RecordError(f"--output-dir {output_dir}: lies in the release {release}; give one outside")


SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ReaderSettings:
    """What the description of WEBEmo leaves open.

    webemo_source: `lists` reads train25.txt and test25.txt, `folders` takes split and label from
    images/SPLIT/0-24, `auto` the lists if they are there. webemo_file_name: how a line of a list names its
    file, from {basename}, {stem} and {extension} of the URL, {line} (from 1) and {index} (the label).
    """

    webemo_source: str = "auto"
    webemo_file_name: str = "{basename}"


def read_emoset(root: Path, settings: ReaderSettings) -> Rows:
    """EmoSet-118K: train.json, val.json, test.json, rows [emotion, image path, annotation path].

    An id may stand anywhere in a row: the emotion is the first text that is one, the image the first text
    that ends as an image file does.
    """
    files = [root / f"{split}.json" for split in SPLITS]
    if not any(file.is_file() for file in files):
        raise RecordError(f"{root}: none of train.json, val.json, test.json; give the folder of EmoSet-118K")
    for split, file in zip(SPLITS, files, strict=True):
        if not file.is_file():
            yield Skipped(file.name, "list_missing", f"no {file.name}: the split {split} is left out")
            continue
        for number, row in enumerate(json_list(file), start=1):
            yield _emoset_row(row, split, f"{file.name}:row {number}")


def _emoset_row(row: Any, split: str, where: str) -> RawImage | Skipped:
    texts = [item for item in row if isinstance(item, str)] if isinstance(row, list) else []
    path = next((text for text in texts if is_image_name(text)), None)
    if path is None or len(texts) < 2:
        return Skipped(where, "malformed_row", f"not [emotion, image, annotation]: {str(row)[:200]}")
    label = next((found for text in texts if (found := label_of(text, MIKELS_8))), None)
    if label is None:
        return Skipped(where, "unknown_label", f"none of the eight emotions: {str(row)[:200]}")
    if inside := path_inside(path):
        return RawImage(inside, label, split, where)
    return Skipped(where, "image_outside_root", f"{path[:200]!r} leaves the folder of the release")


def read_fi(root: Path, settings: ReaderSettings) -> Rows:
    """FI: emotion_dataset/EMOTION/*.jpg, no split."""
    yield from labelled_folders(root, folder_of(root, "emotion_dataset", "FI"), MIKELS_8)


def read_unbiased_emo(root: Path, settings: ReaderSettings) -> Rows:
    """UnbiasedEmo: images/EMOTION/OBJECT/*.jpg, no split."""
    yield from labelled_folders(root, folder_of(root, "images", "UnbiasedEmo"), UNBIASED_6)


def read_webemo(root: Path, settings: ReaderSettings) -> Rows:
    """WEBEmo: `URL LABEL` lines of train25.txt, test25.txt, files images/SPLIT/LABEL/*; or the files only."""
    listed = [split for split in SPLITS if (root / f"{split}25.txt").is_file()]
    if settings.webemo_source == "folders" or (settings.webemo_source == "auto" and not listed):
        yield from _webemo_folders(root, folder_of(root, "images", "WEBEmo"))
        return
    if not listed:
        raise RecordError(f"{root}: no train25.txt or test25.txt; give the folder of WEBEmo")
    for split in listed:
        yield from _webemo_list(root, split, settings.webemo_file_name)


def _webemo_folders(root: Path, images: str) -> Rows:
    for path in files_below(root, images):
        split, index, *_ = [*posixpath.relpath(path, images or ".").split("/"), ""]
        label = WEBEMO_25[int(index)] if split in SPLITS and _is_webemo_index(index) else None
        yield _labelled(path, label, "not below images/SPLIT/0 to 24", split)


_WEBEMO_FILES = """
CREATE TABLE file (
    folder INTEGER, name TEXT, stem TEXT, is_listed INTEGER DEFAULT 0, PRIMARY KEY (folder, name)
) WITHOUT ROWID;
CREATE INDEX by_stem ON file (folder, stem);
"""


def _webemo_list(root: Path, split: str, file_name: str) -> Rows:
    name = f"{split}25.txt"
    with (
        temporary_database(_WEBEMO_FILES) as files,
        open(root / name, encoding="utf-8-sig", errors="replace") as lines,
    ):
        _index_webemo_files(files, root / "images" / split)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{name}:{number}"
            url, _, index = line.strip().rpartition(" ")
            if not url or not _is_webemo_index(index):
                reason = "unknown_label" if url and index.lstrip("-").isdigit() else "malformed_row"
                yield Skipped(where, reason, f"not `URL LABEL` with a label 0 to 24: {line.strip()[:200]}")
                continue
            try:
                wanted = _webemo_name(url, number, int(index), file_name)
            except ValueError as error:  # an address with half an IPv6 host
                yield Skipped(where, "malformed_row", f"{error}: {line.strip()[:200]}")
                continue
            found = _webemo_file(files, int(index), wanted)
            folder = f"images/{split}/{int(index)}"
            if found is None:
                yield Skipped(where, "image_missing", f"no {folder}/{wanted[:200]} for {url[:200]}")
            else:
                yield RawImage(f"{folder}/{found}", WEBEMO_25[int(index)], split, where)
        for index, left in files.execute(
            "SELECT folder, name FROM file WHERE NOT is_listed ORDER BY folder, name"
        ):
            yield Skipped(f"images/{split}/{index}/{left}", "not_in_list", f"no line of {name} names it")


def _index_webemo_files(files: sqlite3.Connection, folder: Path) -> None:
    for index in range(len(WEBEMO_25)):
        inner = folder / str(index)
        names = os.listdir(inner) if inner.is_dir() else []
        files.executemany(
            "INSERT INTO file (folder, name, stem) VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT))",
            ((index, storable(name), storable(Path(name).stem)) for name in names),
        )


def _webemo_file(files: sqlite3.Connection, folder: int, wanted: str) -> str | None:
    """Give the file of a name: a URL and the file saved from it may differ in the extension."""
    stem = Path(wanted).stem
    for column, text in (("name", wanted), ("stem", wanted), ("name", stem), ("stem", stem)):
        # The last of those that share a stem.
        query = f"SELECT max(name) FROM file WHERE folder = ? AND {column} = ?"
        (found,) = files.execute(query, (folder, text)).fetchone()
        if found:
            marked = "UPDATE file SET is_listed = 1 WHERE folder = ? AND name = CAST(? AS TEXT)"
            files.execute(marked, (folder, storable(found)))
            return str(found)
    return None


def _webemo_name(url: str, line: int, index: int, file_name: str) -> str:
    basename = unquote(posixpath.basename(urlsplit(url).path)).replace("/", "_")
    stem, extension = posixpath.splitext(basename)
    return file_name.format(basename=basename, stem=stem, extension=extension, line=line, index=index)


def _is_webemo_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < len(WEBEMO_25)


def read_artphoto(root: Path, settings: ReaderSettings) -> Rows:
    """ArtPhoto: testImages_artphoto/EMOTION_NNNN.jpg, no split."""
    for path in files_below(root, folder_of(root, "testImages_artphoto", "ArtPhoto")):
        written = re.match(r"[^\W\d_]+(?=_\d)", posixpath.basename(path))
        label = label_of(written.group(), MIKELS_8) if written else None
        yield _labelled(path, label, "the name does not begin with one of the emotions and _")


def read_abstract(root: Path, settings: ReaderSettings) -> Rows:
    """Abstract: the label of a row of ABSTRACT_groundTruth.csv is its most voted emotion; ties have none."""
    name = "ABSTRACT_groundTruth.csv"
    rows = quoted_csv(root / name)
    columns = _vote_columns(next(rows, (1, []))[1], root / name)
    listed = set()
    for number, row in rows:
        where = f"{name}:{number}"
        file = path_inside(row[0]) if row else None
        if not file or len(row) <= max(columns.values()):
            yield Skipped(where, "malformed_row", f"not a name and eight votes: {row[:9]}")
            continue
        listed.add(file)
        try:
            # As numbers: as texts "9" is more than "10".
            votes = {label: int(row[column]) for label, column in columns.items()}
        except ValueError:
            yield Skipped(where, "malformed_row", f"votes are not whole numbers: {row[:9]}")
            continue
        most = [label for label, count in votes.items() if count == max(votes.values())]
        if len(most) > 1:
            yield Skipped(
                where, "tied_votes", f"{file}: {' and '.join(most)} have {max(votes.values())} each"
            )
        else:
            yield RawImage(_abstract_image(root, file), most[0], None, where)
    for path in files_below(root):
        if is_image_name(path) and posixpath.basename(path) not in listed:
            yield Skipped(path, "not_in_list", f"no row of {name} names it")


def _vote_columns(header: Sequence[str], path: Path) -> dict[str, int]:
    columns = {label: i for i, name in enumerate(header) if i and (label := label_of(name, MIKELS_8))}
    if set(columns) != set(MIKELS_8):
        missing = ", ".join(label for label in MIKELS_8 if label not in columns)
        raise RecordError(f"{path}:1: no column for {missing}; give the csv of Abstract as it was released")
    return columns


def _abstract_image(root: Path, file: str) -> str:
    """Give the path of a file of the flat release, which some copies keep in a folder."""
    folder = "testImages_abstract"
    # Unlike Path's, these are False for a name that is too long.
    is_flat, is_inside = os.path.exists(root / file), os.path.exists(root / folder / file)
    return f"{folder}/{file}" if is_inside and not is_flat else file


READERS: dict[str, Callable[[Path, ReaderSettings], Rows]] = {
    "EmoSet-118K": read_emoset,
    "FI": read_fi,
    "WEBEmo": read_webemo,
    "UnbiasedEmo": read_unbiased_emo,
    "ArtPhoto": read_artphoto,
    "Abstract": read_abstract,
}
