"""Rows of data and predictions: read and validate them, give them ids, merge answers into them."""

import hashlib
import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from emocaliber.jsonl import (
    JsonlAppender,
    PathLike,
    RecordError,
    read_jsonl,
    write_jsonl_atomic,
    write_text_atomic,
)
from emocaliber.soft_truth import has_soft_truth, soft_truth
from emocaliber.taxonomy import canonical_task, match_label, normalise_label

__all__ = [
    "JsonlAppender",
    "Record",
    "RecordError",
    "iterate_records",
    "iterate_with_places",
    "merge_by_id",
    "read_jsonl",
    "read_records",
    "record_candidates",
    "record_images",
    "record_text",
    "write_jsonl_atomic",
    "write_text_atomic",
]

Record = dict[str, Any]

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


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
    return (record for _, record in iterate_with_places(*paths, need_truth=need_truth))


def iterate_with_places(*paths: PathLike, need_truth: bool = True) -> Iterator[tuple[str, Record]]:
    """Read rows as `iterate_records` does, each with its place, `FILE:LINE`, for messages about it."""
    seen: dict[str, tuple[PathLike, int]] = {}
    for path in paths:
        repeats: Counter[str] = Counter()
        for number, record in read_jsonl(path):
            where = f"{path}:{number}"
            try:
                _validate(record, need_truth=need_truth)
            except RecordError as error:
                raise RecordError(f"{where}: {error}") from None
            record["task"] = canonical_task(record["task"])
            identity = record.get("id")
            remedy = "make ids unique"
            if identity is None:
                remedy = "give each row in one file only, or give repeats ids of their own"
                identity = _content_id(record)
                repeats[identity] += 1
                if repeats[identity] > 1:
                    identity = f"{identity}-{repeats[identity]}"
            identity = str(identity)
            first = seen.get(identity)
            if first is not None:
                raise RecordError(
                    f"{where}: id {_shown.repr(identity)} is also that of {first[0]}:{first[1]}; {remedy}"
                )
            seen[identity] = (path, number)
            yield where, {**record, "id": identity}


def _validate(record: Record, *, need_truth: bool) -> None:
    identity = record.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
        raise RecordError(f"id is {_shown.repr(identity)}; make it a text or a whole number, or leave it out")
    if identity == "":
        raise RecordError("id is empty; leave it out to have one derived")
    if not isinstance(record.get("task"), str) or not record["task"].strip():
        raise RecordError("no task; give its name, such as EmoSet-8 (names of your own are allowed)")
    candidates = record_candidates(record)
    truth = record.get("ground_truth")
    if truth is None and need_truth:
        if not has_soft_truth(record):
            raise RecordError(
                "no ground_truth; give the true label, one of the candidates, or its posterior or votes"
            )
        soft_truth(record, tuple(candidates))  # it has to do as the truth
    is_known = isinstance(truth, str) and (truth in candidates or match_label(truth, candidates) is not None)
    if truth is not None and not is_known:
        raise RecordError(
            f"ground_truth {_shown.repr(truth)} is not among the candidates {_shown.repr(candidates)}; "
            "correct one of them"
        )
    record_images(record)
    if not record_text(record).strip():
        raise RecordError("conversations ask nothing; put the question in as a text item of a user message")
    if not isinstance(record.get("response", ""), str | None):
        raise RecordError(f"response is {_shown.repr(record['response'])}; make it the text of the model")


def record_candidates(record: Mapping[str, Any]) -> list[str]:
    """Give the candidate labels of a row. Raises RecordError if they are missing or not told apart."""
    if "candidates" not in record:
        raise RecordError("no candidates; give the list of labels to choose from")
    candidates = record["candidates"]
    if not isinstance(candidates, list) or not candidates:
        raise RecordError(f"candidates is {_shown.repr(candidates)}; make it a list of at least one label")
    if all(isinstance(candidate, str) for candidate in candidates) and _are_told_apart(tuple(candidates)):
        return list(candidates)
    forms: set[str] = set()
    for candidate in candidates:
        form = normalise_label(candidate) if isinstance(candidate, str) else ""
        if not form:
            raise RecordError(f"candidates hold {_shown.repr(candidate)}; make every one a word")
        if form in forms:
            raise RecordError(f"candidates hold {_shown.repr(candidate)} twice; name each label once")
        forms.add(form)
    return list(candidates)


@lru_cache(maxsize=256)
def _are_told_apart(candidates: tuple[str, ...]) -> bool:
    """Is every label a word, and no two the same; rows repeat the same few lists."""
    forms = {normalise_label(candidate) for candidate in candidates}
    return len(forms) == len(candidates) and "" not in forms


def record_images(record: Mapping[str, Any]) -> list[str]:
    """Give the image paths of a row, relative to the data root, from `images`, `image` or the messages.

    Raises RecordError if there is none.
    """
    images = record.get("images") or record.get("image")
    if not images:
        images = [item.get("image") for item in _content_items(record) if item.get("type") == "image"]
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images:
        raise RecordError("no image; give its path as `image` or as an image item of conversations")
    for image in images:
        if not isinstance(image, str) or not image.strip():
            raise RecordError(f"an image is {_shown.repr(image)}; make it a path relative to the data root")
    return images


def record_text(record: Mapping[str, Any]) -> str:
    """Give what the user messages of a row ask, without the images. Raises RecordError."""
    texts = [item.get("text") for item in _content_items(record) if item.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _content_items(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the content items of the user messages; a message that is a plain text is one text item."""
    messages = record.get("conversations")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RecordError("no conversations; give a list of chat messages with `role` and `content`")
    items: list[Mapping[str, Any]] = []
    for message in messages:
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str):
            items.append({"type": "text", "text": content})
        elif message.get("role") == "user" and isinstance(content, list):
            items.extend(item for item in content if isinstance(item, dict))
    return items


def _content_id(record: Record) -> str:
    """Give an id that depends on what is asked only: not on the answer, the truth or the place."""
    parts = [record_images(record), record["task"], record_text(record), record["candidates"]]
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
    return f"{record['task']}-{digest[:16]}"


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
        first = _shown.repr(next(iter(best)))
        raise RecordError(
            f"row {first}: an output of other data than these inputs; start a new output folder"
        )
    return merged
