"""A server as a backend: hostile ones, keys, rows' own faults, the pixel limits, and an early end."""

import base64
import hashlib
import io
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hostile_images
import hostile_records
import pytest
from chat_server import ChatServer, Reply, Status, chat_server
from PIL import Image

from emocaliber.images import resized
from emocaliber.jsonl import RecordError
from emocaliber.records import is_invalid_record, read_records_keeping_invalid
from emocaliber.response import response_pattern
from emocaliber.taxonomy import MIKELS_8
from inference.backends.backend import Answer, Asking, EngineError, Refusal, Settings
from inference.backends.prepare import row_seed
from inference.backends.server import FAILURES_IN_A_ROW, ServerBackend

Row = dict[str, Any]
KEY, KEY_VARIABLE = "sk-very-secret-indeed", "EMOCALIBER_TEST_KEY"
MIN_PIXELS, MAX_PIXELS = 3136, 12544


@pytest.fixture
def make_rows(
    tmp_path: Path, make_row: Callable[..., Row], draw: Callable[[int, int, int], Image.Image]
) -> Callable[[int], list[Row]]:
    def make(n_rows: int) -> list[Row]:
        for number in range(min(n_rows, 8)):
            draw(number, 40 + 30 * number, 90).save(tmp_path / f"{number}.png")
        return [make_row(f"r{number}", f"{number % 8}.png", f"question {number}") for number in range(n_rows)]

    return make


@pytest.fixture
def backend_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServerBackend]:
    monkeypatch.setenv(KEY_VARIABLE, KEY)

    def make(
        server: ChatServer | str,
        asking: Row | None = None,
        *,
        expected: Callable[..., tuple[int, int]] | None = None,
        max_retries: int = 2,
        backoff_s: float = 0.01,
        **changes: Any,
    ) -> ServerBackend:
        url = server if isinstance(server, str) else server.url
        settings: Row = {"checkpoint": "no folder", "architectures": (), "image_factor": 28}
        settings |= {"max_model_len": 4096, "images_per_row": 1, "batch_size": 32, "dtype": "auto"}
        settings |= {"tensor_parallel_size": 1, "gpu_memory_utilization": 0.9, "server_url": url}
        settings |= {"server_model": None, "api_key_variable": KEY_VARIABLE, "timeout_s": 20.0}
        asked = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 64} | (asking or {})
        backend = ServerBackend(
            Settings(**(settings | changes)),
            Asking(tmp_path, MIN_PIXELS, MAX_PIXELS, **asked),
            max_retries=max_retries,
            backoff_s=backoff_s,
        )
        assert backend._count is None, "without a checkpoint nothing is expected"
        backend._count = expected and (lambda row: expected(row.record, row.sizes))
        return backend

    return make


def outcomes(backend: ServerBackend, rows: list[Row]) -> dict[str, Answer | Refusal]:
    """The outcome of every row, each of which came once."""
    came = [outcome for outcome in backend.answers(rows) if outcome is not None]
    assert Counter(outcome.id for outcome in came) == Counter(row["id"] for row in rows)
    return {outcome.id: outcome for outcome in came}


def answer_all(text: str, before: int) -> Reply:
    return f"answer to {text}"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_hostile_server_loses_no_row_and_every_request_is_counted(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend], seed: int
) -> None:
    faults: list[Reply] = [
        Status(429),
        Status(429, {"Retry-After": "0.05"}),
        Status(503, {"Retry-After": "0"}),
    ]
    faults += [500, 502, "half", "nothing", "not json", "html", "empty", "never"]

    def reply(text: str, before: int) -> Reply:
        chance = random.Random(f"{seed} {text} {before}")
        return chance.choice(faults) if chance.random() < 0.5 else f"answer to {text}"

    rows = make_rows(200)
    with chat_server(reply) as server:
        backend = backend_for(server, timeout_s=3.0, max_retries=40, backoff_s=0.002)
        came = outcomes(backend, rows)
        ends = time.monotonic() + 20
        assert {identity: outcome.response for identity, outcome in came.items()} == {
            f"r{number}": f"answer to question {number}" for number in range(200)
        }
        counts = backend.counts
        # A request that timed out on a busy machine may be read later.
        while len(server.asked) < counts["requests"] and time.monotonic() < ends:
            time.sleep(0.05)
        assert counts["requests"] == len(server.asked) == sum(counts["by_outcome"].values())
    assert counts["retries"] == counts["requests"] - 200 > 100
    # What the server did to whom is known from the seed; a busy machine may add a timeout.
    replies = Counter(
        str(reply.code if isinstance(reply, Status) else reply)
        for text, n_asked in Counter(server.asked).items()
        for reply in (server.reply(text, before) for before in range(n_asked))
    )
    by_outcome = counts["by_outcome"]
    assert by_outcome["200"] == 200 and counts["prompt_tokens"] == 20000 and counts["response_tokens"] == 2000
    if by_outcome["timeout"] == replies["never"]:
        for status in ("429", "500", "502", "503"):
            assert by_outcome[status] == replies[status] > 0
        assert by_outcome["no answer"] == replies["half"] + replies["nothing"] > 0
        assert by_outcome["malformed"] == replies["not json"] + replies["html"] + replies["empty"] > 0
    assert by_outcome["timeout"] >= replies["never"] > 0


