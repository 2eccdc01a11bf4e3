"""Converts the files of a copy of VECBench to records, and reports on what differs on the way."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.published.as_records import (
    NOTES,
    PUBLISHED_ROWS,
    RecordMaker,
    count_differences,
    differences,
)
from data.published.layouts import Entry, read_entries
from emocaliber.image_scan import ImageMemory
from emocaliber.images import ImageFault
from emocaliber.jsonl import JsonlAppender, StagedJsonl, write_jsonl_atomic, write_text_atomic
from emocaliber.provenance import file_sha256
from emocaliber.records import Unusable, iterate_records
from emocaliber.taxonomy import task_sort_key

_SAMPLED_FOR_ADVICE = 100
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


def advise_on_missing(root: Path, missing: Sequence[str]) -> str:
    """Say which setting would find images that are missing, "" if none does."""
    found: Counter[str] = Counter()
    folders = [folder for folder in islice(root.iterdir(), 1000) if folder.is_dir()] if root.is_dir() else []
    for image in missing[:_SAMPLED_FOR_ADVICE]:
        parts = image.split("/")
        for n_dropped in range(1, len(parts)):
            if (root / "/".join(parts[n_dropped:])).is_file():
                found[f"--strip-prefix {'/'.join(parts[:n_dropped])}"] += 1
                break
        found.update(f"--image-root {folder}" for folder in folders if (folder / image).is_file())
    if found:
        return f"{found.most_common(1)[0][0]} would find images"
    archives = [path.name for path in visible_files(root) if path.name.lower().endswith(_ARCHIVES)]
    return f"unpack {', '.join(archives[:5])} and give --image-root" if archives else ""


def visible_files(root: Path, if_unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Yield the files under a folder, in order, without hidden ones and those of hidden folders."""
    for folder, names, files in os.walk(root, onerror=if_unreadable):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


DIFFERENCES = "differences.jsonl"


def _split_named(path: Path) -> str:
    """The split that a file's name says, else its folder's, else test."""
    for name in (path.stem, path.parent.name):
        words = set(re.split(r"[\W_\d]+", name.lower()))
        if words & {"train", "training", "test"}:
            return "test" if "test" in words else "train"
    return "test"


class Report:
    """Counts findings by reason; differences are also listed in OUTPUT_DIR/differences.jsonl."""

    def __init__(self, folder: Path) -> None:
        self._differences = StagedJsonl(folder / DIFFERENCES)
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self._differences.__exit__()

    def add(self, where: str, reason: str, message: str) -> None:
        """Take a finding in."""
        self.counts[reason] += 1
        self.first.setdefault(reason, f"{where}: {message}")
        if reason not in NOTES:
            self._differences.write({"where": where, "reason": reason, "message": message})

    def finish(self) -> bool:
        """Put the list into its place, or remove an old one. Gives whether anything differs."""
        listed = self._differences.path
        self._differences.finish()
        differs = any(reason not in NOTES for reason in self.counts)
        if not differs:
            listed.unlink()
        findings = [
            {"reason": reason, "count": count, "is_note": reason in NOTES, "first": self.first[reason]}
            for reason, count in self.counts.most_common()
        ]
        content = {"differs": differs, "findings": findings} | self.facts
        write_text_atomic(listed.with_name("report.json"), json.dumps(content, indent=1) + "\n")
        return differs

    def lines(self) -> Iterator[str]:
        """The findings as text, what differs first."""
        for heading, is_note in (("differs", False), ("noted", True)):
            for reason, count in self.counts.most_common():
                if (reason in NOTES) == is_note:
                    yield f"{heading}: {count} {reason}, the first at {self.first[reason]}"


