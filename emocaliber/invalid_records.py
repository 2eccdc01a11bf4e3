"""A data file whose every line becomes a row: one that is no valid record carries the reason as its error."""

from collections import Counter
from collections.abc import Callable, Container
from itertools import count
from typing import Any

from emocaliber.jsonl import PathLike, RecordError, read_jsonl_with_faults
from emocaliber.record_fields import (
    RECORD_INVALID,
    Record,
    content_id,
    record_candidates,
    record_images,
    record_text,
    validate_record,
)
from emocaliber.soft_truth import has_soft_truth, soft_truth
from emocaliber.taxonomy import canonical_task, match_label

UNREADABLE_TASK = "invalid record"
"""The task of a row whose own cannot be read."""

_DEEPEST = 100  # levels: what can just be parsed could not be written again from deeper in a program
_LONGEST_NAME = 1000  # of an id or a task that an invalid row keeps
_LONGEST_MESSAGE = 400


def read_records_keeping_invalid(path: PathLike) -> list[Record]:
    """Read a file as `read_records(path, need_truth=False)` does, but give a row for every line.

    A line that is no valid record (not JSON, wrong types, no image, an id given before, …) gives a row with
    an `error` {"type": "record_invalid", "message": where and why}, with those of its fields that are valid
    by themselves, and with its own id where it has one that no other row has, else `line-<number>`. Valid
    rows have their ids before invalid ones; of two valid rows with one id, the first.
    Raises RecordError for a file that cannot be read.
    """
    rows: dict[int, Record] = {}
    invalid: dict[int, tuple[Record, str]] = {}
    line_of_id: dict[str, int] = {}
    repeats: Counter[str] = Counter()
    for number, line in read_jsonl_with_faults(path):
        if isinstance(line, RecordError):
            invalid[number] = {}, str(line)
            continue
        try:
            row = _valid_row(line, repeats)
            first = line_of_id.setdefault(row["id"], number)
            if first != number:
                raise RecordError(f"its id is also that of line {first}; make ids unique")
            rows[number] = row
        except RecordError as error:
            invalid[number] = line, f"{path}:{number}: {error}"
    for number, (line, reason) in invalid.items():
        identity = _free_id(line, number, line_of_id)
        line_of_id[identity] = number
        rows[number] = _invalid_row(line, identity, reason)
    return [rows[number] for number in sorted(rows)]


def _valid_row(record: Record, repeats: Counter[str]) -> Record:
    if _is_too_deep(record, _DEEPEST):
        raise RecordError(f"nested more than {_DEEPEST} levels deep; flatten it")
    validate_record(record, need_truth=False)
    if has_soft_truth(record):
        soft_truth(record, tuple(record["candidates"]))
    row = {**record, "task": canonical_task(record["task"])}
    if record.get("id") is not None:
        return {**row, "id": str(record["id"])}
    identity = content_id(row)
    repeats[identity] += 1
    return {**row, "id": identity if repeats[identity] == 1 else f"{identity}-{repeats[identity]}"}


def _free_id(record: Record, number: int, taken: Container[str]) -> str:
    own = record.get("id")
    if isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    if isinstance(own, str) and own.strip() and len(own) <= _LONGEST_NAME and own not in taken:
        return own
    name = f"line-{number}"
    return next(free for n in count(1) if (free := name if n == 1 else f"{name}-{n}") not in taken)


def _invalid_row(record: Record, identity: str, reason: str) -> Record:
    reason = reason if len(reason) <= _LONGEST_MESSAGE else f"{reason[: _LONGEST_MESSAGE - 1]}…"
    task = record.get("task")
    is_readable = isinstance(task, str) and task.strip() and len(task) <= _LONGEST_NAME
    return {
        "id": identity,
        **_valid_fields(record),
        "task": canonical_task(str(task)) if is_readable else UNREADABLE_TASK,
        "error": {"type": RECORD_INVALID, "message": reason},
    }


def _valid_fields(record: Record) -> Record:
    """Give the fields that are valid by themselves, of those that say what was asked and what is true."""

    def truth(one: Record) -> None:
        if not isinstance(written := one["ground_truth"], str) or not match_label(written, candidates):
            raise RecordError("not a candidate")

    kept: Record = {}
    candidates: tuple[str, ...] = ()
    checks: dict[str, Callable[[Record], Any]] = {
        "image": record_images,
        "images": record_images,
        "conversations": record_text,
        "candidates": record_candidates,
        "ground_truth": truth,
        "posterior": lambda one: soft_truth(one, candidates),
        "votes": lambda one: soft_truth(one, candidates),
    }
    for name, check in checks.items():
        one = {name: record.get(name)}
        if one[name] is None or _is_too_deep(one, _DEEPEST):
            continue
        try:
            check(one)
        except RecordError:
            continue
        kept |= one
        if name == "candidates":
            candidates = tuple(record["candidates"])
    return kept


def _is_too_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return levels == 0 or any(_is_too_deep(one, levels - 1) for one in inside)
    return False