def test_what_is_asked_and_what_comes_of_it(
    tmp_path: Path, make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    with chat_server(answer_all) as server:
        backend = backend_for(server, {"n_samples": 3, "seed": 7})
        came = outcomes(backend, make_rows(1))["r0"]
    text = "answer to question 0"
    sums = [hashlib.sha256((tmp_path / "0.png").read_bytes()).hexdigest()]
    assert came == Answer("r0", text, "stop", None, 100, 10, samples=[text] * 3, images_sha256=sums)
    (body,) = server.bodies
    messages = body.pop("messages")
    assert body == {
        "model": "m",
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "n": 3,
        "seed": row_seed(7, "r0"),
    }
    assert [message["role"] for message in messages] == ["system", "user"]
    assert [item["type"] for item in messages[1]["content"]] == ["image_url", "text"]
    assert backend.arguments["model"] == "m" and backend.arguments["url"] == server.url
    json.dumps(backend.arguments)


def test_the_server_gets_images_of_the_size_that_the_limits_imply(
    tmp_path: Path,
    make_row: Callable[..., Row],
    draw: Callable[[int, int, int], Image.Image],
    backend_for: Callable[..., ServerBackend],
) -> None:
    sizes = [(112, 112), (640, 480), (20, 20), (300, 40), (56, 224), (113, 112)]
    for number, size in enumerate(sizes):
        draw(number, *size).save(tmp_path / f"{number}.png")
    rows = [make_row(f"r{number}", f"{number}.png", f"{number}") for number in range(len(sizes))]
    told: dict[str, Any] = {}

    def expected(record: Mapping[str, Any], sizes: Any) -> tuple[int, int]:
        told[record["id"]] = sizes
        return 100, 16

    with chat_server(answer_all) as server:
        came = outcomes(backend_for(server, expected=expected), rows)
    assert all(isinstance(outcome, Answer) and outcome.n_image_tokens == 16 for outcome in came.values())
    for body in server.bodies:
        image, text = body["messages"][-1]["content"]
        number = int(text["text"])
        kind, _, content = image["image_url"]["url"].partition(",")
        assert kind == "data:image/png;base64"
        sent = Image.open(io.BytesIO(base64.b64decode(content)))
        width, height = sizes[number]
        assert sent.size[::-1] == resized(height, width, 28, MIN_PIXELS, MAX_PIXELS)
        assert told[f"r{number}"] == [sent.size]
        # Resized once it stays: the server's own resizing by the same rule changes nothing.
        assert sent.size[::-1] == resized(*sent.size[::-1], 28, MIN_PIXELS, MAX_PIXELS)
        if sent.size == sizes[number]:
            assert sent.tobytes() == draw(number, width, height).tobytes()


@pytest.mark.parametrize("counted", [90, None])
def test_another_number_of_prompt_tokens_stops_the_run(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend], counted: int | None
) -> None:
    with chat_server(answer_all) as server:
        server.prompt_tokens = counted
        backend = backend_for(server, expected=lambda record, sizes: (100, 16))
        with pytest.raises(EngineError, match=rf"row r\d: .* counts {counted} .* imply 100 \(16 of images\)"):
            list(backend.answers(make_rows(3)))


