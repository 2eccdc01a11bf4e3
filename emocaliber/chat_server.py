"""Asks an OpenAI-compatible server many questions at a time, and counts every request that it was sent.

What a reply says is read here too: the completion in it, or by which failure there is none.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

SERVER_ERROR, SERVER_TIMEOUT = "server_error", "server_timeout"
SERVER_MALFORMED, REQUEST_REFUSED = "server_malformed", "server_refused"
SERVERS_OWN = frozenset({SERVER_ERROR, SERVER_TIMEOUT, SERVER_MALFORMED})
"""Types of failures that are the server's, not the question's: asked again, they may pass."""

RETRIED_STATUSES = frozenset({408, 409, 425, 429})  # and 500 and above
LONGEST_BACKOFF_S, LONGEST_RETRY_AFTER_S = 30.0, 120.0
LONGEST_CONNECT_S, LONGEST_START_S = 10.0, 60.0
LONGEST_MESSAGE = 300
SHORTEST_SECRET = 8  # shorter keys are placeholders ("none", "EMPTY"), and words of an answer
SILENCE_S = 0.5

Key = TypeVar("Key")


class ServerUnusable(RuntimeError):
    """The server cannot be reached, refuses the key, or knows no such model: every question would fail.

    `status`: of HTTP; 401 and 403 speak of the key, 404 of the address or of the model's name. None for a
    server that cannot be reached.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Completion:
    """What a question got: a text for each sample ("" for none), and tokens as the server counts them.

    `n_response_tokens`: of all samples together.
    """

    texts: list[str]
    finish_reason: str | None
    refusal: str | None
    model: str | None
    n_prompt_tokens: int | None
    n_response_tokens: int | None
    latency_s: float


@dataclass(frozen=True)
class Failure:
    """A question that got nothing. `type`: one of this module, or the asker's own."""

    type: str
    message: str


Question: TypeAlias = Callable[[], Mapping[str, Any] | Failure]
"""Makes the fields of a chat completion, or the failure to give instead."""


@dataclass(frozen=True)
class _Again:
    failure: Failure
    after_s: float | None = None


