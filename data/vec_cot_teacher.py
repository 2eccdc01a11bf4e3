"""Asks a teacher behind an OpenAI-compatible server, many rows at a time, and keeps every answer on disk."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from emocaliber.jsonl import JsonlAppender, read_jsonl

LONGEST_MESSAGE = 300


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
class Server:
    """Where the teacher is and how it is asked. `request`: fields of the chat completion, the model's name
    among them. The key is held in memory only."""

    url: str
    request: dict[str, Any]
    key: str = field(repr=False)
    timeout_s: float
    max_retries: int
    concurrency: int
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
    questions: Sequence[Question], server: Server, path: Path, cost: Cost
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
        closing(_answers(missing, server)) as coming,
    ):
        for answer in coming:
            appender.write(answer)
            answers[answer["id"], answer["prompt_sha256"]] = answer
            failures = failures + 1 if "error" in answer else 0
            if failures >= server.max_failures_in_a_row:
                error = answer["error"]
                raise TeacherUnusable(
                    f"{server.url}: {failures} failures in a row, the last {error['type']} "
                    f"({error['message']}); mend the server, then give the same command again"
                )
            if not failures:
                cost.add(answer)
            bar.set_postfix_str(str(cost), refresh=False)
            bar.update(1)
    return answers


def _answers(questions: Iterable[Question], server: Server) -> Generator[dict[str, Any], None, None]:
    """Yield the answers as they come, `concurrency` questions being under way at a time."""
    from openai import OpenAI

    # The client waits between its retries: longer each time, or as long as the server says.
    client = OpenAI(
        base_url=server.url,
        api_key=server.key or "none",
        timeout=server.timeout_s,
        max_retries=server.max_retries,
    )
    left = iter(questions)
    with client, _pool(server.concurrency) as pool:
        under_way: set[Future[dict[str, Any]]] = set()
        while True:
            for question in islice(left, server.concurrency - len(under_way)):
                under_way.add(pool.submit(_ask, client, question, server))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that does not wait for questions under way when it is left early."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ask(client: Any, question: Question, server: Server) -> dict[str, Any]:
    """One row's answer or error. Raises TeacherUnusable for a wrong key, address or name."""
    import openai

    from emocaliber.images import ImageFault

    named = {"id": question.id, "prompt_sha256": question.prompt_sha256}
    started = time.monotonic()
    try:
        completion = client.chat.completions.create(messages=question.messages(), **_fields(server.request))
        choice = completion.choices[0]
        answer = {
            "model": completion.model,
            "answer": choice.message.content,
            "refusal": getattr(choice.message, "refusal", None),
            "finish_reason": choice.finish_reason,
            "tokens_in": getattr(completion.usage, "prompt_tokens", None),
            "tokens_out": getattr(completion.usage, "completion_tokens", None),
            "latency_s": round(time.monotonic() - started, 3),
        }
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise TeacherUnusable(
            f"{server.url}: the key is refused (status {error.status_code}); "
            "put it into the variable that --api-key-variable names"
        ) from None
    except openai.NotFoundError as error:
        raise TeacherUnusable(
            f"{server.url}: {_line(error, server)}; correct --teacher-url (it ends in /v1) or --teacher-model"
        ) from None
    except (openai.OpenAIError, ImageFault) as error:
        return named | {"error": {"type": type(error).__name__, "message": _line(error, server)}}
    except (
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:  # JSON that is none, or no completion
        message = f"not a chat completion ({_line(error, server)})"
        return named | {"error": {"type": "MalformedAnswer", "message": message}}
    return named | answer


def _fields(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the protocol has by name, and the server's own fields beside it."""
    known = {"model", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed"}
    extra = {name: value for name, value in request.items() if name not in known}
    return {name: request[name] for name in request if name in known} | {"extra_body": extra}


def _line(error: Exception, server: Server) -> str:
    """One line of an error, without the key, which servers may repeat."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text.replace(server.key, "***") if server.key else text)[:LONGEST_MESSAGE]
