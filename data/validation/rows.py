"""Everything that is wrong with one row of what this repository reads, whatever kind of row it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.mini.scene import Scene
from emocaliber.records import faults, faults_of_truth, shown
from emocaliber.response import SECTIONS, parse
from emocaliber.reward_log import rollout_of
from emocaliber.taxonomy import TASKS, canonical_task, match_label

Row = Mapping[str, Any]
Faults = Iterator[tuple[str, str]]
"""(reason, message) of each."""

_LISTED = re.compile(r"from (\[[^\[\]]*\])")
_IMAGE_MARK = "<image>"


def check_prediction(row: Row) -> Faults:
    """A record, and what the model answered or why it did not."""
    yield from faults(row)
    response, error, samples = row.get("response"), row.get("error"), row.get("samples")
    if response is None and error is None and samples is None:
        yield "not_answered", "neither response nor error"
    if error is not None and not (isinstance(error, dict) and {"type", "message"} <= error.keys()):
        yield "bad_error", f"error is {shown.repr(error)}; make it {{type, message}}, or null"
    if samples is not None and not (isinstance(samples, list) and all(isinstance(s, str) for s in samples)):
        yield "bad_samples", f"samples is {shown.repr(samples)}; make it a list of texts"


def check_chat(row: Row) -> Faults:
    """Messages that end with the assistant's answer, and as many images as the messages show."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "no_chat", "messages is not a list of chat messages"
        return
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield "no_chat", f"a message is {shown.repr(message)}; give role and content"
            return
        if not text_of(message).strip():
            yield "no_chat", f"the message of {message['role']} is empty"
            return
    if messages[-1]["role"] != "assistant":
        yield "no_chat", "the last message is not the assistant's answer"
    yield from _check_image_marks(row)


def _check_image_marks(row: Row) -> Faults:
    n_marks = sum(text_of(message).count(_IMAGE_MARK) for message in row["messages"])
    images = images_of_chat(row)
    if not images:
        yield "no_image", "images names none; give the path of the image"
    elif n_marks not in (0, len(images)):  # without a mark, ms-swift puts it in itself
        yield "bad_images", f"{n_marks} {_IMAGE_MARK} in the messages for {len(images)} images"


def check_stage1_chat(row: Row) -> Faults:
    """The grammar of answers without a confidence; the answer is the truth."""
    wrong = list(_check_answer(row))
    yield from wrong
    truth, candidates = row.get("ground_truth"), candidates_of(row)
    if not wrong and isinstance(truth, str) and candidates:
        label = parse(_answer_of(row), candidates).label
        if label != match_label(truth, candidates):
            yield "answer_not_truth", f"the answer is {label!r}, ground_truth {shown.repr(truth)}"


def check_stage2_chat(row: Row) -> Faults:
    """The grammar of answers with a confidence. The answer need not be the truth."""
    yield from _check_answer(row)
    parsed = parse(_answer_of(row), [])
    if parsed.confidence is None or "rescaled" in parsed.flags:
        reason = parsed.confidence_reason or "above 1"
        yield "confidence", f"{reason}: …{_answer_of(row)[-40:]!r}"


def _check_answer(row: Row) -> Faults:
    wrong = list(check_chat(row))
    yield from wrong
    if any(reason == "no_chat" for reason, _ in wrong):
        return
    candidates = candidates_of(row)
    parsed = parse(_answer_of(row), candidates or [])
    absent = [name for name in SECTIONS if name not in parsed.reasoning]
    if absent or "malformed_reasoning" in parsed.flags:
        yield "sections", f"without {', '.join(absent)}" if absent else "not each once, in their order"
    if parsed.label_reason == "no_answer" or {"truncated", "fallback"} & parsed.flags:
        yield "answer", f"no whole <answer>: …{_answer_of(row)[-40:]!r}"
    elif candidates is None:
        yield "candidates", "neither the row, its question nor its task says the candidates; add them"
    elif parsed.label is None:
        yield "answer", f"{parsed.label_reason}: …{_answer_of(row)[-60:]!r} of {shown.repr(candidates)}"


