"""Asks a teacher behind an OpenAI-compatible server, many rows at a time, and keeps every answer on disk."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.vec_cot.rows import Row
from emocaliber.chat_server import ChatClient, ChatServer, Completion, Failure, ServerUnusable
from emocaliber.images import ImageFault, inspect_image, open_rgb
from emocaliber.jsonl import JsonlAppender, RecordError, read_jsonl
from emocaliber.prompts import SYSTEM_PROMPT, user_prompt
from emocaliber.response import SECTIONS

STUDENT, OWN = "student", "own"
PLACES = ("{task}", "{candidates}", "{label}", "{format}")
SENT_AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}

_PARTS = {
    "element": "objects, colours, light and composition that carry emotion",
    "human": "people, their faces, postures and gestures; say so if there is nobody",
    "context": "place, time, weather and situation",
    "interaction": "how people, objects and surroundings act on one another",
    "analysis": "what these signs suggest together, where they disagree, and the emotion that follows",
}
FORMAT = (
    "<think>"
    + "".join(f"<{name}>{_PARTS[name]}</{name}>" for name in SECTIONS)
    + "</think><answer>one of the labels, as written in the list</answer>"
)
CONFIDENCE = (
    "<confidence>from 0 to 1, how likely it is that a viewer chosen at random names this label</confidence>"
)

BLIND = """\
Which emotion might this image evoke in people who look at it? Choose the most likely one from {candidates}.

Describe only what can be seen and what follows from it, in one to three sentences for each part. Write \
exactly this, with your text in place of the explanations, and nothing before or after it:
{format}
"""
GIVEN_LABEL = """\
People who looked at this image were asked which emotion it evokes. Of {candidates}, {label} was named most.

Write down how an attentive viewer comes to {label} from the image alone: describe only what can be seen and \
what follows from it, in one to three sentences for each part. The reader knows nothing of this message, so \
never mention that an answer was known, given or expected. Write exactly this, with your text in place of \
the explanations, and nothing before or after it:
{format}
"""


def read_template(name: str, *, blind: bool) -> str | None:
    """The teacher's text with its places to fill in, None for the student's own prompt.

    `name`: `own`, `student`, or a file. Raises RecordError for a file that does not fit the mode.
    """
    if name == STUDENT:
        if not blind:
            raise RecordError(
                "--teacher-prompt student: it cannot tell the label; give --blind, or a template"
            )
        return None
    if name == OWN:
        return BLIND if blind else GIVEN_LABEL
    try:
        template = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecordError(f"--teacher-prompt {name}: cannot be read ({reason}); give a text file") from None
    if "{candidates}" not in template:
        raise RecordError(f"--teacher-prompt {name}: no {{candidates}} in it; put it where the labels belong")
    if ("{label}" in template) == blind:
        remedy = "take it out, or give --given-label" if blind else "put it in, or give --blind"
        raise RecordError(f"--teacher-prompt {name}: {'a' if blind else 'no'} {{label}} in it; {remedy}")
    return template


def question_text(template: str | None, row: Row, *, with_confidence: bool) -> str:
    """The text that the teacher is asked about this row."""
    if template is None:
        return user_prompt(row.candidates, with_confidence=with_confidence)
    filled = {
        "{task}": row.task,
        "{candidates}": ", ".join(row.candidates),
        "{label}": row.label,
        "{format}": FORMAT + (CONFIDENCE if with_confidence else ""),
    }
    for place in PLACES:
        template = template.replace(place, filled[place])
    return template


def prompt_hash(row: Row, text: str, request: dict[str, Any], max_pixels: int | None) -> str:
    """SHA-256 of everything that the answer hangs on: image, texts, model and how it samples."""
    asked = [row.pixels, max_pixels, SYSTEM_PROMPT, text, request]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def messages(image: Path, text: str, max_pixels: int | None) -> list[dict[str, Any]]:
    """The chat in the form of the chat-completions protocol, the image in it. Raises ImageFault."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(image, max_pixels)}},
        {"type": "text", "text": text},
    ]
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": content}]


def data_url(path: Path, max_pixels: int | None) -> str:
    """The image as a `data:` address: the file as it is where every reader sees the same in it.

    Other formats, rotated, animated, CMYK or transparent ones, and those of more than `max_pixels` (width x
    height) are drawn as a viewer sees them, scaled down, and sent as JPEG. Raises ImageFault.
    """
    facts = inspect_image(path, decode=False)
    too_large = max_pixels is not None and facts.width * facts.height > max_pixels
    plain = facts.mode in ("RGB", "L") and facts.n_frames == 1 and not facts.exif_rotated
    plain = plain and not facts.has_transparency  # which RGB and L have by a colour of the header
    if facts.format in SENT_AS_THEY_ARE and plain and not too_large:
        return _as_url(SENT_AS_THEY_ARE[facts.format], path.read_bytes())
    image = open_rgb(path)
    if max_pixels is not None and too_large:
        scale = (max_pixels / (facts.width * facts.height)) ** 0.5
        image = image.resize((max(1, int(facts.width * scale)), max(1, int(facts.height * scale))))
    written = io.BytesIO()
    image.save(written, "JPEG", quality=95)
    return _as_url("image/jpeg", written.getvalue())


