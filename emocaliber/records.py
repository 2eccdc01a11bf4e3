"""Rows of data and predictions: read and validate them, give them ids, merge answers into them."""

from collections import Counter
from collections.abc import Iterable, Iterator

from emocaliber.invalid_records import read_records_keeping_invalid
from emocaliber.jsonl import (
    JsonlAppender,
    PathLike,
    RecordError,
    read_jsonl,
    write_jsonl_atomic,
    write_text_atomic,
)
from emocaliber.record_fields import (
    RECORD_INVALID,
    Record,
    content_id,
    is_invalid_record,
    record_candidates,
    record_images,
    record_text,
    shown,
    validate_record,
)
from emocaliber.taxonomy import canonical_task

__all__ = [
    "RECORD_INVALID",
    "JsonlAppender",
    "Record",
    "RecordError",
    "is_invalid_record",
    "iterate_records",
    "iterate_with_places",
    "merge_by_id",
    "read_jsonl",
    "read_records",
    "read_records_keeping_invalid",
    "record_candidates",
    "record_images",
    "record_text",
    "write_jsonl_atomic",
    "write_text_atomic",
]


def read_records(*paths: PathLike, need_truth: bool = True) -> list[Record]:
    """Read all rows of files, see `iterate_records`."""
    return list(iterate_records(*paths, need_truth=need_truth))


def iterate_records(*paths: PathLike, need_truth: bool = True) -> Iterator[Record]:
    """Read and validate rows one by one; each has its own fields, an `id`, and the task's table name.

    A row without an `id` gets one from its content, so that a test file and the predictions made from it
    agree. Such a row may be repeated within a file, not in another file: the two would hold the same
    predictions. `need_truth=False` accepts rows without `ground_truth`; otherwise a row may lack it only
    where `posterior` or `votes` are in its place. Raises RecordError.
    """
    return (record for _, record in iterate_with_places(*paths, need_truth=need_truth, allow_invalid=False))


def iterate_with_places(
    *paths: PathLike, need_truth: bool = True, allow_invalid: bool = True
) -> Iterator[tuple[str, Record]]:
    """Read rows as `iterate_records` does, each with its place, `FILE:LINE`, for messages about it.

    `allow_invalid`: a row that says of itself that it is no valid record (`is_invalid_record`) is given as
    it is: predictions hold such rows, and have to count them.
    """
    seen: dict[str, tuple[PathLike, int]] = {}
    for path in paths:
        repeats: Counter[str] = Counter()
        for number, record in read_jsonl(path):
            where = f"{path}:{number}"
            try:
                if not (allow_invalid and is_invalid_record(record)):
                    validate_record(record, need_truth=need_truth)
            except RecordError as error:
                raise RecordError(f"{where}: {error}") from None
            record["task"] = canonical_task(record["task"])
            identity = record.get("id")
            remedy = "make ids unique"
            if identity is None:
                remedy = "give each row in one file only, or give repeats ids of their own"
                identity = content_id(record)
                repeats[identity] += 1
                if repeats[identity] > 1:
                    identity = f"{identity}-{repeats[identity]}"
            identity = str(identity)
            first = seen.get(identity)
            if first is not None:
                raise RecordError(
                    f"{where}: id {shown.repr(identity)} is also that of {first[0]}:{first[1]}; {remedy}"
                )
            seen[identity] = (path, number)
            yield where, {**record, "id": identity}


def merge_by_id(inputs: Iterable[Record], outputs: Iterable[Record]) -> list[Record]:
    """Put outputs onto the inputs of the same id, in the order of the inputs, each exactly once.

    An input without an output comes back without `response` and `error`. Of several outputs of one row
    a response goes before an error, then the last one counts. Raises RecordError for an output without an
    input.
    """
    best: dict[str, Record] = {}
    for output in outputs:
        known = best.get(output["id"])
        if known is None or output.get("error") is None or known.get("error") is not None:
            best[output["id"]] = output
    merged = []
    for record in inputs:
        asked = {name: value for name, value in record.items() if name not in ("response", "error")}
        merged.append({**asked, **best.pop(record["id"], {})})
    if best:
        first = shown.repr(next(iter(best)))
        raise RecordError(
            f"row {first}: an output of other data than these inputs; start a new output folder"
        )
    return merged
