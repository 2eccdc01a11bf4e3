"""The kinds of file that this repository reads: what tells them apart, their rules, and what to do."""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.published.as_records import NOTES, RecordMaker, differences
from data.published.layouts import Entry, read_entries, read_lines, recognise
from data.validation import rows as row_checks
from data.validation.rows import Faults, Row, images_of_chat, text_of
from emocaliber.images import ImageFault, inspect_image
from emocaliber.jsonl import JsonlAppender, RecordError
from emocaliber.records import Unusable, faults, record_candidates, record_images
from emocaliber.response import SECTIONS, parse
from emocaliber.scoring import response_of
from emocaliber.taxonomy import canonical_task, task_sort_key

KINDS = {
    "records": "records, questions for inference",
    "predictions": "predictions, records with what the model answered",
    "captions": "chats for ms-swift without the grammar of answers, such as captions",
    "stage1_chats": "chats for ms-swift, stage 1: answers without a confidence",
    "stage2_chats": "chats for ms-swift, stage 2: answers with a confidence",
    "rl_chats": "chats for ms-swift's GRPO: a question, the truth and the candidates",
    "verl_parquet": "Parquet for verl's GRPO",
    "reward_log": "the reward log of a stage-3 run",
    "scenes": "what the pictures of VECBench-mini show",
    "left_out": "a list of rows that were left out, each with its reason",
    "std_json": "VECBench as {id: {image_path, prompt, ground_truth, other_info}}",
    "metadata_csv": "VECBench as a table with image_path, task, label, split",
}
REMEDIES = {
    "not_json": "write one JSON object a line, in UTF-8",
    "not_an_object": "write one JSON object a line",
    "other_kind": "keep rows of one kind in a file",
    "repeated_id": "make ids unique",
    "not_answered": "run the same inference command again: it goes on where it stopped",
    "bad_images": "name one image for each <image> of the messages",
    "sections": f"fill {', '.join(SECTIONS)}, in that order, in one <think>",
    "answer": "end with <answer>label</answer>, a label of the candidates",
    "answer_not_truth": "a stage-1 chain concludes with the row's ground_truth: correct one of them",
    "confidence": "end with <confidence>0.85</confidence>, a number from 0 to 1",
    "not_a_rollout": "give the rewards.jsonl of a stage-3 run as it was written",
    "wrong_columns": "give every row as many fields as the header",
    "columns": "make the file by data/build_rl_parquet.py",
    "image_missing": "set --image-root to what image paths are relative to",
}
_MARKS = {"conversations": "a record", "messages": "a chat", "scene": "a scene", "truth": "a rollout"}
FAMILIES = {
    **dict.fromkeys(("records", "predictions"), "a record"),
    **dict.fromkeys(("captions", "stage1_chats", "stage2_chats", "rl_chats"), "a chat"),
    **{"scenes": "a scene", "reward_log": "a rollout", "left_out": "a row left out"},
    "verl_parquet": "a row of verl",
}
"""What rows of one file have in common, whatever else is wrong with them."""


def kind_of(row: Row) -> str | None:
    """The kind that a row of JSON lines looks like, None for none."""
    if "conversations" in row:
        has_answer = any(row.get(name) is not None for name in ("response", "error", "samples"))
        return "predictions" if has_answer else "records"
    if {"response", "truth", "score"} <= row.keys():
        return "reward_log"
    if {"where", "reason"} <= row.keys():
        return "left_out"
    if "scene" in row:
        return "scenes"
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    if messages[-1].get("role") != "assistant":
        return "rl_chats"
    answer = text_of(messages[-1])
    if "<answer>" not in answer and "<think>" not in answer:
        return "captions"
    return "stage2_chats" if "<confidence>" in answer else "stage1_chats"


def family_of(row: Row) -> str:
    """The family that a row looks like, "" for none."""
    return next((family for name, family in _MARKS.items() if name in row), "")


def kind_of_file(rows: Iterable[Row]) -> str | None:
    """The kind of most rows; a file with one answered record holds predictions."""
    counts = Counter(kind for kind in map(kind_of, rows) if kind is not None)
    if counts["predictions"]:
        counts["predictions"] += counts.pop("records", 0)
    return counts.most_common(1)[0][0] if counts else None


CHECKS: dict[str, Callable[[Row], Faults]] = {
    "records": faults,
    "predictions": row_checks.check_prediction,
    "captions": row_checks.check_chat,
    "stage1_chats": row_checks.check_stage1_chat,
    "stage2_chats": row_checks.check_stage2_chat,
    "rl_chats": row_checks.check_rl_chat,
    "verl_parquet": row_checks.check_verl_row,
    "reward_log": row_checks.check_rollout,
    "scenes": row_checks.check_scene,
    "left_out": lambda row: iter(()),
}

_LOOKED_AT = 100

# A run without a failure leaves these empty.
_LEFT_OUT = ("rejected", "noted", "leaks", "duplicates", "left_out", "unreadable", "differences")
_EMPTY = {"error.jsonl": "predictions"} | {f"{name}.jsonl": "left_out" for name in _LEFT_OUT}
_PARQUET_COLUMNS = ("data_source", "prompt", "images", "reward_model", "extra_info")
_ROWS_AT_ONCE = 16  # with their pictures


