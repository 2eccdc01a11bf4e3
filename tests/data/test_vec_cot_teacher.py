"""The teacher's client: retries, faults of servers, answers that stay on disk, what they cost."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from chat_server import Reply, chat_server

from data.vec_cot.teacher import Cost, Question, Teacher, TeacherUnusable, ask_all
from emocaliber.chat_server import ChatServer

KEY = "sk-very-secret"


def question(name: str) -> Question:
    return Question(
        name, f"hash of {name}", lambda: [{"role": "user", "content": [{"type": "text", "text": name}]}]
    )


def teacher(url: str, max_failures_in_a_row: int = 50, **changes: Any) -> Teacher:
    values = {"timeout_s": 20.0, "max_retries": 2, "concurrency": 3, "backoff_s": 0.01} | changes
    request = {"model": "m", "temperature": 0.0, "chat_template_kwargs": {"x": 1}}
    return Teacher(ChatServer(url, KEY, **values), request, max_failures_in_a_row)


def ask(
    folder: Path, url: str, names: str, cost: Cost | None = None, **changes: Any
) -> dict[str, dict[str, Any]]:
    questions = [question(name) for name in names.split()]
    answers = ask_all(questions, teacher(url, **changes), folder / "raw.jsonl", cost or Cost(1.0, 1.0))
    assert {key for _, key in answers} <= {one.prompt_sha256 for one in questions}
    return {name: answer for (name, _), answer in answers.items()}


def test_answers_usage_and_fields_of_the_request(tmp_path: Path) -> None:
    cost = Cost(price_in=2.0, price_out=30.0)
    with chat_server(lambda text, before: f"answer to {text}") as server:
        answers = ask(tmp_path, server.url, "a b c d e f g h", cost)
    assert {name: answer["answer"] for name, answer in answers.items()} == {
        name: f"answer to {name}" for name in "abcdefgh"
    }
    assert answers["a"]["finish_reason"] == "stop" and answers["a"]["model"] == "m"
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["chat_template_kwargs"]) == ("m", 0.0, {"x": 1})
    assert server.most_at_once <= 3
    # By hand: 8 x 100 tokens at 2 and 8 x 10 at 30 per million.
    assert (cost.tokens_in, cost.tokens_out) == (800, 80) and cost.total == pytest.approx(0.004)


@pytest.mark.parametrize("fault", [429, 500, 503, "late"])
def test_what_passes_is_asked_again(tmp_path: Path, fault: Reply) -> None:
    with chat_server(lambda text, before: "yes" if before else fault) as server:
        answers = ask(tmp_path, server.url, "a", timeout_s=0.5)
    assert answers["a"]["answer"] == "yes" and server.asked == ["a", "a"]


@pytest.mark.parametrize(
    ("fault", "kind", "n_asked"),
    [
        (429, "server_error", 3),
        (500, "server_error", 3),
        ("late", "server_timeout", 3),
        (400, "server_refused", 1),
        ("not json", "server_malformed", 3),
        ("html", "server_malformed", 3),
        ("empty", "server_malformed", 3),
    ],
)
def test_what_stays_is_an_error_and_only_that_is_asked_for_next(
    tmp_path: Path, fault: Reply, kind: str, n_asked: int
) -> None:
    with chat_server(lambda text, before: fault if text == "bad" else "yes") as server:
        answers = ask(tmp_path, server.url, "a bad c", timeout_s=0.5)
        assert answers["bad"]["error"]["type"] == kind and answers["bad"]["error"]["message"]
        assert (answers["a"]["answer"], answers["c"]["answer"]) == ("yes", "yes")
        assert server.asked.count("bad") == n_asked
        server.asked.clear()
        server.reply = lambda text, before: "mended"
        cost = Cost(1.0, 1.0)
        again = ask(tmp_path, server.url, "a bad c", cost)
        assert server.asked == ["bad"] and again["bad"]["answer"] == "mended"
        assert cost.tokens_in == 300, "what earlier calls paid for counts"
        assert ask(tmp_path, server.url, "a bad c") == again and server.asked == ["bad"]
    assert KEY not in (tmp_path / "raw.jsonl").read_text()


def test_another_prompt_is_asked_anew_and_a_torn_line_again(tmp_path: Path) -> None:
    with chat_server(lambda text, before: "yes") as server:
        ask(tmp_path, server.url, "a b")
        raw = tmp_path / "raw.jsonl"
        lines = raw.read_text().splitlines(keepends=True)
        torn = json.loads(lines[1])["id"]
        raw.write_text(lines[0] + lines[1][:40])
        server.asked.clear()
        assert len(ask(tmp_path, server.url, "a b")) == 2 and server.asked == [torn]
        other = Question("a", "another hash", question("a").messages)
        server.asked.clear()
        answers = ask_all([other], teacher(server.url), raw, Cost(0, 0))
        assert list(answers) == [("a", "another hash")] and server.asked == ["a"]


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "--api-key-variable"), (403, "key"), (404, "--teacher-url")]
)
def test_a_wrong_key_or_address_ends_it_at_once(tmp_path: Path, status: int, remedy: str) -> None:
    with chat_server(lambda text, before: status) as server, pytest.raises(TeacherUnusable) as caught:
        ask(tmp_path, server.url, "a b c d e f g h i j")
    assert remedy in str(caught.value) and KEY not in str(caught.value)
    assert len(server.asked) <= 4, "those under way, and no more"


def test_a_server_that_is_down_ends_it(tmp_path: Path) -> None:
    with chat_server(lambda text, before: "yes") as server:
        url = server.url
    with pytest.raises(TeacherUnusable, match="2 failures in a row, the last server_error"):
        ask(tmp_path, url, "a b c d e f", max_failures_in_a_row=2, max_retries=0, concurrency=1)
    assert len((tmp_path / "raw.jsonl").read_text().splitlines()) == 2
