"""The client of chat servers: what replies say, how long it waits, how much is under way at a time."""

import gc
import json
import sys
import time
from collections.abc import Mapping
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from chat_server import Reply, Status, chat_server

from emocaliber.chat_server import (
    ChatClient,
    ChatServer,
    Completion,
    Failure,
    ServerUnusable,
    read_completion,
    retry_after_s,
)


def question(name: str) -> Mapping[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": name}]}]}


def client(url: str, key: str = "", **changes: Any) -> ChatClient:
    values = {"timeout_s": 20.0, "max_retries": 3, "concurrency": 4, "backoff_s": 0.01}
    return ChatClient(ChatServer(url, key, **(values | changes)))


def ask(asked: ChatClient, names: str) -> dict[str, Completion | Failure]:
    came = asked.answers((name, lambda name=name: question(name)) for name in names.split())
    return dict(outcome for outcome in came if outcome is not None)


def test_as_many_as_allowed_are_under_way_and_a_failure_of_ones_own_is_not_sent() -> None:
    def reply(text: str, before: int) -> Reply:
        time.sleep(0.05)
        return text

    with chat_server(reply) as server:
        asked = client(server.url)
        own = Failure("mine", "it has no image")
        questions = [(str(n), lambda n=n: own if n == 3 else question(str(n))) for n in range(20)]
        came = dict(outcome for outcome in asked.answers(questions) if outcome is not None)
    assert came.pop("3") == own
    assert {name: outcome.texts for name, outcome in came.items()} == {name: [name] for name in came}
    assert len(came) == 19 and server.most_at_once == 4 and "3" not in server.asked
    assert asked.counts.as_dict() == {
        "requests": 19,
        "retries": 0,
        "by_outcome": {"200": 19},
        "prompt_tokens": 1900,
        "response_tokens": 190,
    }


def test_waits_grow_and_last_as_long_as_the_server_says() -> None:
    arrivals: list[float] = []

    def reply(text: str, before: int) -> Reply:
        arrivals.append(time.monotonic())
        if before == 3:
            return Status(429, {"Retry-After": "1"})
        return "yes" if before == 4 else Status(503)

    with chat_server(reply) as server:
        outcome = ask(client(server.url, max_retries=4, backoff_s=0.1), "a")["a"]
    assert isinstance(outcome, Completion)
    waits = [later - earlier for earlier, later in pairwise(arrivals)]
    assert all(wait >= least for wait, least in zip(waits, [0.1, 0.2, 0.4, 1.0], strict=True)), waits


def test_a_server_that_never_ends_its_answer_is_not_waited_for() -> None:
    with chat_server(lambda text, before: "slowly") as server:
        started = time.monotonic()
        asked = client(server.url, timeout_s=1.2, max_retries=1)
        outcome = ask(asked, "a")["a"]
        assert outcome == Failure("server_timeout", "no answer within 1.2 s")
        assert time.monotonic() - started >= 2.4
    assert asked.counts.by_outcome == {"timeout": 2} and asked.counts.retries == 1


def test_a_refused_key_ends_it_with_no_more_requests_than_were_under_way() -> None:
    with chat_server(lambda text, before: 401 if text == "c" else "yes") as server:
        asked = client(server.url, concurrency=1)
        came = []
        with pytest.raises(ServerUnusable, match="the key is refused") as caught:
            came.extend(asked.answers((name, lambda name=name: question(name)) for name in "abcdef"))
    assert caught.value.status == 401 and server.asked == ["a", "b", "c"]
    assert [name for name, _ in filter(None, came)] == ["a", "b"]
    assert asked.counts.by_outcome == {"200": 2, "401": 1}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "20"}, 0.02),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_retry_after_a_date_to_come() -> None:
    assert 50 < (retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)}) or 0) <= 60


CHOICE = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}


def test_a_completion_is_read() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    second = {"index": 1, "message": {"content": "no secret"}, "finish_reason": "length"}
    body = {"model": "m", "choices": [second, CHOICE], "usage": usage}
    read = read_completion(json.dumps(body), 0.12345, lambda text: text.replace("secret", "***"))
    assert read == Completion(["yes", "no ***"], "stop", None, "m", 5, 7, 0.123)
    refused = {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}
    read = read_completion(json.dumps({"choices": [refused], "usage": {"prompt_tokens": "5"}}), 0, str)
    assert read == Completion([""], "stop", "I will not", None, None, None, 0)


@pytest.mark.parametrize(
    "body",
    [
        "",
        '{"choices": [{"index": 0, "message": {"content": "ye',
        "[" * 100_000,
        "null",
        "[]",
        '"yes"',
        json.dumps({"error": "no"}),
        json.dumps({"choices": []}),
        json.dumps({"choices": None}),
        json.dumps({"choices": ["yes"]}),
        json.dumps({"choices": [{"message": None}]}),
        json.dumps({"choices": [CHOICE | {"message": {"content": 5}}]}),
        json.dumps({"choices": [CHOICE | {"index": "a"}, CHOICE]}),
        json.dumps({"choices": [{"message": {}}]}),
        json.dumps({"choices": [CHOICE], "usage": "free"}),
    ],
)
def test_what_is_no_completion_is_a_value_error(body: str) -> None:
    with pytest.raises(ValueError):
        read_completion(body, 0, str)


def test_only_keys_are_hidden_and_placeholders_are_not() -> None:
    server = ChatServer("http://h/v1", "sk-12345678", 1, 0, 1)
    assert server.line(f"a\n key:  sk-12345678{'x' * 500}").startswith("a key: ***xxx")
    assert len(server.line("x" * 500)) == 300 and "sk-" not in repr(server)
    assert ChatServer("http://h/v1", "none", 1, 0, 1).hidden("none of it") == "none of it"


def test_an_interruption_is_raised_and_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    def interrupted() -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(client("http://127.0.0.1:9/v1").answers([("a", interrupted)]))
    gc.collect()
    assert caplog.records == []