def _as_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True)
class Question:
    """A row's question. `messages` makes the chat when it is sent, so that images are not held in memory."""

    id: str
    prompt_sha256: str
    messages: Callable[[], list[dict[str, Any]]]

    @property
    def key(self) -> tuple[str, str]:
        """What an answer on disk is found by."""
        return self.id, self.prompt_sha256


@dataclass(frozen=True)
class Teacher:
    """Who is asked. `request`: fields of the chat completion, the model's name among them."""

    server: ChatServer
    request: Mapping[str, Any]
    max_failures_in_a_row: int


@dataclass
class Cost:
    """Tokens as the server counts them, and what they cost at prices per million tokens."""

    price_in: float
    price_out: float
    tokens_in: int = 0
    tokens_out: int = 0
    answers_without_usage: int = 0

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count an answer; one without usage is counted as such."""
        if answer.get("tokens_in") is None:
            self.answers_without_usage += 1
        self.tokens_in += answer.get("tokens_in") or 0
        self.tokens_out += answer.get("tokens_out") or 0

    @property
    def total(self) -> float:
        """In the currency of the prices."""
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def __str__(self) -> str:
        return f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out, cost {self.total:,.4f}"


def read_answers(path: Path, questions: Sequence[Question]) -> dict[tuple[str, str], dict[str, Any]]:
    """The answers on disk to these questions; a failed one only where no answer came later."""
    if not path.exists():
        return {}
    with JsonlAppender(path):
        pass  # repairs a last line that was cut off
    wanted = {question.key for question in questions}
    answers: dict[tuple[str, str], dict[str, Any]] = {}
    for _, answer in read_jsonl(path):
        key = (str(answer.get("id")), str(answer.get("prompt_sha256")))
        if key in wanted and ("error" not in answer or "error" in answers.get(key, answer)):
            answers[key] = answer
    return answers


def ask_all(
    questions: Sequence[Question], teacher: Teacher, path: Path, cost: Cost
) -> dict[tuple[str, str], dict[str, Any]]:
    """Answers to all questions: those on disk, and the others asked for and appended to `path` as they come.

    A question that fails after all retries has `error` {type, message} in place of `answer`, and is asked
    again by the next call. Raises RecordError where the server is at fault; what came is on disk.
    """
    answers = read_answers(path, questions)
    for answer in answers.values():
        if "error" not in answer:
            cost.add(answer)
    missing = [question for question in questions if "error" in answers.get(question.key, {"error": 1})]
    if not missing:
        return answers
    progress = {"total": len(questions), "initial": len(questions) - len(missing), "unit": "answer"}
    failures = 0
    with (
        JsonlAppender(path) as appender,
        tqdm(desc="teacher", mininterval=1.0, file=sys.stderr, **progress) as bar,
        closing(_answers(missing, teacher)) as coming,
    ):
        for answer in coming:
            appender.write(answer)
            answers[answer["id"], answer["prompt_sha256"]] = answer
            failures = failures + 1 if "error" in answer else 0
            if failures >= teacher.max_failures_in_a_row:
                error = answer["error"]
                raise RecordError(
                    f"{teacher.server.url}: {failures} failures in a row, the last {error['type']} "
                    f"({error['message']}); mend the server, then give the same command again"
                )
            if not failures:
                cost.add(answer)
            bar.set_postfix_str(str(cost), refresh=False)
            bar.update(1)
    return answers


def _answers(questions: Iterable[Question], teacher: Teacher) -> Generator[dict[str, Any], None, None]:
    """Yield the answers as they come. Raises RecordError for a wrong key, address or name."""
    asked = ((question, partial(_fields, question, teacher)) for question in questions)
    try:
        with closing(ChatClient(teacher.server).answers(asked)) as coming:
            for came in coming:
                if came is not None:
                    question, outcome = came
                    yield {"id": question.id, "prompt_sha256": question.prompt_sha256} | _as_answer(outcome)
    except ServerUnusable as error:
        remedy = (
            "correct --teacher-url (it ends in /v1) or --teacher-model"
            if error.status == 404
            else "put it into the variable that --api-key-variable names"
        )
        raise RecordError(f"{error}; {remedy}") from None


def _fields(question: Question, teacher: Teacher) -> Mapping[str, Any] | Failure:
    try:
        return {"messages": question.messages(), **teacher.request}
    except ImageFault as fault:
        return Failure(type(fault).__name__, str(fault))


def _as_answer(outcome: Completion | Failure) -> dict[str, Any]:
    if isinstance(outcome, Failure):
        return {"error": {"type": outcome.type, "message": outcome.message}}
    return {
        "model": outcome.model,
        "answer": outcome.texts[0],
        "refusal": outcome.refusal,
        "finish_reason": outcome.finish_reason,
        "tokens_in": outcome.n_prompt_tokens,
        "tokens_out": outcome.n_response_tokens,
        "latency_s": outcome.latency_s,
    }
