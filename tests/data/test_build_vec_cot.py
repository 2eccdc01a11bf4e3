"""build_vec_cot.py as a command: its files, what is left out, going on, and the users' mistakes."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer, chat_server
from PIL import Image

from data import build_vec_cot
from data.vec_cot import teacher as vec_cot_prompt
from data.vec_cot.arguments import KEY_VARIABLE
from emocaliber import jsonl
from emocaliber.prompts import conversation, user_prompt
from emocaliber.records import read_records
from emocaliber.response import SECTIONS, parse, render
from emocaliber.taxonomy import MIKELS_8, MIKELS_TO_POLARITY, POLARITY_2

KEY = "sk-very-secret"
N_IMAGES = 40


def record(number: int, task: str, **changes: Any) -> dict[str, Any]:
    labels = list(POLARITY_2 if task == "FI-2" else MIKELS_8)
    mood = MIKELS_8[number % 2]
    image = f"{number}.png"
    return {
        "id": f"{task}-{number}",
        "image": image,
        "conversations": conversation(image, labels),
        "task": task,
        "ground_truth": MIKELS_TO_POLARITY[mood] if task == "FI-2" else mood,
        "candidates": labels,
        "votes": {mood: 3} if task == "FI-8" else {},
    } | changes


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, each with a row of FI-8 and one of FI-2, and a prompt that names the label."""
    for number in range(N_IMAGES):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [record(number, task) for task in ("FI-8", "FI-2") for number in range(N_IMAGES)]
    write(tmp_path / "records.jsonl", rows)
    (tmp_path / "prompt.txt").write_text("{task}: {label} of {candidates}")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    return tmp_path


def explain(text: str, before: int) -> str:
    """An answer that agrees with the prompt above, in other words each time."""
    label = re.match(r"\S+: (\S+) of", text)
    assert label is not None
    reasoning = {name: f"What {name} says, {before} of {text.split(':')[0]}." for name in SECTIONS}
    return render(reasoning | {"human": f"{label[1]} people number {before}."}, label[1])


@pytest.fixture
def teacher() -> Iterator[ChatServer]:
    with chat_server(explain) as server:
        yield server


def arguments(folder: Path, url: str, *flags: str, method: str = "constant") -> list[str]:
    shown = ["--records", str(folder / "records.jsonl"), "--output-dir", str(folder / "out")]
    shown += ["--teacher-url", url, "--teacher-model", "m", "--confidence-method", method]
    if "--blind" not in flags:
        shown += ["--given-label", "--teacher-prompt", str(folder / "prompt.txt")]
    return [*shown, "--max-retries", "0", "--threads", "1", *flags]


def build(
    capsys: pytest.CaptureFixture[str], folder: Path, url: str, *flags: str, method: str = "constant"
) -> tuple[int, str, str]:
    """Exit status, stdout and the last line of stderr of a build in this process."""
    try:
        status = build_vec_cot.main(arguments(folder, url, *flags, method=method))
    except SystemExit as end:
        status = int(str(end.code))
    captured = capsys.readouterr()
    return status, captured.out, (captured.err.splitlines() or [""])[-1]