def test_a_rows_own_faults_are_refusals_and_nothing_is_fetched(
    tmp_path: Path, make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    rows = make_rows(7)
    rows[6]["conversations"][0]["content"][1]["text"] = "half a pair: \ud800"
    with chat_server(lambda text, before: 400 if text == "question 5" else "yes") as server:
        faulty = [("none.png", "image_missing"), (f"{server.url}/x.png", "image_outside_root")]
        faulty += [("../x.png", "image_outside_root"), ("torn.png", "image_unreadable")]
        (tmp_path / "torn.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
        for row, (name, _) in zip(rows, faulty, strict=False):
            row["conversations"][0]["content"][0]["image"] = name
        came = outcomes(backend_for(server), rows)
    assert [getattr(came[f"r{number}"], "type", None) for number in range(7)] == [
        *(kind for _, kind in faulty),
        None,
        "server_refused",
        "prompt_invalid",
    ]
    assert sorted(server.asked) == ["question 4", "question 5"] and server.gets == ["/v1/models"]


@pytest.mark.parametrize("asking", [{}, {"constrain": True}, {"prompt": "top_k"}])
def test_hostile_records_end_as_answers_or_named_errors(
    tmp_path: Path, backend_for: Callable[..., ServerBackend], asking: Row
) -> None:
    lines = hostile_records.Generator(hostile_images.save_images(tmp_path)).lines(300)
    (tmp_path / "hostile.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    read = read_records_keeping_invalid(tmp_path / "hostile.jsonl")
    rows = [row for row in read if not is_invalid_record(row)]
    with chat_server(lambda text, before: "yes") as server:
        came = outcomes(backend_for(server, asking, batch_size=8), rows)
    kinds = Counter(getattr(outcome, "type", "answer") for outcome in came.values())
    assert kinds.pop("answer") == len(server.asked) > 20
    assert (
        {"image_unreadable", "image_missing", "image_outside_root"}
        <= set(kinds)
        <= hostile_records.ERROR_TYPES
    )
    assert ("prompt_invalid" in kinds) == ("prompt" not in asking), "a prompt of its own is always sound"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_nowhere(
    make_rows: Callable[[int], list[Row]],
    backend_for: Callable[..., ServerBackend],
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    with chat_server(lambda text, before: f"my key is {KEY}" if text == "question 0" else status) as server:
        backend = backend_for(server, batch_size=1)
        assert backend.arguments["key_variable"] == KEY_VARIABLE
        seen: list[object] = [backend.arguments, backend.settings, vars(backend._client)]
        try:
            seen += backend.answers(make_rows(3))
        except EngineError as error:
            assert status in (401, 403, 404)
            seen += [error, "".join(map(str, error.args))]
            assert KEY_VARIABLE in str(error) or status == 404
        seen += [backend.counts, caplog.text]
        assert all(KEY in body for body in server.keys), "it was sent"
    assert KEY not in repr(seen) and "my key is ***" in repr(seen)


def test_a_server_that_fails_every_row_stops_the_run(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    came: list[Any] = []
    with chat_server(lambda text, before: 500 if int(text.split()[1]) > 9 else "yes") as server:
        backend = backend_for(server, max_retries=1, batch_size=4)
        with pytest.raises(EngineError, match="20 rows in a row have no answer, the last for server_error"):
            came.extend(backend.answers(make_rows(60)))
    kinds = Counter(getattr(outcome, "type", "answer") for outcome in came if outcome is not None)
    assert kinds == {"answer": 10, "server_error": FAILURES_IN_A_ROW}, "those, too, are kept"


def test_failures_with_answers_between_them_do_not_stop_the_run(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    with chat_server(lambda text, before: "yes" if text in ("question 12", "question 27") else 500) as server:
        came = outcomes(backend_for(server, max_retries=0, batch_size=1), make_rows(40))
    assert Counter(type(outcome) for outcome in came.values()) == {Answer: 2, Refusal: 38}


@pytest.mark.parametrize("answers_first", [True, False])
def test_refused_requests_stop_the_run_only_if_nothing_else_comes(
    make_rows: Callable[[int], list[Row]],
    backend_for: Callable[..., ServerBackend],
    answers_first: bool,
) -> None:
    with chat_server(
        lambda text, before: 400 if text != "question 0" or not answers_first else "yes"
    ) as server:
        backend = backend_for(server, batch_size=1)
        if answers_first:
            came = outcomes(backend, make_rows(40))
            assert Counter(type(outcome) for outcome in came.values()) == {Answer: 1, Refusal: 39}
        else:
            with pytest.raises(EngineError, match=r"20 rows in a row .* server_refused"):
                outcomes(backend, make_rows(40))


@pytest.mark.parametrize(
    ("models", "named", "said"),
    [
        (401, None, f"the key is refused (status 401); put it into the environment variable {KEY_VARIABLE}"),
        (403, "m", "the key is refused (status 403)"),
        (404, None, "lists no models (status 404); correct the address (it ends in /v1), or name the model"),
        (["a", "b"], None, "it has 2 models (a, b); name one"),
        ([], None, "it has 0 models (none); name one"),
    ],
)
def test_a_server_that_cannot_be_used_is_met_at_the_start(
    backend_for: Callable[..., ServerBackend], models: list[str] | int, named: str | None, said: str
) -> None:
    with chat_server(answer_all) as server:
        server.models = models
        with pytest.raises(EngineError) as caught:
            backend_for(server, server_model=named)
    assert said in str(caught.value) and "\n" not in str(caught.value) and KEY not in str(caught.value)
    assert server.asked == []


def test_a_server_that_is_not_there(backend_for: Callable[..., ServerBackend]) -> None:
    with chat_server(answer_all) as server:
        url = server.url
    for named in (None, "m"):
        with pytest.raises(EngineError, match="start the server, or correct the address"):
            backend_for(url, server_model=named)


def test_a_server_that_wants_no_key_needs_none(
    make_rows: Callable[[int], list[Row]],
    backend_for: Callable[..., ServerBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # of somebody else's server
    with chat_server(answer_all) as server:
        assert len(outcomes(backend_for(server, api_key_variable="EMOCALIBER_NOT_SET"), make_rows(2))) == 2
    assert set(server.keys) == {"Bearer none"}


def test_a_server_without_a_list_does_with_a_name_and_an_unknown_name_is_met(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    with chat_server(answer_all) as server:
        server.models = 404
        assert len(outcomes(backend_for(server, server_model="other"), make_rows(3))) == 3
        server.reply = lambda text, before: 404
        with pytest.raises(EngineError, match="the model's name"):
            list(backend_for(server, server_model="other").answers(make_rows(3)))


def test_a_server_that_knows_no_samples_stops_the_run(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    with chat_server(answer_all) as server:
        server.knows_n = False
        with pytest.raises(EngineError, match="gives 1 of 4 samples"):
            list(backend_for(server, {"n_samples": 4}).answers(make_rows(1)))


def test_a_key_that_cannot_be_one_is_named_and_not_shown(
    backend_for: Callable[..., ServerBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOCALIBER_ODD_KEY", f"{KEY}\nnoch einer")
    with pytest.raises(RecordError, match="EMOCALIBER_ODD_KEY holds no key") as caught:
        backend_for("http://127.0.0.1:9/v1", api_key_variable="EMOCALIBER_ODD_KEY")
    assert KEY not in str(caught.value)


def test_closed_early_it_waits_for_nothing_and_has_read_no_more_than_it_asks(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    read = []

    def rows() -> Iterator[Row]:
        for row in make_rows(50):
            read.append(row["id"])
            yield row

    with chat_server(lambda text, before: "yes" if text == "question 0" else "never") as server:
        backend = backend_for(server, batch_size=5)
        coming = backend.answers(rows())
        assert isinstance(next(outcome for outcome in coming if outcome is not None), Answer)
        assert next(coming) is None, "it says that it is alive"
        assert len(read) == 6
        started = time.monotonic()
        coming.close()
        assert time.monotonic() - started < 2
    assert backend.counts["by_outcome"] == {"200": 1, "cancelled": 5}
    assert backend.counts["requests"] == len(server.asked) == 6


def test_constrained_the_pattern_of_the_rows_labels_is_sent(
    make_rows: Callable[[int], list[Row]], backend_for: Callable[..., ServerBackend]
) -> None:
    rows = make_rows(2)
    rows[1]["candidates"] = ["joy", "fear"]
    with chat_server(answer_all) as server:
        outcomes(backend_for(server, {"constrain": True, "longest_section": 90}), rows)
        del rows[0]["candidates"]
        refused = outcomes(backend_for(server, {"constrain": True}), rows[:1])["r0"]
        assert isinstance(refused, Refusal) and refused.type == "prompt_invalid" and len(server.asked) == 2
        rows[0]["candidates"] = list(MIKELS_8)
    patterns = {
        body["messages"][-1]["content"][-1]["text"]: body["structured_outputs"] for body in server.bodies
    }
    assert patterns == {
        f"question {number}": {"regex": response_pattern("published", row["candidates"], longest_section=90)}
        for number, row in enumerate(rows)
    }
