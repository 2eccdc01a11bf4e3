"""The teacher: what it is sent, retries, faults of servers, answers that stay on disk, what they cost."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import Reply, chat_server
from PIL import Image

from data.vec_cot.rows import Row
from data.vec_cot.teacher import (
    Cost,
    Question,
    Teacher,
    ask_all,
    data_url,
    prompt_hash,
    question_text,
    read_template,
)
from emocaliber.chat_server import ChatServer
from emocaliber.jsonl import RecordError

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
        n_seen = server.asked.count("bad")
        # A server may never see a question that was given up while it was on its way.
        assert n_seen == n_asked or (fault == "late" and 0 < n_seen < n_asked)
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
    with chat_server(lambda text, before: status) as server, pytest.raises(RecordError) as caught:
        ask(tmp_path, server.url, "a b c d e f g h i j")
    assert remedy in str(caught.value) and KEY not in str(caught.value)
    assert len(server.asked) <= 4, "those under way, and no more"


def test_a_server_that_is_down_ends_it(tmp_path: Path) -> None:
    with chat_server(lambda text, before: "yes") as server:
        url = server.url
    with pytest.raises(RecordError, match="2 failures in a row, the last server_error"):
        ask(tmp_path, url, "a b c d e f", max_failures_in_a_row=2, max_retries=0, concurrency=1)
    assert len((tmp_path / "raw.jsonl").read_text().splitlines()) == 2


ROW = Row("f:1", "r", "Two", "awe", ("awe", "fear"), "a.jpg", pixels="0")


def sent(path: Path, max_pixels: int | None = None) -> tuple[str, bytes]:
    kind, _, content = data_url(path, max_pixels).partition(";base64,")
    return kind, base64.b64decode(content)


def test_images_are_sent_as_a_viewer_sees_them(tmp_path: Path) -> None:
    photo = Image.effect_noise((60, 40), 50).convert("RGB")
    photo.save(tmp_path / "wrong.png", "JPEG")
    assert sent(tmp_path / "wrong.png") == ("data:image/jpeg", (tmp_path / "wrong.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    photo.convert("CMYK").save(tmp_path / "print.jpg")
    for name, size in (("turned.jpg", (40, 60)), ("print.jpg", (60, 40))):
        kind, content = sent(tmp_path / name)
        with Image.open(io.BytesIO(content)) as shown:
            assert (kind, shown.size, shown.mode) == ("data:image/jpeg", size, "RGB")
    with Image.open(io.BytesIO(sent(tmp_path / "wrong.png", 600)[1])) as shown:
        assert shown.size == (30, 20)


def test_a_transparent_colour_of_the_header_is_drawn_on_white(tmp_path: Path) -> None:
    for mode, colour in (("RGB", (200, 0, 0)), ("L", 9)):
        Image.new(mode, (8, 8), colour).save(tmp_path / "clear.png", transparency=colour)
        kind, content = sent(tmp_path / "clear.png")
        with Image.open(io.BytesIO(content)) as shown:
            assert (kind, shown.getpixel((4, 4))) == ("data:image/jpeg", (255, 255, 255))


def test_only_one_who_is_told_reads_the_label() -> None:
    told = question_text(read_template("own", blind=False), ROW, with_confidence=True)
    blind = question_text(
        read_template("own", blind=True), replace(ROW, label="sadness"), with_confidence=False
    )
    assert "Of awe, fear, awe was named most." in told and "<confidence>" in told
    assert "sadness" not in blind and "awe, fear" in blind and "<confidence>" not in blind
    for text in (told, blind):
        assert "<analysis>" in text and "</think><answer>" in text and "{" not in text


def test_the_hash_hangs_on_all_that_is_asked() -> None:
    request = {"model": "m", "temperature": 0.0}
    hashes = [
        prompt_hash(ROW, "text", request, None),
        prompt_hash(ROW, "other", request, None),
        prompt_hash(ROW, "text", request | {"temperature": 0.5}, None),
        prompt_hash(ROW, "text", request, 100),
        prompt_hash(replace(ROW, pixels="1"), "text", request, None),
    ]
    assert len(set(hashes)) == 5
    assert prompt_hash(replace(ROW, image="b.jpg"), "text", request, None) == hashes[0], "the same picture"