def find_kind(path: Path, columns: Mapping[str, str]) -> str:
    """Tell the kind of a file by its content. Raises RecordError where it is of none, or unreadable."""
    if _is_parquet(path):
        return "verl_parquet"
    layout, why = recognise(path, columns)
    if layout in PUBLISHED_LAYOUTS:
        return layout
    if why == "empty" and path.name in _EMPTY:
        return _EMPTY[path.name]
    rows = [entry.content for entry in islice(read_lines(path), _LOOKED_AT) if entry.content is not None]
    kind = kind_of_file(rows)
    if kind is None:
        seen = f"its first row has {', '.join(list(rows[0])[:8])}" if rows else why
        raise RecordError(
            f"{path}: of no kind that this repository reads ({seen}); see --help, or say --kind"
        )
    return kind


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); give a readable file") from None


def _read_parquet(path: Path) -> Iterator[Entry]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            absent = [name for name in _PARQUET_COLUMNS if name not in file.schema_arrow.names]
            if absent:
                raise RecordError(f"{path}: no column {absent[0]!r}; make it by data/build_rl_parquet.py")
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_PARQUET_COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield Entry(f"{path}: row {number}", row)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(f"{path}: not whole Parquet after row {number} ({reason}); make it anew") from None


PUBLISHED_LAYOUTS = ("std_json", "metadata_csv")
IDENTIFIED = ("records", "predictions", "rl_chats", "verl_parquet", "scenes")
"""The kinds whose rows are told apart by their ids."""


class FileCheck:
    """Takes the rows of one file in turn, and counts what is in them and what is wrong with them.

    Faults are counted by their reason, the first ones kept, all listed if asked for. Of the rows it remembers
    what tells repeats.
    """

    def __init__(self, path: Path, args: argparse.Namespace, listing: JsonlAppender | None) -> None:
        """Raises RecordError for a file that cannot be read or is of no known kind."""
        self.path, self.kind = path, args.kind or find_kind(path, args.columns)
        self.n_rows = 0
        self.counts: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.facts: Counter[str] = Counter()
        self._n_kept, self._listing = max(args.show, 0), listing
        self._kept: dict[str, list[str]] = defaultdict(list)
        self._root, self._decodes = args.image_root or path.parent, args.check_images
        # By hash, so that long ids cost no more than short ones.
        self._first: dict[int, str] = {}
        self._images: dict[str, tuple[str, str] | None] = {}
        self._maker = RecordMaker(self._root)

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

    def check(self, where: str, row: dict[str, Any]) -> None:
        """Find what is wrong with a row."""
        kind = self.kind
        if kind in PUBLISHED_LAYOUTS:
            self._check_published(where, row)
            return
        family = family_of(row)
        if family and family != FAMILIES[kind]:
            self.add(where, "other_kind", f"{family}, not {FAMILIES[kind]} as the file's other rows")
            return
        for reason, message in CHECKS[kind](row):
            self.add(where, reason, message)
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
            self.add(where, error.reason, str(error))
            return
        for reason, message in differences(row, record):
            if reason in NOTES:
                self.facts[reason] += 1
            else:
                self.add(where, reason, message)
        self._check_id(where, record.get("id"))
        self.tasks[record["task"]] += 1
        if self._decodes:
            for image in record_images(record):
                self._check_image(where, image)

    def _check_id(self, where: str, identity: Any) -> None:
        if identity is None:
            return
        key = hash(str(identity))
        if key in self._first:
            self.add(where, "repeated_id", f"id {str(identity)[:80]!r} is also that of {self._first[key]}")
        else:
            self._first[key] = where.rpartition("/")[2]

    def _count(self, row: Row) -> None:
        task = row.get("task", row.get("data_source"))
        if isinstance(task, str):
            self.tasks[canonical_task(task)] += 1
        self.facts["with a chain of reasoning"] += "reasoning" in row
        if self.kind != "predictions":
            return
        response = response_of(row)
        if response is None:
            self.facts["failed or not answered"] += 1
            return
        try:
            parsed = parse(response, record_candidates(row))
        except RecordError:
            return
        self.facts["answered" if parsed.label else f"unparsed ({parsed.label_reason})"] += 1
        self.facts["with a confidence"] += parsed.confidence is not None

    def _check_images(self, where: str, row: Row) -> None:
        if self.kind in ("records", "predictions"):
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
        self.facts["images decoded"] += fault is None
        if fault is not None:
            self.add(where, *fault)


def check_file(path: Path, args: argparse.Namespace, listing: JsonlAppender | None) -> FileCheck:
    """Check one file. Raises RecordError for one that cannot be read or is of no known kind."""
    found = FileCheck(path, args, listing)
    is_parquet = found.kind == "verl_parquet"
    entries = _read_parquet(path) if is_parquet else read_entries(path, found.kind, args.columns)
    # No bar for what is done at once.
    for entry in tqdm(entries, desc=path.name, unit="row", mininterval=1.0, delay=2):
        found.n_rows += 1
        if entry.content is None:
            found.add(entry.where, entry.reason, entry.message)
        else:
            found.check(entry.where, entry.content)
    return found