def check_rl_chat(row: Row) -> Faults:
    """A question, its truth and candidates, as columns that the reward gets."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        yield "no_chat", "messages is not a list of chat messages"
        return
    if not messages or messages[-1].get("role") != "user" or not text_of(messages[-1]).strip():
        yield "no_chat", "the last message is not the user's question"
    if not isinstance(row.get("task"), str):
        yield "no_task", f"task is {shown.repr(row.get('task'))}; the reward is logged by it"
    yield from faults_of_truth({name: row[name] for name in ("candidates", "ground_truth") if name in row})
    yield from _check_image_marks(row)


def check_verl_row(row: Row) -> Faults:
    """A row of Parquet, the bytes of images left out (see `data/build_rl_parquet.py` for the columns)."""
    extra, model = row.get("extra_info") or {}, row.get("reward_model") or {}
    if not isinstance(extra, dict) or not isinstance(model, dict):
        yield "columns", "extra_info or reward_model is no struct"
        return
    chat = {"messages": row.get("prompt"), "images": row.get("images"), "task": row.get("data_source")}
    named = {"candidates": extra.get("candidates"), "ground_truth": model.get("ground_truth")}
    yield from check_rl_chat(chat | {name: value for name, value in named.items() if value is not None})
    if extra.get("task") not in (None, row.get("data_source")):
        yield "columns", f"data_source {shown.repr(row.get('data_source'))}, task {shown.repr(extra['task'])}"


def check_rollout(row: Row) -> Faults:
    """A line of the reward log."""
    try:
        rollout_of(row, "")
    except RecordError as error:
        yield "not_a_rollout", str(error).removeprefix(": ").partition(";")[0]
    for name in ("response", "truth"):
        if not isinstance(row.get(name), str):
            yield "not_a_rollout", f"{name} is {shown.repr(row.get(name))}"


def check_scene(row: Row) -> Faults:
    """A line of test_scenes.jsonl."""
    if not isinstance(row.get("id"), str):
        yield "bad_id", f"id is {shown.repr(row.get('id'))}"
    try:
        Scene.from_json(row["scene"])
    except (KeyError, TypeError) as error:
        yield "not_a_scene", f"{error}; make the file by data/build_mini.py"


def candidates_of(row: Row) -> list[str] | None:
    """The labels to choose from: those of the row, else those of its question, else those of its task."""
    given = row.get("candidates")
    if isinstance(given, list) and given and all(isinstance(label, str) for label in given):
        return given
    messages = row.get("messages")
    messages = messages if isinstance(messages, list) else []
    asked = [text_of(one) for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    listed = _LISTED.findall(" ".join(asked))
    if listed:
        return _labels_in(listed[-1])
    task = TASKS.get(canonical_task(str(row.get("task"))))
    return list(task.labels) if task else None


@lru_cache(maxsize=256)
def _labels_in(listed: str) -> list[str] | None:
    """Read a list as it is written in a question; rows repeat the same few."""
    try:
        return [str(label) for label in ast.literal_eval(listed)]
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def images_of_chat(row: Row) -> list[str]:
    """The paths of `images` in the forms that ms-swift and verl take; "" for one given by its bytes."""
    images = row.get("images")
    listed = images if isinstance(images, list) else [images] if images else []
    return [
        str(image.get("path") or image.get("image") or "") if isinstance(image, dict) else str(image)
        for image in listed
    ]


def text_of(message: Row) -> str:
    """The text of a message; an image item of a content list counts as `<image>`."""
    content = message.get("content")
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    items: Sequence[Any] = [item if isinstance(item, dict) else {"text": item} for item in content]
    return "".join(_IMAGE_MARK if "image" in item else str(item.get("text") or "") for item in items)


def _answer_of(row: Row) -> str:
    messages = row.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return text_of(last) if isinstance(last, dict) else ""