def test_three_stages_from_one_source(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, error = build(capsys, folder, teacher.url, "--price-in", "10", "--price-out", "100")
    assert status == 0, error
    out = folder / "out"
    stages = {name: lines(out / f"{name}.jsonl") for name in ("stage1", "stage2", "stage3")}
    images = {name: {row.get("image") or row["images"][0] for row in rows} for name, rows in stages.items()}
    assert sum(map(len, images.values())) == len(set().union(*images.values())) == N_IMAGES
    # Strata (FI-8 anger, FI-2 negative) and (amusement, positive) of 20 images: 12, 6 and 2 each.
    assert {name: len(rows) for name, rows in stages.items()} == {"stage1": 48, "stage2": 24, "stage3": 8}
    assert len(teacher.asked) == 72, "stage 3 needs no chain"
    assert {body["messages"][0]["role"] for body in teacher.bodies} == {"system"}

    sources = {row["id"]: row for row in lines(folder / "records.jsonl")}
    for name, confidence in (("stage1", None), ("stage2", Decimal("0.80"))):
        for row in stages[name]:
            source = sources[row["id"]]
            _, user, assistant = row["messages"]
            asked = user_prompt(source["candidates"], with_confidence=confidence is not None)
            assert user["content"] == f"<image>{asked}"
            parsed = parse(assistant["content"], source["candidates"])
            assert (parsed.label, parsed.confidence, parsed.flags) == (
                source["ground_truth"],
                confidence,
                frozenset(),
            )
            assert row["images"] == [source["image"]] and row["task"] == source["task"]
    assert len({row["task"] for row in stages["stage1"][:12]}) == 2, "tasks are mixed"
    records = read_records(out / "stage3.jsonl")
    table = pq.read_table(out / "stage3.parquet").to_pylist()
    assert [row["extra_info"]["id"] for row in table] == [row["id"] for row in records]
    assert table[0]["images"][0]["bytes"] == (folder / records[0]["image"]).read_bytes()
    assert [row["id"] for row in lines(out / "stage3_chats.jsonl")] == [row["id"] for row in records]
    assert all(row["votes"] for row in records if row["task"] == "FI-8")

    stats = json.loads((out / "stats.json").read_text())
    # By hand: 72 answers of 100 and 10 tokens at 10 and 100 per million.
    assert stats["teacher"] | {"cost": 0.144, "tokens_in": 7200} == stats["teacher"]
    assert stats["stage2_confidence"] == {"n": 24, "mean": 0.8, "per_tenth": [0] * 8 + [24, 0]}
    assert stats["labels"]["stage3"] == {
        "FI-8": {"amusement": 2, "anger": 2},
        "FI-2": {"positive": 2, "negative": 2},
    }
    card = (out / "README.md").read_text()
    assert "| stage1 | 24 | 24 | 48 |" in card and "| total | 40 | 40 | 80 |" in card
    assert "are not public" in card
    manifest = json.loads((out / "manifest.json").read_text())
    for name, digest in manifest["written"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert {"stage1.jsonl", "stage2.jsonl", "stage3.jsonl", "stage3.parquet"} <= manifest["written"].keys()
    assert all(KEY.encode() not in file.read_bytes() for file in out.iterdir())
    assert "stage1 48, stage2 24, stage3 8" in said


def test_the_same_again_asks_nothing_and_gives_the_same(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(capsys, folder, teacher.url)[0] == 0
    names = ("stage1.jsonl", "stage2.jsonl", "stage3.jsonl", "stage3.parquet")
    before = {name: (folder / "out" / name).read_bytes() for name in names}
    teacher.asked.clear()
    assert build(capsys, folder, teacher.url)[0] == 0
    assert {name: (folder / "out" / name).read_bytes() for name in names} == before
    status, _, _ = build(capsys, folder, teacher.url, "--constant", "0.6", "--max-characters", "22")
    assert status == 2, "no chain is that short"
    rejected = lines(folder / "out" / "rejected.jsonl")
    assert Counter(row["reason"] for row in rejected) == {"section_too_long": 72}
    assert rejected[0]["where"].startswith(f"{folder / 'records.jsonl'}:") and rejected[0]["message"]
    assert teacher.asked == []
    assert build(capsys, folder, teacher.url, "--temperature", "0")[0] == 0
    assert len(teacher.asked) == 72, "another request is another answer"


def test_an_image_is_decoded_once_and_asked_about_anew_when_it_changes(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--stage-shares", "1", "0", "0"]
    assert build(capsys, folder, teacher.url, *flags)[0] == 0
    assert not list((folder / "out").glob("stage[23]*"))
    known = folder / "out" / "known_images.jsonl"
    before = known.read_text()
    assert len(before.splitlines()) == N_IMAGES
    teacher.asked.clear()
    assert build(capsys, folder, teacher.url, *flags)[0] == 0 and known.read_text() == before
    Image.new("RGB", (16, 16), "blue").save(folder / "3.png")
    teacher.reply = lambda text, asked_before: explain(text, asked_before + 1000)
    assert build(capsys, folder, teacher.url, *flags)[0] == 0
    assert len(known.read_text().splitlines()) == N_IMAGES + 1
    assert len(teacher.asked) == 2, "its two rows"


@pytest.mark.parametrize("place", ["another root", "the same root"])
def test_another_file_of_the_same_name_size_and_time_is_another_image(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    flags = ["--stage-shares", "1", "0", "0"]
    for root in (folder, folder / "other"):
        root.mkdir(exist_ok=True)
        for number in range(N_IMAGES):
            colour = (number, 0, 0) if root == folder else (0, number, 9)
            Image.new("RGB", (32, 32), colour).save(root / f"{number}.bmp")
            os.utime(root / f"{number}.bmp", (1e9, 1e9))
    write(folder / "records.jsonl", [record(n, "FI-8", image=f"{n}.bmp") for n in range(N_IMAGES)])
    assert build(capsys, folder, teacher.url, *flags)[0] == 0
    known = folder / "out" / "known_images.jsonl"
    before = {row["pixels_sha256"] for row in lines(known)}
    if place == "the same root":
        for number in range(N_IMAGES):
            (folder / f"{number}.bmp").write_bytes((folder / "other" / f"{number}.bmp").read_bytes())
            os.utime(folder / f"{number}.bmp", (1e9, 1e9))
    else:
        flags += ["--image-root", str(folder / "other")]
    teacher.asked.clear()
    teacher.reply = lambda text, asked_before: explain(text, asked_before + 1000)
    assert build(capsys, folder, teacher.url, *flags)[0] == 0
    assert len(teacher.asked) == N_IMAGES
    now = lines(known)
    assert len(now) == 2 * N_IMAGES and not before & {row["pixels_sha256"] for row in now[N_IMAGES:]}
    assert build(capsys, folder, teacher.url, *flags)[0] == 0 and len(lines(known)) == len(now)


def test_a_build_that_fails_takes_the_manifest_away_before_it_writes(
    folder: Path,
    teacher: ChatServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest, listed = folder / "out" / "manifest.json", folder / "out" / "rejected.jsonl"
    there: list[bool] = []
    written = jsonl.write_jsonl_atomic

    def watched(path: Path, rows: Any) -> None:
        there.extend([manifest.exists()] if path == listed else [])
        written(path, rows)

    monkeypatch.setattr(build_vec_cot, "write_jsonl_atomic", watched)
    # No chain is that short, no image is there, and nothing is wrong.
    for flags, status in ((["--max-characters", "22"], 2), (["--image-root", "/no/where"], 2), ([], 0)):
        assert build(capsys, folder, teacher.url)[0] == 0 and manifest.exists()
        there.clear()
        assert build(capsys, folder, teacher.url, *flags)[0] == status
        assert there == [False] and manifest.exists() == (status == 0), flags
    # A server that refuses changes nothing that the manifest speaks of.
    teacher.reply = lambda text, before: 401
    there.clear()
    assert build(capsys, folder, teacher.url, "--temperature", "0")[0] == 2
    assert there == [] and manifest.exists()


def test_rows_that_are_no_unicode_are_left_out_before_the_teacher_is_asked(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "a\udcff.png"
    (folder / bad).write_bytes((folder / "3.png").read_bytes())
    rows = [record(number, "FI-8") for number in range(N_IMAGES)]
    rows += [record(50, "FI-8", image=bad), record(51, "T\ud800"), record(52, "FI-8", id="\ud800")]
    write(folder / "records.jsonl", rows)
    status, _, error = build(capsys, folder, teacher.url, "--image-paths")
    assert status == 0, error
    rejected = lines(folder / "out" / "rejected.jsonl")
    assert [(row["reason"], row["where"].rpartition(":")[2]) for row in rejected] == [
        ("not_unicode", str(N_IMAGES + place)) for place in (1, 2, 3)
    ]
    assert json.loads((folder / "out" / "stats.json").read_text())["rejected"] == {
        "not_unicode": {"FI-8": 2, "T\ud800": 1}
    }
    assert "T\\ud800" in (folder / "out" / "README.md").read_text()


def test_an_answer_that_is_no_unicode_is_kept_as_an_escape(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher.reply = lambda text, before: explain(text, before).replace("What context", "What \ud800 context")
    status, _, error = build(capsys, folder, teacher.url)
    assert status == 0, error
    assert "\ud800" in lines(folder / "out" / "stage1.jsonl")[0]["messages"][-1]["content"]


def test_a_sample_that_is_the_chain_of_several_images_is_a_repeat(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(capsys, folder, teacher.url, method="agreement")[0] == 0
    fear = render({name: f"A dark {name} in view." for name in SECTIONS}, "fear")
    waiting = [row for row in read_records(folder / "out" / "stage2_records.jsonl") if row["task"] == "FI-8"]
    sampled = [row | {"samples": [fear] * 4} for row in waiting]
    write(folder / "samples.jsonl", sampled)
    flags = ["--samples", str(folder / "samples.jsonl")]
    assert build(capsys, folder, teacher.url, *flags, method="agreement")[0] == 0
    assert len(lines(folder / "out" / "stage2.jsonl")) == 1
    counts = json.loads((folder / "out" / "stats.json").read_text())["rejected"]
    assert counts == {"not_sampled": {"FI-2": 12}, "repeated_reasoning": {"FI-8": len(waiting) - 1}}
    write(folder / "samples.jsonl", [row | {"samples": fear} for row in waiting])
    status, _, error = build(capsys, folder, teacher.url, *flags, method="agreement")
    assert status == 2 and "samples is not a list of texts" in error


def test_the_rows_read_are_all_of_them_whatever_limit_draws(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = lines(folder / "records.jsonl")
    write(folder / "records.jsonl", [*rows, record(1, "FI-8", id="no", ground_truth=None)])
    assert build(capsys, folder, teacher.url, "--limit", "30")[0] == 0
    stats = json.loads((folder / "out" / "stats.json").read_text())
    assert (stats["rows_read"], stats["rows_drawn"]) == (81, 30)
    assert sum(sum(counts.values()) for counts in stats["kept"].values()) == 30
    card = (folder / "out" / "README.md").read_text()
    assert "81 rows were read, of which --limit drew 30. Left out" in card


def test_too_little_memory_ends_the_build_and_is_not_the_image(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    status, _, error = build(capsys, folder, teacher.url)
    assert status == 2 and re.match(r"error: \S+\.png: not enough memory .* fewer --threads", error)
    out = folder / "out"
    assert not (out / "rejected.jsonl").exists() and lines(out / "known_images.jsonl") == []
    monkeypatch.undo()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # And while the teacher is asked, of which nothing is kept either.
    monkeypatch.setattr(vec_cot_prompt, "data_url", no_memory)
    status, _, error = build(capsys, folder, teacher.url)
    assert status == 2 and error.startswith("error: not enough memory; give fewer --threads"), error
    assert lines(out / "raw_answers.jsonl") == []


@pytest.mark.parametrize("key", ["sk-SECRETSECRET1\nsk-SECRETSECRET2", "sk-SECRETSECRET1 x", "sk-SECRETé"])
def test_a_key_that_no_request_can_hold_is_told_and_not_repeated(
    folder: Path,
    teacher: ChatServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    status, said, error = build(capsys, folder, teacher.url)
    assert status == 2 and f"the environment variable {KEY_VARIABLE} holds no key" in error
    assert "SECRET" not in said + error and teacher.asked == [] and not (folder / "out").exists()


def test_every_row_that_is_left_out_has_its_reason(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty.png").touch()
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    (folder / "cut.png").write_bytes(whole.getvalue()[:800])
    (folder / "text.png").write_text("no image")
    # The same picture in another file has to be in the same stage.
    Image.open(folder / "7.png").save(folder / "copy.bmp")
    faults = {
        "image_missing": {"image": "none.png"},
        "image_empty": {"image": "empty.png"},
        "image_truncated": {"image": "cut.png"},
        "not_an_image": {"image": "text.png"},
        "no_truth": {"ground_truth": None},
        "truth_not_a_candidate": {"ground_truth": "joy"},
        "several_images": {"images": ["1.png", "2.png"]},
        "repeated_id": {"id": "FI-8-0"},
    }
    rows = [record(number, "FI-8") for number in range(N_IMAGES)]
    rows += [
        record(number, "FI-8", **{"id": reason} | changes)
        for number, (reason, changes) in enumerate(faults.items())
    ]
    rows += [record(7, "FI-2", image="copy.bmp")]
    write(folder / "records.jsonl", rows)
    assert build(capsys, folder, teacher.url)[0] == 0
    rejected = lines(folder / "out" / "rejected.jsonl")
    assert {row["reason"]: row["where"].rpartition(":")[2] for row in rejected} == {
        reason: str(N_IMAGES + 1 + place) for place, reason in enumerate(faults)
    }
    assert all(row["message"] for row in rejected)
    card = (folder / "out" / "README.md").read_text()
    assert all(f"| {reason} | 1 |" in card for reason in faults)
    stage_of = {
        row["id"]: stage
        for stage in ("stage1", "stage2", "stage3")
        for row in lines(folder / "out" / f"{stage}.jsonl")
    }
    assert stage_of["FI-2-7"] == stage_of["FI-8-7"]


def test_blind_only_the_true_label_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def always_the_first(text: str, before: int) -> str:
        reasoning = {name: f"What {name} says, {before} of {len(text)}." for name in SECTIONS}
        return render(reasoning, "amusement" if "amusement" in text else "positive", 0.7)

    with chat_server(always_the_first) as server:
        flags = ["--blind", "--teacher-prompt", "student", "--filter-stage3"]
        status, _, error = build(capsys, folder, server.url, *flags, method="teacher")
    assert status == 0, error
    # Asked exactly as the student is, with a confidence as the method needs one.
    assert set(server.asked) == {user_prompt(MIKELS_8), user_prompt(POLARITY_2)}
    kept = [row for number in "123" for row in lines(folder / "out" / f"stage{number}.jsonl")]
    assert {row["ground_truth"] for row in kept} == {"amusement", "positive"} and len(kept) == N_IMAGES
    stats = json.loads((folder / "out" / "stats.json").read_text())
    assert stats["rejected"] == {"label_disagrees": {"FI-8": 20, "FI-2": 20}}
    assert stats["stage2_confidence"]["mean"] == 0.7
    assert stats["teacher"]["label_agreement"] == 0.5


def test_agreement_takes_two_calls(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, error = build(capsys, folder, teacher.url, method="agreement")
    assert status == 0, error
    out = folder / "out"
    waiting = read_records(out / "stage2_records.jsonl")
    assert len(waiting) == 24 and "--samples" in said and not (out / "stage2.jsonl").exists()
    assert "<confidence>" not in json.dumps(waiting)
    fear = render({name: f"A dark {name} in view." for name in SECTIONS}, "fear")
    sampled = [
        row | {"samples": [fear] * 3 + [render(dict.fromkeys(SECTIONS, "x"), row["ground_truth"])] * 5}
        for row in waiting[:-1]
    ]
    write(folder / "samples.jsonl", sampled)
    teacher.asked.clear()
    flags = ["--samples", str(folder / "samples.jsonl")]
    assert build(capsys, folder, teacher.url, *flags, method="agreement")[0] == 0
    assert teacher.asked == []
    chats = lines(out / "stage2.jsonl")
    assert {row["id"] for row in chats} == {row["id"] for row in sampled}
    # By hand: 0.5 + 0.5 * 5.5 / 9 = 0.8056.
    assert all(row["messages"][-1]["content"].endswith("<confidence>0.81</confidence>") for row in chats)
    rejected = lines(out / "rejected.jsonl")
    assert [(row["reason"], row["id"]) for row in rejected] == [("not_sampled", waiting[-1]["id"])]


def test_too_many_unanswered_questions_write_nothing(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher.reply = lambda text, before: 500 if before % 4 == 0 else explain(text, before)
    status, _, error = build(capsys, folder, teacher.url)
    assert status == 2 and "questions have no answer; give the same command again" in error
    assert not list((folder / "out").glob("stage*")) and not (folder / "out" / "manifest.json").exists()
    assert {row["reason"] for row in lines(folder / "out" / "rejected.jsonl")} == {"teacher_error"}
    failed = len(lines(folder / "out" / "rejected.jsonl"))
    teacher.asked.clear()
    teacher.reply = lambda text, before: explain(text, before + 1000)
    assert build(capsys, folder, teacher.url)[0] == 0
    assert len(teacher.asked) == failed > 0


def test_an_interrupted_build_asks_only_for_what_is_missing(
    folder: Path, teacher: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def slowly(text: str, before: int) -> str:
        time.sleep(0.1)
        return explain(text, before)

    teacher.reply = slowly
    command = [sys.executable, str(Path(build_vec_cot.__file__)), *arguments(folder, teacher.url)]
    raw = folder / "out" / "raw_answers.jsonl"
    process = subprocess.Popen([*command, "--concurrency", "2"], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (raw.exists() and raw.read_text().count("\n") >= 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.endswith("interrupted: the same command continues\n")
    assert "Traceback" not in said
    n_answered = len(lines(raw))
    assert 5 <= n_answered < 72 and not (folder / "out" / "stage1.jsonl").exists()
    teacher.asked.clear()
    teacher.reply = lambda text, before: explain(text, before + 1000)
    assert build(capsys, folder, teacher.url)[0] == 0
    assert len(teacher.asked) == 72 - n_answered


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--records", "none.jsonl"], "none.jsonl: cannot be read"),
        (["--teacher-prompt", "student"], "--teacher-prompt student: it cannot tell the label"),
        (["--teacher-prompt", "none.txt"], "--teacher-prompt none.txt: cannot be read"),
        (["--teacher-url", "http://me:secret@host/v1"], "--teacher-url: give http"),
        (["--teacher-url", "http://:secret@host/v1"], "--teacher-url: give http"),
        (["--teacher-url", "http://127.0.0.1:abc/v1"], "--teacher-url: give http"),
        (["--teacher-url", "host:8000"], "--teacher-url: give http"),
        (["--output-dir", "a\udcff"], "--output-dir 'a\\udcff': not UTF-8"),
        (["--image-paths", "--image-root", "a\udcff"], "--image-root '"),
        (["--samples", "x.jsonl"], "only --confidence-method agreement reads them"),
        (["--stage-shares", "0.6", "0.3", "0.3"], "give three shares that sum to 1"),
        (["--constant", "80"], "give a confidence between 0 and 1"),
        (["--request-json", '{"n": 2}'], "give an object without"),
        (["--request-json", "{"], "not JSON"),
        (["--concurrency", "0"], "give more than 0"),
        (["--leak-patterns", "none.txt"], "none.txt: cannot be read"),
        (["--image-root", "/no/where"], "image_missing 80"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    status, _, error = build(capsys, folder, "http://127.0.0.1:9/v1", *flags)
    assert status == 2 and error.startswith("error: ") and message in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("mode", "text", "message"),
    [
        ("--given-label", "Of {candidates}?", "no {label} in it"),
        ("--blind", "{label} of {candidates}?", "a {label} in it"),
        ("--blind", "Which?", "no {candidates} in it"),
    ],
)
def test_a_prompt_has_to_fit_the_mode(
    folder: Path, capsys: pytest.CaptureFixture[str], mode: str, text: str, message: str
) -> None:
    (folder / "prompt.txt").write_text(text)
    flags = [] if mode == "--given-label" else ["--blind", "--teacher-prompt", str(folder / "prompt.txt")]
    status, _, error = build(capsys, folder, "http://127.0.0.1:9/v1", *flags)
    assert status == 2 and message in error
