"""The rows of a fine-tuning file, each with the reason why it cannot be trained on, if there is one.

A row is JSON with `messages` and `images` as ms-swift reads them. What ms-swift adds by itself (a missing
`<image>`) and what it fetches (addresses) is left to it.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from emocaliber.jsonl import RecordError
from emocaliber.response import SECTIONS, parse
from emocaliber.taxonomy import TASKS, canonical_task

GRAMMAR_STAGES = ("1", "2")
"""The stages whose answers follow the response grammar; in stage 2 they also state a confidence."""

_LISTED = re.compile(r"from (\[[^\[\]]*\])")


@dataclass
class Row:
    """One line of the file; `reason` is "" for a row to train on, else `detail` says more about it."""

    number: int
    line: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    reason: str = ""
    detail: str = ""

    def reject(self, reason: str, detail: str = "") -> None:
        """Keep the first reason."""
        if not self.reason:
            self.reason, self.detail = reason, detail


def read_rows(path: Path, stage: str) -> Iterator[Row]:
    """Yield every line that is not blank as a checked row. Raises RecordError for an unreadable file."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield check_line(Row(number, line), stage)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); give a file of JSON lines") from None


def check_line(row: Row, stage: str) -> Row:
    """Fill in the row's messages and images, and the reason against it."""
    try:
        value = json.loads(row.line)
        row.line.encode("utf-8")
    except (ValueError, RecursionError) as error:
        row.reject("not_json", str(error))
        return row
    messages = value.get("messages") if isinstance(value, dict) else None
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) and message.get("content") for message in messages)
        or messages[-1].get("role") != "assistant"
    ):
        row.reject("no_chat", "no `messages` that end with the assistant's answer")
        return row
    row.messages, row.images = messages, image_paths(value.get("images"))
    marks = sum(text_of(message).count("<image>") for message in messages)
    if marks > len(row.images):
        row.reject("images_unnamed", f"{marks} <image> in the messages for {len(row.images)} images")
    elif stage in GRAMMAR_STAGES:
        check_answer(row, value, stage)
    return row


def check_answer(row: Row, value: dict[str, Any], stage: str) -> None:
    """The assistant's answer: all tags of the grammar, a label of the candidates, in stage 2 a confidence."""
    candidates = candidates_of(value, row.messages)
    answer = text_of(row.messages[-1])
    parsed = parse(answer, candidates or [])
    absent = [name for name in SECTIONS if name not in parsed.reasoning]
    if absent:
        row.reject("sections_missing", f"no filled {', '.join(absent)} in <think>")
    elif "malformed_reasoning" in parsed.flags:
        row.reject("sections_malformed", "not the five sections, each once and in order, in one <think>")
    elif "truncated" in parsed.flags:
        row.reject("answer_cut_off", answer[-40:])
    elif "fallback" in parsed.flags or parsed.label_reason == "no_answer":
        row.reject("no_answer", "no filled <answer>")
    elif candidates and parsed.label is None:
        row.reject(
            f"answer_{parsed.label_reason}", f"{answer.rpartition('<answer>')[2][:60]} of {candidates}"
        )
    elif stage == "2" and (parsed.confidence is None or "rescaled" in parsed.flags):
        row.reject(f"confidence_{parsed.confidence_reason or 'out_of_range'}", answer[-60:])


def candidates_of(value: dict[str, Any], messages: list[dict[str, Any]]) -> list[str] | None:
    """The labels to choose from: `candidates` of the row, the list in the question, or those of its task."""
    given = value.get("candidates")
    if isinstance(given, list) and given and all(isinstance(label, str) for label in given):
        return given
    asked = " ".join(text_of(message) for message in messages if message.get("role") == "user")
    listed = _LISTED.findall(asked)
    if listed:
        try:
            labels = ast.literal_eval(listed[-1])
        except (ValueError, SyntaxError):
            labels = [label.strip() for label in listed[-1].strip("[]").split(",")]
        return [str(label) for label in labels]
    task = TASKS.get(canonical_task(str(value.get("task"))))
    return list(task.labels) if task else None


def text_of(message: dict[str, Any]) -> str:
    """The text of a message; an image item of a content list counts as `<image>`."""
    content = message.get("content")
    if not isinstance(content, list):
        return str(content)
    items = [item if isinstance(item, dict) else {"text": item} for item in content]
    return "".join("<image>" if "image" in item else str(item.get("text", "")) for item in items)


def image_paths(images: Any) -> list[str]:
    """The paths of `images` in any form that ms-swift takes; an empty one for one given by its bytes."""
    listed = images if isinstance(images, list) else [images] if images else []
    return [str(image.get("path") or "") if isinstance(image, dict) else str(image) for image in listed]


Size = tuple[int, int]
"""Width and height in pixels."""


def check_images(rows: Sequence[Row], root: Path, max_decoded: int) -> dict[str, Size]:
    """Reject rows whose images are missing or unreadable, and give (width, height) of every readable path.

    The header of every image is read; at most `max_decoded` of them, evenly spread over the file, are also
    decoded to the last pixel, which is what finds a file that was cut off.
    """
    paths = sorted({path for row in rows for path in row.images if path and "://" not in path})
    step = max(1, -(-len(paths) // max_decoded)) if max_decoded else len(paths) + 1
    decoded = {path for position, path in enumerate(paths, start=1) if position % step == 0}
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        measured = pool.map(lambda path: measure(root / path, path in decoded), paths)
        outcomes = dict(zip(paths, measured, strict=True))
    for row in rows:
        for path in row.images:
            fault = outcomes.get(path)
            if isinstance(fault, str):
                reason = "image_missing" if fault == "no such file" else "image_unreadable"
                row.reject(reason, f"{path}: {fault}")
    return {path: outcome for path, outcome in outcomes.items() if not isinstance(outcome, str)}


def measure(path: Path, decode: bool) -> Size | str:
    """The size of an image in pixels, or what is wrong with it."""
    if not path.is_file():
        return "no such file"
    try:
        with Image.open(path) as image:
            if decode:
                image.convert("RGB")
            return image.width, image.height
    # Pillow's decoders raise whatever they come upon (ValueError, SyntaxError, struct.error, …).
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(path), path.name)
