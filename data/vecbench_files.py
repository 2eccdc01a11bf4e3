"""What the readers of raw releases share: what they yield, files in order, labels, csv and JSON lists."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.taxonomy import match_label

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


def labelled_folders(root: Path, folder: str, labels: tuple[str, ...]) -> Rows:
    """Read FOLDER/LABEL/…/IMAGE: the folder below the given one is the label."""
    for path in files_below(root, folder):
        written, *inner = posixpath.relpath(path, folder or ".").split("/")
        label = label_of(written, labels) if inner else None
        if not is_image_name(path):
            yield Skipped(path, "other_file", "its name is not that of an image")
        elif label is None:
            yield Skipped(path, "unknown_label", f"not in a folder named as one of {', '.join(labels)}")
        else:
            yield RawImage(path, label, None, path)


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
