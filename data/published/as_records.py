"""What a published row becomes as a record, and where it differs from taxonomy and published table."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.prompts import conversation, user_prompt
from emocaliber.records import Unusable, record_candidates, record_images, record_text, shown
from emocaliber.taxonomy import (
    PUBLISHED_TEST_ROWS,
    PUBLISHED_TRAIN_ROWS,
    TASKS,
    canonical_task,
    match_label,
    normalise_label,
)

PUBLISHED_ROWS = {"test": PUBLISHED_TEST_ROWS, "train": PUBLISHED_TRAIN_ROWS}
NOTES = ("task_respelt", "label_respelt", "candidates_added", "question_differs", "wrong_extension")
"""What is counted and listed without being a difference."""

_REPLACED = frozenset(
    {"id", "image", "images", "question", "split", "conversations", "task", "ground_truth", "candidates"}
)


@dataclass(frozen=True)
class RecordMaker:
    """Turns rows into records. Images become relative to `image_root` after `strip_prefix` is taken off.

    `questions`: `published` keeps what a row asks; `with_confidence` and `without_confidence` ask as this
    repository does, as is also done where a layout has no questions.
    """

    image_root: Path
    strip_prefix: str = ""
    questions: str = "published"

    def make(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Give the record, without an id where the row has none. Raises Unusable."""
        task = content.get("task")
        if not isinstance(task, str) or not task.strip():
            raise Unusable("no_task", f"task is {shown.repr(task)}; give its name")
        task = canonical_task(task)
        candidates = _candidates_of(content, task)
        truth = content.get("ground_truth")
        if not isinstance(truth, str) or not truth.strip():
            raise Unusable("no_truth", f"ground_truth is {shown.repr(truth)}; give one label")
        label = match_label(truth, candidates)
        if label is None:
            raise Unusable("truth_not_a_candidate", f"{shown.repr(truth)} is not among {candidates}")
        try:
            written = record_images({"conversations": [], **content})
        except RecordError as error:
            raise Unusable("no_image", str(error)) from None
        images = [self._relative(path) for path in written]
        asked = self._conversations(content, images, candidates)
        named = {"image": images[0]} if len(images) == 1 else {"images": images}
        fields = {"conversations": asked, "task": task, "ground_truth": label, "candidates": candidates}
        others = {name: value for name, value in content.items() if name not in _REPLACED}
        return {**_identity(content), **named, **fields, **others}

    def _relative(self, written: str) -> str:
        path = PurePosixPath(written)
        roots = [self.strip_prefix] if self.strip_prefix else []
        if path.is_absolute() and not roots:
            roots = [str(self.image_root), str(self.image_root.resolve())]
        if roots:
            under = [root for root in roots if path.is_relative_to(root)]
            if not under:
                raise Unusable(
                    "image_outside_root",
                    f"{shown.repr(written)} is not under {roots[0]}; set --image-root or --strip-prefix",
                )
            path = path.relative_to(under[0])
        normal = posixpath.normpath(str(path))
        if normal in (".", "..") or normal.startswith("../") or "\0" in normal:
            raise Unusable("image_outside_root", f"{shown.repr(written)} is not under the image root")
        return normal

    def _conversations(
        self, content: Mapping[str, Any], images: Sequence[str], candidates: Sequence[str]
    ) -> list[dict[str, Any]]:
        published: Any = copy.deepcopy(content.get("conversations"))
        if isinstance(content.get("question"), str):
            text = content["question"].replace("<image>", "").strip()
            items = [{"type": "image", "image": image} for image in images]
            published = [{"role": "user", "content": [*items, {"type": "text", "text": text}]}]
        has_questions = "conversations" in content or "question" in content
        if self.questions != "published" or not has_questions:
            if len(images) > 1:
                raise Unusable("several_images", "our question is about one image; take the published one")
            with_confidence = self.questions != "without_confidence"
            return conversation(images[0], candidates, with_confidence=with_confidence)
        try:
            text = record_text({"conversations": published}).strip()
        except RecordError as error:
            raise Unusable("no_question", str(error)) from None
        if not text:
            raise Unusable("no_question", "asks nothing; put the question in, or take another of --questions")
        _name_images(published, images)
        return list(published)


def _candidates_of(content: Mapping[str, Any], task: str) -> list[str]:
    if content.get("candidates") is None:
        if task not in TASKS:
            raise Unusable("no_candidates", f"no candidates, and task {shown.repr(task)} is not of the nine")
        return list(TASKS[task].labels)
    try:
        return record_candidates(content)
    except RecordError as error:
        raise Unusable("no_candidates", str(error)) from None


def _identity(content: Mapping[str, Any]) -> dict[str, str]:
    identity = content.get("id")
    if identity is None:
        return {}
    if identity == "" or isinstance(identity, bool) or not isinstance(identity, str | int):
        raise Unusable("bad_id", f"id is {shown.repr(identity)}; make it a text or a whole number")
    return {"id": str(identity)}


def _name_images(messages: Sequence[Mapping[str, Any]], images: Sequence[str]) -> None:
    """Put the paths into the image items, in their order."""
    contents = [message.get("content") for message in messages if message.get("role") == "user"]
    items = [item for content in contents if isinstance(content, list) for item in content]
    images_shown = [item for item in items if isinstance(item, dict) and item.get("type") == "image"]
    for item, image in zip(images_shown, images, strict=False):
        item["image"] = image


def differences(content: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (reason, message) of everything in a row that the taxonomy has otherwise, notes included."""
    task, candidates, label = record["task"], record["candidates"], record["ground_truth"]
    known = TASKS.get(task)
    if known is None:
        yield "unknown_task", f"task {shown.repr(task)} is not one of {', '.join(TASKS)}"
    else:
        absent = [name for name in known.labels if match_label(name, candidates) is None]
        more = [name for name in candidates if match_label(name, known.labels) is None]
        if absent or more:
            yield "candidates_differ", f"{task} without {absent}, with {more}"
        if match_label(label, known.labels) is None:
            yield "label_not_in_taxonomy", f"{task} has no label {shown.repr(label)}"
    if content.get("candidates") is None:
        yield "candidates_added", f"no candidates are given; those of {task} were put in"
    if content["task"] != task:
        yield "task_respelt", f"{shown.repr(content['task'])} is {task}"
    if content["ground_truth"] != label:
        yield "label_respelt", f"{shown.repr(content['ground_truth'])} is {label!r}"
    if normalise_label(record_text(record)) not in _our_questions(tuple(candidates)):
        yield "question_differs", "the question is not worded as this repository words it"


@lru_cache(maxsize=256)
def _our_questions(candidates: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(normalise_label(user_prompt(candidates, with_confidence=c)) for c in (True, False))


def count_differences(counts: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    """Yield (reason, message) of each task with another number of rows than published.

    counts: split that is there -> task -> rows.
    """
    for split, found in counts.items():
        published = PUBLISHED_ROWS[split]
        for task in TASKS:
            if found.get(task, 0) != published.get(task, 0):
                what = f"{found.get(task, 0)} rows, {published.get(task, 0)} published"
                yield "task_count", f"{task}, {split}: {what}"
