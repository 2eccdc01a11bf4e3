"""Asks a teacher behind an OpenAI-compatible server, many rows at a time, and keeps every answer on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emocaliber.chat_completions import Completion, Failure
from emocaliber.chat_server import ChatClient, ChatServer, ServerUnusable
from emocaliber.images import ImageFault
from emocaliber.jsonl import JsonlAppender, read_jsonl


class TeacherUnusable(RuntimeError):
    """The server, not a row, is at fault: asking on would fail for every row. The message is one line."""


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
    again by the next call. Raises TeacherUnusable where the server is at fault; what came is on disk.
    """
    from tqdm import tqdm

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
                raise TeacherUnusable(
                    f"{teacher.server.url}: {failures} failures in a row, the last {error['type']} "
                    f"({error['message']}); mend the server, then give the same command again"
                )
            if not failures:
                cost.add(answer)
            bar.set_postfix_str(str(cost), refresh=False)
            bar.update(1)
    return answers


def _answers(questions: Iterable[Question], teacher: Teacher) -> Generator[dict[str, Any], None, None]:
    """Yield the answers as they come. Raises TeacherUnusable for a wrong key, address or name."""
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
        raise TeacherUnusable(f"{error}; {remedy}") from None


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
