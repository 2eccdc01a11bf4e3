"""What one record holds, and whether it is a valid one."""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.soft_truth import has_soft_truth, soft_truth
from emocaliber.taxonomy import match_label, normalise_label

Record = dict[str, Any]

RECORD_INVALID = "record_invalid"
"""The error type of a row that stands for a line of the data that is no valid record."""

shown = reprlib.Repr()
"""Shows a value of any size on one short line."""
shown.maxstring = shown.maxother = 80


def is_invalid_record(record: Mapping[str, Any]) -> bool:
    """Does a row stand for a line that is no valid record: an error of that type, an id, a task, no more?"""
    error = record.get("error")
    return (
        isinstance(error, dict)
        and error.get("type") == RECORD_INVALID
        and all(isinstance(record.get(name), str) and record[name].strip() for name in ("id", "task"))
    )


def validate_record(record: Mapping[str, Any], *, need_truth: bool) -> None:
    """Raise RecordError if a row is not a valid record; see `emocaliber.records.iterate_records`."""
    identity = record.get("id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, str | int)):
        raise RecordError(f"id is {shown.repr(identity)}; make it a text or a whole number, or leave it out")
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
            f"ground_truth {shown.repr(truth)} is not among the candidates {shown.repr(candidates)}; "
            "correct one of them"
        )
    record_images(record)
    if not record_text(record).strip():
        raise RecordError("conversations ask nothing; put the question in as a text item of a user message")
    if not isinstance(record.get("response", ""), str | None):
        raise RecordError(f"response is {shown.repr(record['response'])}; make it the text of the model")


def record_candidates(record: Mapping[str, Any]) -> list[str]:
    """Give the candidate labels of a row. Raises RecordError if they are missing or not told apart."""
    if "candidates" not in record:
        raise RecordError("no candidates; give the list of labels to choose from")
    candidates = record["candidates"]
    if not isinstance(candidates, list) or not candidates:
        raise RecordError(f"candidates is {shown.repr(candidates)}; make it a list of at least one label")
    if all(isinstance(candidate, str) for candidate in candidates) and _are_told_apart(tuple(candidates)):
        return list(candidates)
    forms: set[str] = set()
    for candidate in candidates:
        form = normalise_label(candidate) if isinstance(candidate, str) else ""
        if not form:
            raise RecordError(f"candidates hold {shown.repr(candidate)}; make every one a word")
        if form in forms:
            raise RecordError(f"candidates hold {shown.repr(candidate)} twice; name each label once")
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
            raise RecordError(f"an image is {shown.repr(image)}; make it a path relative to the data root")
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


def content_id(record: Mapping[str, Any]) -> str:
    """Give an id that depends on what is asked only: not on the answer, the truth or the place."""
    parts = [record_images(record), record["task"], record_text(record), record["candidates"]]
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()
    return f"{record['task']}-{digest[:16]}"