@dataclass
class Counts:
    """Requests sent, the retries among them, and what came of each.

    An outcome is a status of HTTP, `timeout`, `no answer`, `malformed` or `cancelled`. The tokens are
    those of the completions that told them.
    """

    requests: int = 0
    retries: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    response_tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Give them as JSON has them."""
        return {**vars(self), "by_outcome": dict(sorted(self.by_outcome.items()))}


@dataclass(frozen=True)
class ChatServer:
    """Where a server is and how hard it is asked. The key is held in memory only.

    `timeout_s`: of a request from its first byte to its answer's last. A question that
    fails is asked again after `backoff_s`, then after twice that and so on up to `LONGEST_BACKOFF_S`, or when
    the server's Retry-After says.
    """

    url: str
    key: str = field(repr=False)
    timeout_s: float
    max_retries: int
    concurrency: int
    backoff_s: float = 0.5

    def hidden(self, text: str) -> str:
        """Give a text of the server without the key, which servers may repeat."""
        return text.replace(self.key, "***") if len(self.key) >= SHORTEST_SECRET else text

    def line(self, text: object) -> str:
        """Give one line of an error, short and without the key."""
        return self.hidden(" ".join(str(text).split()))[:LONGEST_MESSAGE]


class ChatClient:
    """Asks a server. `counts` holds what came of all its requests."""

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.counts = Counts()

    def answers(
        self, questions: Iterable[tuple[Key, Question]]
    ) -> Generator[tuple[Key, Completion | Failure] | None, None, None]:
        """Yield (key, outcome) as they come, in any order, and None every half second in which none comes.

        A question is called when it is sent, in a thread; `concurrency` of them are under way at a time, and
        no more are read. Requests make progress while the generator is asked for the next; closing it drops
        those under way. Raises ServerUnusable.
        """
        left = iter(questions)
        with self._openai() as (loop, client):
            under_way: dict[asyncio.Task[Completion | Failure], Key] = {}
            while True:
                for key, make in islice(left, self.server.concurrency - len(under_way)):
                    under_way[loop.create_task(self._ask(client, make))] = key
                if not under_way:
                    return
                first = asyncio.wait(under_way, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED)
                done, _ = loop.run_until_complete(first)
                for task in sorted(done, key=lambda one: one.exception() is not None):  # what came is kept
                    yield under_way.pop(task), task.result()
                if not done:
                    yield None

    def models(self) -> list[str]:
        """Give the names that the server lists; not counted.

        Raises ServerUnusable, and ValueError for a server that gives no such list.
        """
        import openai

        server = self.server
        try:
            with self._openai(max_retries=min(2, server.max_retries)) as (loop, client):
                asked = client.models.with_raw_response.list()
                raw = loop.run_until_complete(asyncio.wait_for(asked, LONGEST_START_S))
                return [server.line(model["id"]) for model in json.loads(raw.text)["data"]]
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                self._of_status(error.status_code, error)
            raise ValueError(f"status {error.status_code}") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):
                raise ServerUnusable(f"{server.url}: {server.line(_named(cause))}", None) from None
            raise ValueError(server.line(_named(cause))) from None
        except (asyncio.TimeoutError, TypeError, KeyError, ValueError, openai.OpenAIError) as error:
            raise ValueError(server.line(_named(error))) from None

    @contextmanager
    def _openai(self, max_retries: int = 0) -> Iterator[tuple[asyncio.AbstractEventLoop, Any]]:
        """Open the library's client, with a loop that is driven by hand.

        Unlike asyncio.Runner's, the loop's end waits for no thread. The client's own retries, which neither
        count nor look into the body, are off for questions.
        """
        from openai import AsyncOpenAI, Timeout

        server = self.server
        timeout = Timeout(server.timeout_s, connect=min(LONGEST_CONNECT_S, server.timeout_s))
        key = server.key or "none"
        client = AsyncOpenAI(base_url=server.url, api_key=key, timeout=timeout, max_retries=max_retries)
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_tell_but_interruptions)
        try:
            yield loop, client
        finally:
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(client.close())
            loop.close()

    async def _ask(self, client: Any, make: Question) -> Completion | Failure:
        fields = await asyncio.to_thread(make)
        if isinstance(fields, Failure):
            return fields
        attempt = 0
        while isinstance(outcome := await self._once(client, fields), _Again):
            if attempt == self.server.max_retries:
                return outcome.failure
            await asyncio.sleep(self._wait_s(attempt, outcome.after_s))
            self.counts.retries += 1
            attempt += 1
        return outcome

    def _wait_s(self, attempt: int, after_s: float | None) -> float:
        backoff_s = min(self.server.backoff_s * 2.0 ** min(attempt, 30), LONGEST_BACKOFF_S)
        least_s = min(after_s, LONGEST_RETRY_AFTER_S) if after_s is not None else backoff_s
        return least_s + random.uniform(0, 0.25) * backoff_s  # so that not all come back at once

    async def _once(self, client: Any, fields: Mapping[str, Any]) -> Completion | Failure | _Again:
        """Send one request. Raises ServerUnusable."""
        import openai

        server = self.server
        rest = dict(fields)
        messages, model = rest.pop("messages"), rest.pop("model")
        started = time.monotonic()
        self.counts.requests += 1
        outcome = "cancelled"
        try:
            asked = client.chat.completions.with_raw_response.create(
                messages=messages, model=model, extra_body=rest
            )
            raw = await asyncio.wait_for(asked, server.timeout_s)  # the client's own limit is for each read
            outcome = "malformed"
            completion = read_completion(raw.text, time.monotonic() - started, server.hidden)
            outcome = str(raw.status_code)
            self.counts.prompt_tokens += completion.n_prompt_tokens or 0
            self.counts.response_tokens += completion.n_response_tokens or 0
            return completion
        except (asyncio.TimeoutError, openai.APITimeoutError):
            outcome = "timeout"
            return _Again(Failure(SERVER_TIMEOUT, f"no answer within {server.timeout_s:g} s"))
        except openai.APIStatusError as error:
            outcome = str(error.status_code)
            return self._of_status(error.status_code, error)
        except openai.APIConnectionError as error:
            outcome = "no answer"
            said = server.line(f"no answer: {_named(error.__cause__ or error)}")
            return _Again(Failure(SERVER_ERROR, said))
        except (ValueError, openai.OpenAIError) as error:
            return _Again(Failure(SERVER_MALFORMED, server.line(f"not a chat completion: {error}")))
        finally:
            self.counts.by_outcome[outcome] += 1

    def _of_status(self, status: int, error: Any) -> Failure | _Again:
        said = str(error).removeprefix(f"Error code: {status} - ")
        said = self.server.line(f"status {status}: {said}")
        if status in (401, 403):
            raise ServerUnusable(f"{self.server.url}: the key is refused (status {status})", status) from None
        if status == 404:
            raise ServerUnusable(f"{self.server.url}: {said}", status) from None
        if status in RETRIED_STATUSES or status >= 500:
            return _Again(Failure(SERVER_ERROR, said), retry_after_s(error.response.headers))
        return Failure(REQUEST_REFUSED, said)


def read_completion(body: str, latency_s: float, hidden: Callable[[str], str]) -> Completion:
    """Read the JSON of a chat completion; `hidden` takes secrets out of its texts.

    Raises ValueError for JSON that is none, or holds no completion.
    """
    try:
        completion = json.loads(body)
        choices = sorted(completion["choices"], key=lambda choice: choice.get("index") or 0)
        first = choices[0]
        texts = [choice["message"].get("content") for choice in choices]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise ValueError("a choice's content is no text")
        finish_reason, refusal = first.get("finish_reason"), first["message"].get("refusal")
        if finish_reason is None and not any(texts):
            raise ValueError("neither a text nor a finish_reason")
        usage = completion.get("usage") or {}
        return Completion(
            [hidden(text or "") for text in texts],
            _text(finish_reason, hidden),
            _text(refusal, hidden),
            _text(completion.get("model"), hidden),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            round(latency_s, 3),
        )
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _text(value: Any, hidden: Callable[[str], str]) -> str | None:
    return hidden(value) if value and isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3: seconds or a date), or the milliseconds that some send."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            after_s = float(headers[name]) * unit_s
            if after_s >= 0:  # "nan" is a number to float()
                return after_s
        except (KeyError, ValueError):
            continue
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _tell_but_interruptions(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Ctrl-C in the middle of a task is raised to the caller; the task keeps it too, and would tell it again.
    if not isinstance(context.get("exception"), KeyboardInterrupt):
        loop.default_exception_handler(context)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        done, _ = await asyncio.wait(tasks, timeout=1.0)
        for task in done:
            task.cancelled() or task.exception()  # looked at, so that asyncio does not report it