class Conversion:
    """Turns rows into records, split by split, and keeps what is needed to tell repeats."""

    def __init__(self, maker: RecordMaker, splits: Mapping[str, str], report: Report, folder: Path) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.n_rows = self.n_skipped = self.n_left_out = 0
        self._maker, self._splits, self._report, self._folder = maker, splits, report, folder
        self._ids: dict[tuple[str, str], str] = {}
        self._places: dict[tuple[str, str], tuple[str, str]] = {}
        self._images: dict[str, str] = {}

    def read(
        self, files: Sequence[tuple[Path, str]], columns: Mapping[str, str], default: str | None
    ) -> None:
        """Convert the rows of all files into hidden files of OUTPUT_DIR."""
        self._clear()
        for path, layout in files:
            by_name = _split_named(path)
            entries = read_entries(path, layout, columns)
            rows = tqdm(entries, desc=path.name, unit="row", mininterval=1.0, delay=2)
            with JsonlAppender(self._hidden("test")) as test, JsonlAppender(self._hidden("train")) as train:
                for entry in rows:
                    self.n_rows += 1
                    converted = self._convert(entry, default or by_name)
                    if converted is not None:
                        split, record = converted
                        (test if split == "test" else train).write(record)

    def _convert(self, entry: Entry, default: str) -> tuple[str, dict[str, Any]] | None:
        try:
            if entry.content is None:
                raise Unusable(entry.reason, entry.message)
            written = entry.content.get("split")
            split = self._splits.get(str(written).strip().lower()) if written else default
            if split is None:
                raise Unusable("unknown_split", f"split is {written!r}; say what it means by --split")
            if split == "skip":
                self.n_skipped += 1
                return None
            record = self._maker.make(entry.content)
            self._check_id(record, split, entry.where)
        except Unusable as error:
            self.n_left_out += 1
            self._report.add(entry.where, error.reason, str(error))
            return None
        for reason, message in differences(entry.content, record):
            self._report.add(entry.where, reason, message)
        self._check_repeat(record, split, entry.where)
        self.counts.setdefault(split, Counter())[record["task"]] += 1
        return split, record

    def _check_id(self, record: Mapping[str, Any], split: str, where: str) -> None:
        identity = record.get("id")
        if identity is None:
            return
        if (split, identity) in self._ids:
            first = self._ids[split, identity]
            raise Unusable("repeated_id", f"id {identity[:80]!r} is also that of {first}")
        self._ids[split, identity] = where

    def _check_repeat(self, record: Mapping[str, Any], split: str, where: str) -> None:
        for image in [record["image"]] if "image" in record else record["images"]:
            self._images.setdefault(image, where)
            place = (record["task"], image)
            if place not in self._places:
                self._places[place] = (f"{where}, {split}", record["ground_truth"])
                continue
            first, label = self._places[place]
            reason = "repeated_row" if label == record["ground_truth"] else "conflicting_labels"
            self._report.add(where, reason, f"{image}, here in {split}, is also in {first}, as {label!r}")

    def check_images(self, kept: Path, workers: int) -> None:
        """Decode every image once, and report those that cannot be; `kept` remembers what they held."""
        forms: Counter[str] = Counter()
        missing: list[str] = []
        paths = (os.path.abspath(self._maker.image_root / image) for image in self._images)
        with ImageMemory(kept) as memory:
            looked = memory.scan(paths, len(self._images), workers=workers)
            for (image, where), (_, found) in zip(self._images.items(), looked, strict=True):
                if isinstance(found, ImageFault):
                    self._report.add(where, found.reason, found.message)
                    missing += [image] if found.reason == "image_missing" else []
                    continue
                forms.update(["usable", found["format"], found["mode"]])
                forms["EXIF-rotated"] += found["exif_rotated"]
                forms["animated"] += found["n_frames"] > 1
                if found["wrong_extension"]:
                    self._report.add(where, "wrong_extension", f"{image} is {found['format']}")
                if found.get("before", {}).get("sha256", found["sha256"]) != found["sha256"]:
                    self._report.add(where, "sum_changed", f"{image}: other bytes than at the check before")
        self._report.facts["images"] = {"checked": len(self._images)} | forms
        if missing:
            self._report.facts["advice"] = advise_on_missing(self._maker.image_root, missing)

    def finish(self) -> dict[str, Path]:
        """Write the records of each split that is there, with ids. Gives split -> file."""
        for reason, message in count_differences(self.counts or {"test": {}}):
            self._report.add("all rows", reason, message)
        written = {}
        for split in self.counts:
            written[split] = self._folder / f"{split}.jsonl"
            write_jsonl_atomic(written[split], iterate_records(self._hidden(split)))
        counts = {split: dict(found) for split, found in self.counts.items()}
        counted = {"n_rows": self.n_rows, "n_skipped": self.n_skipped, "n_left_out": self.n_left_out}
        self._report.facts |= counted | {"rows": counts}
        return written

    def table(self) -> Iterator[str]:
        """The rows per task beside the published numbers."""
        for split, found in self.counts.items():
            yield f"{split:<16}{'rows':>9}{'published':>11}"
            published = PUBLISHED_ROWS[split]
            for task in sorted({*found, *published}, key=task_sort_key):
                yield f"{task:<16}{found[task]:>9}{published.get(task, '-'):>11}"
            yield f"{'all':<16}{sum(found.values()):>9}{sum(published.values()):>11}"

    def __enter__(self) -> Conversion:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _clear(self) -> None:
        for split in PUBLISHED_ROWS:
            self._hidden(split).unlink(missing_ok=True)

    def _hidden(self, split: str) -> Path:
        return self._folder / f".{split}.jsonl.partial"


def read_manifest(path: Path) -> tuple[dict[str, str], set[str]]:
    """Give the sums of the files that an earlier run read, and the names of those it wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["sha256"]), set(content["sha256_written"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, set()


def write_manifest(
    path: Path, said: Mapping[str, Any], sums: Mapping[str, str], written: Iterable[Path]
) -> None:
    """Write what the user said, and the sums of the files that were read and written."""
    sums_written = {file.name: file_sha256(file) for file in written}
    content = {**said, "sha256": dict(sums), "sha256_written": sums_written}
    write_text_atomic(path, json.dumps(content, indent=1) + "\n")
