"""Checks one file row by row: what is wrong with each row, repeated ids, and images that do not decode."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from file_kinds import CHECKS, FAMILIES, KINDS, REMEDIES, family_of, find_kind, read_rows
from row_checks import Row, images_of_chat
from vecbench_records import NOTES, RecordMaker, Unusable, differences

from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import JsonlAppender, RecordError
from emocaliber.records import record_candidates, record_images
from emocaliber.response import parse
from emocaliber.scoring import response_of
from emocaliber.taxonomy import canonical_task, task_sort_key

PUBLISHED_LAYOUTS = ("std_json", "metadata_csv")
IDENTIFIED = ("records", "predictions", "rl_chats", "verl_parquet", "scenes")
"""The kinds whose rows are told apart by their ids."""


class Findings:
    """The faults of one file by their reason: all counted, the first ones kept, all listed if asked for."""

    def __init__(self, path: Path, kind: str, n_kept: int, listing: JsonlAppender | None) -> None:
        self.path, self.kind = path, kind
        self.n_rows = 0
        self.counts: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()
        self._n_kept, self._listing = n_kept, listing
        self._kept: dict[str, list[str]] = defaultdict(list)

    def add(self, where: str, reason: str, message: str) -> None:
        """Take a fault in."""
        self.counts[reason] += 1
        if len(self._kept[reason]) < self._n_kept:
            self._kept[reason].append(f"    {where}: {message}")
        if self._listing is not None:
            self._listing.write({"where": where, "reason": reason, "message": message})

    def lines(self) -> Iterator[str]:
        """What the file is, what was counted in it, and the faults with what to do."""
        yield f"{self.path}: {KINDS[self.kind]}; {self.n_rows} rows"
        tasks = sorted(self.tasks.items(), key=lambda one: task_sort_key(one[0]))
        for counted in (tasks, [(name, count) for name, count in self.facts.items() if count]):
            if counted:
                yield "  " + ", ".join(f"{name} {count}" for name, count in counted)
        for reason, count in self.counts.most_common():
            remedy = REMEDIES.get(reason)
            yield f"  {count} {reason}{f': {remedy}' if remedy else ''}"
            yield from self._kept[reason]
            if self._n_kept < count:
                yield f"    … and {count - self._n_kept} more; --show or --report lists them"
        yield "  nothing is wrong" if not self.counts else f"  {self.counts.total()} faults"


def check_file(path: Path, args: argparse.Namespace, listing: JsonlAppender | None) -> Findings:
    """Check one file. Raises RecordError for one that cannot be read or is of no known kind."""
    from tqdm import tqdm

    kind = args.kind or find_kind(path, args.columns)
    found = Findings(path, kind, max(args.show, 0), listing)
    check = RowCheck(found, args.image_root or path.parent, args.check_images)
    # No bar for what is done at once.
    rows = tqdm(read_rows(path, kind, args.columns), desc=path.name, unit="row", mininterval=1.0, delay=2)
    for entry in rows:
        found.n_rows += 1
        if entry.content is None:
            found.add(entry.where, entry.reason, entry.message)
        else:
            check.check(entry.where, entry.content)
    return found


class RowCheck:
    """Takes the rows of one file in turn, and remembers of them what tells repeats."""

    def __init__(self, found: Findings, root: Path, check_images: bool) -> None:
        self._found, self._root, self._decodes = found, root, check_images
        # By hash, so that long ids cost no more than short ones.
        self._first: dict[int, str] = {}
        self._images: dict[str, tuple[str, str] | None] = {}
        self._maker = RecordMaker(root)

    def check(self, where: str, row: dict[str, Any]) -> None:
        """Find what is wrong with a row."""
        kind = self._found.kind
        if kind in PUBLISHED_LAYOUTS:
            self._check_published(where, row)
            return
        family = family_of(row)
        if family and family != FAMILIES[kind]:
            self._found.add(where, "other_kind", f"{family}, not {FAMILIES[kind]} as the file's other rows")
            return
        for reason, message in CHECKS[kind](row):
            self._found.add(where, reason, message)
        if kind in IDENTIFIED:
            extra = row.get("extra_info")
            self._check_id(where, row.get("id") or (extra.get("id") if isinstance(extra, dict) else None))
        self._count(row)
        if self._decodes:
            self._check_images(where, row)

    def _check_published(self, where: str, row: Row) -> None:
        try:
            record = self._maker.make(row)
        except Unusable as error:
            self._found.add(where, error.reason, str(error))
            return
        for reason, message in differences(row, record):
            if reason in NOTES:
                self._found.facts[reason] += 1
            else:
                self._found.add(where, reason, message)
        self._check_id(where, record.get("id"))
        self._found.tasks[record["task"]] += 1
        if self._decodes:
            for image in record_images(record):
                self._check_image(where, image)

    def _check_id(self, where: str, identity: Any) -> None:
        if identity is None:
            return
        key = hash(str(identity))
        if key in self._first:
            self._found.add(
                where, "repeated_id", f"id {str(identity)[:80]!r} is also that of {self._first[key]}"
            )
        else:
            self._first[key] = where.rpartition("/")[2]

    def _count(self, row: Row) -> None:
        task = row.get("task", row.get("data_source"))
        if isinstance(task, str):
            self._found.tasks[canonical_task(task)] += 1
        self._found.facts["with a chain of reasoning"] += "reasoning" in row
        if self._found.kind != "predictions":
            return
        response = response_of(row)
        if response is None:
            self._found.facts["failed or not answered"] += 1
            return
        try:
            parsed = parse(response, record_candidates(row))
        except RecordError:
            return
        self._found.facts["answered" if parsed.label else f"unparsed ({parsed.label_reason})"] += 1
        self._found.facts["with a confidence"] += parsed.confidence is not None

    def _check_images(self, where: str, row: Row) -> None:
        if self._found.kind in ("records", "predictions"):
            try:
                images = record_images(row)
            except RecordError:
                return  # said by the check of the row
        else:
            images = images_of_chat(row)
        given = row.get("images")
        for number, image in enumerate(images):
            if image:
                self._check_image(where, image)
            elif isinstance(given, list) and isinstance(given[number], dict) and given[number].get("bytes"):
                with tempfile.NamedTemporaryFile() as file:
                    file.write(given[number]["bytes"])
                    file.flush()
                    self._report_image(where, self._fault(Path(file.name), f"image {number + 1} of the row"))

    def _check_image(self, where: str, image: str) -> None:
        if image not in self._images:
            self._images[image] = self._fault(self._root / image, image)
        self._report_image(where, self._images[image])

    def _fault(self, path: Path, name: str) -> tuple[str, str] | None:
        try:
            inspect_image(path)
        except ImageFault as fault:
            return fault.reason, f"{name}: {fault.message}"
        return None

    def _report_image(self, where: str, fault: tuple[str, str] | None) -> None:
        self._found.facts["images decoded"] += fault is None
        if fault is not None:
            self._found.add(where, *fault)
