"""Every file that the repository reads is known by its content, and every fault is told with its line."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import Result, run
from PIL import Image

from data import build_mini, build_rl_parquet
from data import validate as script
from data.validation import kinds as file_kinds
from emocaliber.prompts import conversation, training_chat, user_prompt
from emocaliber.response import SECTIONS, render
from emocaliber.reward_log import reward_and_log

ROOT = Path(__file__).parents[2]
LABELS = ["amusement", "awe", "fear"]
CHAIN = dict.fromkeys(SECTIONS, "something")


def validate(*arguments: object) -> Result:
    return run(script.main, *map(str, arguments))


def faults(path: Path, *arguments: object) -> list[tuple[int, str]]:
    """(line, reason) of every fault of a file of JSON lines."""
    report = path.with_name("faults.jsonl")
    result = validate(path, "--report", report, *arguments)
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert result.returncode == int(bool(rows)), result
    return [(int(re.fullmatch(rf"{path}:(\d+)( \(.*\))?", row["where"])[1]), row["reason"]) for row in rows]  # type: ignore[index]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"row-{number}",
        "image": f"{number}.png",
        "conversations": conversation(f"{number}.png", LABELS),
        "task": "EmoSet-8",
        "ground_truth": LABELS[number % 3],
        "candidates": LABELS,
    }
    return row | changes


def chat(answer: str | None = None, *, confidence: float | None = None, **changes: Any) -> dict[str, Any]:
    question = user_prompt(LABELS, with_confidence=confidence is not None)
    written = render(CHAIN, "awe", confidence) if answer is None else answer
    return {"task": "FI-8", "ground_truth": "awe", **training_chat("0.png", question, written), **changes}


def rl_chat(number: int, **changes: Any) -> dict[str, Any]:
    row = chat() | {"id": f"row-{number}", "candidates": LABELS}
    return row | {"messages": row["messages"][:-1]} | changes


def rollout(path: Path) -> None:
    for text in (render(CHAIN, "awe", 0.8), "nothing"):
        reward_and_log(
            text, "awe", LABELS, reward="brier", log=path, row={"id": "a", "task": "FI-8", "step": 1}
        )


def test_the_names_of_kinds_agree() -> None:
    assert set(script.KIND_NAMES) == set(file_kinds.KINDS)
    assert set(file_kinds.CHECKS) == set(file_kinds.KINDS) - {"std_json", "metadata_csv"}


def test_every_kind_is_known_by_its_content(tmp_path: Path) -> None:
    std = {"a": {"image_path": "a.png", "prompt": "Which?", "ground_truth": "positive", "other_info": {}}}
    std["a"]["other_info"] = {"candidates": ["positive", "negative"], "task": "FI-2"}
    files = {
        "records": [record(0), record(1)],
        "predictions": [
            record(0, error={"type": "E", "message": "m"}),
            record(1, response=render(CHAIN, "awe", 0.5)),
        ],
        "captions": [training_chat("0.png", "Describe the image.", "a dog")],
        "stage1_chats": [chat()],
        "stage2_chats": [chat(confidence=0.5)],
        "rl_chats": [rl_chat(0), rl_chat(1)],
        "left_out": [{"where": "a:1", "reason": "no_truth", "detail": ""}],
        "std_json": [std],
    }
    for kind, rows in files.items():
        write(tmp_path / kind, rows)
    (tmp_path / "metadata_csv.csv").write_text("split,label,task,image_path\ntest,positive,FI-2,a.png\n")
    rollout(tmp_path / "reward_log")
    for kind in (*files, "reward_log", "metadata_csv.csv"):
        result = validate(tmp_path / kind)
        assert result.returncode == 0, result
        said = file_kinds.KINDS[kind.removesuffix(".csv")]
        assert result.stdout.startswith(f"{tmp_path / kind}: {said}; "), result.stdout
        assert result.stdout.endswith("nothing is wrong\n") and result.stderr == ""
    with gzip.open(tmp_path / "packed", "wt") as file:
        file.write((tmp_path / "stage1_chats").read_text())
    assert "stage 1" in validate(tmp_path / "packed").stdout


def test_what_the_repository_itself_makes_is_right(tmp_path: Path) -> None:
    assert run(build_mini.main, "--output-dir", tmp_path, "--n-test", 2).returncode == 0
    assert run(build_mini.main, "--output-dir", tmp_path, "--split", "train", "--n-train", 60).returncode == 0
    made = ("--records", tmp_path / "train_stage3.jsonl", "--output", tmp_path / "rl.parquet")
    assert run(build_rl_parquet.main, *made, "--chats", tmp_path / "chats.jsonl").returncode == 0
    files = sorted([*tmp_path.glob("*.jsonl"), tmp_path / "rl.parquet"])
    result = validate(*files, "--check-images")
    assert result.returncode == 0, result
    found = re.findall(r"^/.*/(\S+): (.*);", result.stdout, re.MULTILINE)
    kinds = {
        "chats.jsonl": "rl_chats",
        "rl.parquet": "verl_parquet",
        "test.jsonl": "records",
        "test_scenes.jsonl": "scenes",
        "train_captions.jsonl": "captions",
        "train_stage1.jsonl": "stage1_chats",
        "train_stage2.jsonl": "records",
        "train_stage3.jsonl": "records",
    }
    assert dict(found) == {name: file_kinds.KINDS[kind] for name, kind in kinds.items()}


def test_every_fault_of_records_and_predictions_is_told(tmp_path: Path) -> None:
    bad: list[tuple[Any, list[str]]] = [
        (record(1), []),
        (record(2, id="row-1"), ["repeated_id"]),
        (record(3, task="", ground_truth="joy"), ["no_task", "truth_not_a_candidate"]),
        (record(4, ground_truth=None), ["no_truth"]),
        (record(5, ground_truth=None, posterior={"awe": 0.5}), ["soft_truth"]),
        (record(6, candidates=["awe", "Awe"]), ["candidates"]),
        (record(7, id=1.5), ["bad_id"]),
        (
            record(8, image=None, conversations=[{"role": "user", "content": " "}]),
            ["no_image", "no_question"],
        ),
        ("{", ["not_json"]),
        ("[]", ["not_an_object"]),
        (chat(), ["other_kind"]),
        ({}, ["no_task", "candidates", "no_image", "no_question"]),
        ("", []),
        (record(9), []),
    ]
    path = write(tmp_path / "records.jsonl", [row for row, _ in bad])
    expected = [(line, reason) for line, (_, reasons) in enumerate(bad, 1) for reason in reasons]
    assert faults(path) == expected
    answer = render(CHAIN, "awe", 0.5)
    rows = [
        record(0, response=answer),
        record(1),
        record(2, response=3),
        record(3, error="failed"),
        record(4, error={"type": "E", "message": "m"}),
        record(5, response="?"),
        record(6, samples=[answer, 1]),
    ]
    path = write(tmp_path / "predictions.jsonl", rows)
    assert faults(path) == [(2, "not_answered"), (3, "bad_response"), (4, "bad_error"), (7, "bad_samples")]
    assert (
        "answered 2, with a confidence 2, failed or not answered 4, unparsed (no_answer) 1"
        in validate(path).stdout
    )


def test_every_fault_of_chats_is_told(tmp_path: Path) -> None:
    right = render(CHAIN, "awe")
    rows: list[tuple[dict[str, Any], list[str]]] = [
        (chat(), []),
        (chat(render(CHAIN, "fear")), ["answer_not_truth"]),
        (chat(render(CHAIN, "joy")), ["answer"]),
        (chat(right.replace("<human>something</human>", "")), ["sections"]),
        (chat(right.removesuffix("</answer>")), ["answer"]),
        (chat(right.partition("<answer>")[0]), ["answer"]),
        (chat(images=[]), ["no_image"]),
        (chat(images=["a.png", "b.png"]), ["bad_images"]),
        (chat(messages=[]), ["no_chat"]),
        (chat(messages=chat()["messages"][:2]), ["no_chat"]),
        (chat(messages=[{"role": "user", "content": ""}, *chat()["messages"][1:]]), ["no_chat"]),
    ]
    path = write(tmp_path / "stage1.jsonl", [row for row, _ in rows])
    assert faults(path) == [(line, reason) for line, (_, reasons) in enumerate(rows, 1) for reason in reasons]
    stated = [
        (chat(confidence=0.85), []),
        (chat(render(CHAIN, "fear", 0.5)), []),
        (chat(), ["confidence"]),
        (chat(right + "<confidence>high</confidence>"), ["confidence"]),
        (chat(right + "<confidence>85</confidence>"), ["confidence"]),
    ]
    path = write(tmp_path / "stage2.jsonl", [row for row, _ in stated])
    assert faults(path) == [
        (line, reason) for line, (_, reasons) in enumerate(stated, 1) for reason in reasons
    ]
    asked: list[tuple[dict[str, Any], list[str]]] = [
        (rl_chat(0), []),
        (rl_chat(0), ["repeated_id"]),
        (rl_chat(2, ground_truth="joy"), ["truth_not_a_candidate"]),
        (rl_chat(3, candidates=None), ["candidates"]),
        (rl_chat(4, task=None), ["no_task"]),
        (rl_chat(5, messages=chat()["messages"]), ["no_chat"]),
    ]
    path = write(tmp_path / "rl.jsonl", [row for row, _ in asked])
    assert faults(path) == [
        (line, reason) for line, (_, reasons) in enumerate(asked, 1) for reason in reasons
    ]


def test_the_reward_log_and_the_published_layouts(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    rollout(log)
    row = json.loads(log.read_text().splitlines()[0])
    write(log, [row, row | {"brier": None}, row | {"response": None}, json.dumps(row)[:-9]])
    assert faults(log) == [(2, "not_a_rollout"), (3, "not_a_rollout"), (4, "not_json")]
    table = tmp_path / "test_metadata.csv"
    table.write_text("path,task,label,split\na.png,FI-2,positive,test\nb.png,FI-2,joy,test\nc.png,FI-2\n")
    assert validate(table).returncode == 2
    assert faults(table, "--column", "image_path=path") == [
        (3, "truth_not_a_candidate"),
        (4, "wrong_columns"),
    ]
    std = tmp_path / "Std-VECBench.json"
    entry = {"image_path": "a.png", "prompt": "Which?", "ground_truth": "joy"}
    entry = entry | {"other_info": {"candidates": ["joy", "fear"], "task": "FI-2"}}
    std.write_text(json.dumps({"a": entry, "b": {}}, indent=0))
    line = std.read_text().splitlines().index('"b": {}') + 1
    assert faults(std) == [(2, "candidates_differ"), (2, "label_not_in_taxonomy"), (line, "no_image")]


def test_parquet_is_read_by_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "records.jsonl", [record(0), record(1)])
    for number in range(2):
        Image.effect_noise((64, 64), 50).save(tmp_path / f"{number}.png")
    path = tmp_path / "rl.parquet"
    assert (
        run(build_rl_parquet.main, "--records", tmp_path / "records.jsonl", "--output", path).returncode == 0
    )
    rows = pq.read_table(path).to_pylist()
    rows[1]["reward_model"]["ground_truth"] = "joy"
    rows[1]["images"][0]["bytes"] = rows[1]["images"][0]["bytes"][:900]
    pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), path)
    result = validate(path, "--check-images")
    assert result.returncode == 1, result
    for fault in ("1 truth_not_a_candidate", "1 image_truncated", "1 repeated_id"):
        assert f"  {fault}" in result.stdout
    assert f"{path}: row 2: image 1 of the row" in result.stdout and "images decoded 2" in result.stdout
    path.write_bytes(path.read_bytes()[:-8])
    result = validate(path)
    assert result.returncode == 2 and "not whole Parquet after row 0" in result.stderr
    pq.write_table(pa.table({"prompt": ["a"]}), path)
    assert "no column 'data_source'" in validate(path).stderr


def test_images_are_decoded_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", [record(0), record(1), record(2), record(0, id="again")])
    (tmp_path / "images").mkdir()
    Image.effect_noise((64, 64), 50).save(tmp_path / "images" / "0.png")
    (tmp_path / "images" / "1.png").write_bytes((tmp_path / "images" / "0.png").read_bytes()[:900])
    assert faults(path) == []
    assert faults(path, "--check-images") == [(line, "image_missing") for line in (1, 2, 3, 4)]
    found = faults(path, "--check-images", "--image-root", tmp_path / "images")
    assert found == [(2, "image_truncated"), (3, "image_missing")]


def test_what_cannot_be_read_is_an_error_and_the_other_files_are_still_checked(tmp_path: Path) -> None:
    good = write(tmp_path / "records.jsonl", [record(0)])
    files = {"text": "hello\n", "other": '{"a": 1}\n', "empty": "", "table.csv": "a,b\n1,2\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        result = validate(tmp_path / name, good)
        assert result.returncode == 2 and result.stderr.startswith(f"error: {tmp_path / name}: "), result
        assert result.stderr.count("\n") == 1 and "nothing is wrong" in result.stdout
    assert "absent" in validate(tmp_path / "absent").stderr
    assert validate(good, "--column", "x=y").returncode == 2
    for name in ("error.jsonl", "rejected.jsonl", "noted.jsonl"):
        (tmp_path / name).touch()
        assert validate(tmp_path / name).returncode == 0
    assert validate(good, "--kind", "rl_chats").returncode == 1


def test_the_list_of_faults_does_not_replace_a_file_that_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", [record(0)])
    before = path.read_bytes()
    assert validate(path, "--report", tmp_path / "." / "records.jsonl").returncode == 2
    assert path.read_bytes() == before


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(os.urandom(4000)))
    packed[100:140] = bytes(40)
    (tmp_path / "damaged.jsonl.gz").write_bytes(packed)
    (tmp_path / "quote.csv").write_text('"image_path,task\n' + "x" * 200_000)
    for name in ("damaged.jsonl.gz", "quote.csv"):
        result = validate(tmp_path / name)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def test_faults_are_shown_with_line_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "records.jsonl", [record(0), *[record(0) for _ in range(7)]])
    out = validate(path, "--show", 2).stdout.splitlines()
    assert out[0] == f"{path}: records, questions for inference; 8 rows"
    assert out[1:4] == [
        "  EmoSet-8 8",
        "  7 repeated_id: make ids unique",
        f"    {path}:2: id 'row-0' is also that of records.jsonl:1",
    ]
    assert out[5:] == ["    … and 5 more; --show or --report lists them", "  7 faults"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", sorted(file_kinds.CHECKS))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_row_is_so_wrong_that_a_check_fails(kind: str, data: st.DataObject) -> None:
    whole = {
        "verl_parquet": {
            "data_source": "FI-8",
            "prompt": rl_chat(0)["messages"],
            "images": [{"bytes": b""}],
            "reward_model": {"ground_truth": "awe"},
            "extra_info": {"candidates": LABELS},
        },
        "rl_chats": rl_chat(0),
        "scenes": {"id": "a", "scene": {}},
        "reward_log": {"time": 0.0, "score": 1.0, "truth": "awe", "response": ""},
    }
    row = dict(whole.get(kind) or (record(0) if kind in ("records", "predictions") else chat(confidence=0.5)))
    for name in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[name] = data.draw(JSON)
    for reason, message in file_kinds.CHECKS[kind](row):
        assert reason and message and "\n" not in message
    file_kinds.kind_of(row)


def test_names_that_are_no_unicode_are_told(tmp_path: Path) -> None:
    rows = [record(0, image="a\ud800.jpg"), record(1, task="T\ud800")]
    path = write(tmp_path / "records.jsonl", rows)
    status, out, _ = validate(path, "--check-images")
    assert status == 1 and "2 image_missing" in out
    assert "a\\ud800.jpg" in out and "T\\ud800 1" in out


def test_too_little_memory_is_no_fault_of_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    path = write(tmp_path / "records.jsonl", [record(0)])
    with patch.object(Image, "open", side_effect=MemoryError):
        result = validate(path, "--check-images")
    assert result.returncode == 2 and "image_truncated" not in result.stdout
    assert (
        result.stderr
        == f"error: {tmp_path / '0.png'}: not enough memory to read and decode it; free memory\n"
    )
