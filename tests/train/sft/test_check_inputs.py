"""The check before a fine-tuning run: a bad row is counted by its reason, listed and left out, or refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "train" / "sft" / "check_inputs.py"
MINI = ROOT / "models" / "EmoCaliber-mini"
SETTINGS = ROOT / "train" / "settings" / "stage1_mini.yaml"
SECTIONS = "<element>a</element><human>b</human><context>c</context><interaction>d</interaction>"
ANSWER = f"<think>{SECTIONS}<analysis>e</analysis></think><answer>awe</answer>"
QUESTION = "<image>Choose the most likely one from ['awe', 'fear']."


def chat(answer: str = ANSWER, question: str = QUESTION, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": ["a.jpg"]} | fields


def check(
    folder: Path, rows: list[Any], *, model: str = str(MINI), stage: str = "1", **variables: str
) -> subprocess.CompletedProcess[str]:
    Image.new("RGB", (200, 150), "red").save(folder / "a.jpg")
    data = folder / "rows.jsonl"
    data.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    command = [sys.executable, str(SCRIPT), "--model", model, "--dataset", str(data), "--stage", stage]
    command += ["--settings", str(SETTINGS), "--output-dir", str(folder / "out")]
    environment = os.environ | {"PREFLIGHT": "rows", "CUDA_VISIBLE_DEVICES": ""} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def rejected(folder: Path) -> dict[str, str]:
    """Line number -> reason."""
    lines = (folder / "out" / "rejected_rows.jsonl").read_text().splitlines()
    return {row["where"].rpartition(":")[2]: row["reason"] for row in map(json.loads, lines)}


def said(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    return result.stderr


def test_good_rows_leave_no_file(tmp_path: Path) -> None:
    result = check(tmp_path, [chat(), chat()])
    assert result.returncode == 0, result.stderr
    assert "2 of 2 rows to train on, 1 images" in result.stdout
    assert not (tmp_path / "out").exists()


BAD: dict[str, list[tuple[Any, str]]] = {
    "": [
        ("{nonsense", "not_json"),
        ('"\ud800"'.encode("utf-8", "surrogatepass").decode("latin-1"), "no_chat"),
        ({"messages": chat()["messages"][:1], "images": ["a.jpg"]}, "no_chat"),
        ({"messages": ["a"]}, "no_chat"),
        (chat(answer=""), "no_chat"),
        (chat(images=[]), "images_unnamed"),
        (chat(images="b.jpg"), "image_missing"),
        (chat(images=[{"path": "b.jpg"}]), "image_missing"),
        (chat(images=["rows.jsonl"]), "image_unreadable"),
        (chat(images=["cut.jpg"]), "image_unreadable"),
    ],
    "1": [
        (chat("<answer>awe</answer>"), "sections_missing"),
        (chat(ANSWER.replace("<human>b", "<human>")), "sections_missing"),
        (chat(ANSWER.replace(SECTIONS, SECTIONS + SECTIONS)), "sections_malformed"),
        (chat(ANSWER.removesuffix("</answer>")), "answer_cut_off"),
        (chat(ANSWER.replace("<answer>awe</answer>", "awe")), "no_answer"),
        (chat(ANSWER.replace("awe", "joy")), "answer_not_a_candidate"),
        (chat(ANSWER.replace("awe", "awe or fear")), "answer_ambiguous"),
        (chat(ANSWER, "<image>Which?", candidates=["joy", "fear"]), "answer_not_a_candidate"),
        (chat(ANSWER, "<image>Which?", task="FI-2"), "answer_not_a_candidate"),
    ],
    "2": [
        (chat(), "confidence_missing"),
        (chat(f"{ANSWER}<confidence>high</confidence>"), "confidence_not_a_number"),
        (chat(f"{ANSWER}<confidence>1.5</confidence>"), "confidence_out_of_range"),
        (chat(f"{ANSWER}<confidence>-1</confidence>"), "confidence_out_of_range"),
    ],
}


@pytest.mark.parametrize("stage", BAD)
def test_a_bad_row_is_listed_and_left_out(tmp_path: Path, stage: str) -> None:
    whole = tmp_path / "whole.jpg"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:900])
    good = chat(f"{ANSWER}<confidence>0.85</confidence>")
    bad = [row for row, _ in BAD[stage]]
    result = check(tmp_path, [good, *bad, good], stage=stage, MAX_BAD_SHARE="0.95")
    assert result.returncode == 0, result.stderr
    assert rejected(tmp_path) == {str(line): reason for line, (_, reason) in enumerate(BAD[stage], start=2)}
    assert f"{len(bad)} of {len(bad) + 2} rows cannot be trained on (" in result.stderr
    kept = (tmp_path / "out" / "dataset.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == [good, good]


def test_too_many_bad_rows_refuse_the_run(tmp_path: Path) -> None:
    rows = [chat()] * 97 + [chat(images=["b.jpg"])] * 2 + [chat("awe")]
    message = said(check(tmp_path, rows))
    assert "3 of 100 rows cannot be trained on (2 image_missing, 1 sections_missing)" in message
    assert "MAX_BAD_SHARE (now 0.01)" in message
    assert rejected(tmp_path) == {"98": "image_missing", "99": "image_missing", "100": "sections_missing"}
    assert not (tmp_path / "out" / "dataset.jsonl").exists()
    assert check(tmp_path, rows, MAX_BAD_SHARE="0.03").returncode == 0
    # What an earlier check left does not outlive its reason.
    assert check(tmp_path, [chat()]).returncode == 0
    assert list((tmp_path / "out").iterdir()) == []


def test_forms_that_ms_swift_takes_are_taken(tmp_path: Path) -> None:
    unmarked = chat(question="Which?", images="a.jpg")
    images: list[Any] = [[{"path": "a.jpg"}], [{"bytes": "AAAA"}], ["http://localhost/a.jpg"]]
    listed = [{"type": "image"}, {"type": "text", "text": "Which?"}]
    items = chat() | {"messages": [{"role": "user", "content": listed}, chat()["messages"][1]]}
    result = check(tmp_path, [unmarked, items, *(chat(images=form) for form in images)])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("model", ["./nowhere", "nowhere", "/no/where/at/all"])
def test_a_model_folder_that_is_not_there(tmp_path: Path, model: str) -> None:
    assert f"error: {model}: no such model folder" in said(check(tmp_path, [chat()], model=model))


@pytest.mark.parametrize("absent", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_folder_that_is_not_whole(tmp_path: Path, absent: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(MINI, model)
    (model / absent).unlink()
    assert "give a complete checkpoint as MODEL" in said(check(tmp_path, [chat()], model=str(model)))


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MINI, model)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-2.safetensors is missing" in said(check(tmp_path, [chat()], model=str(model)))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(MINI, model)
    (model / "config.json").write_text('{"model_type": "llama"}')
    assert "a llama, not a qwen2_5_vl" in said(check(tmp_path, [chat()], model=str(model)))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("NEEDED_DISK_GB", "1e9", "GiB free"),
        ("NEEDED_MEMORY_GB", "1e9", "GiB of memory available"),
    ],
)
def test_a_machine_that_is_too_small(tmp_path: Path, variable: str, value: str, message: str) -> None:
    refusal = said(check(tmp_path, [chat()], **{variable: value}))
    assert message in refusal and f"set {variable}" in refusal


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("N_GPU", "two"),
        ("MAX_BAD_SHARE", "1 %"),
        ("MAX_DECODED_IMAGES", "-1"),
        ("NEEDED_DISK_GB", "much"),
        ("NEEDED_MEMORY_GB", "nan"),
        ("IMAGE_ROOT", "/no/where"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(tmp_path: Path, variable: str, value: str) -> None:
    assert said(check(tmp_path, [chat()], **{variable: value})).startswith(f"error: {variable}={value}: ")


def test_gpus_are_counted(tmp_path: Path) -> None:
    """A driver's tool that lists two stands in for GPUs."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "0\\n1\\n"\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:{os.environ['PATH']}"
    assert "N_GPU=3, but 2 GPUs are here" in said(check(tmp_path, [chat()], PATH=path, N_GPU="3"))
    assert check(tmp_path, [chat()], PATH=path, N_GPU="1").returncode == 0


def test_no_rows(tmp_path: Path) -> None:
    assert "no rows" in said(check(tmp_path, []))


def test_no_file(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--model", str(MINI), "--dataset", str(tmp_path / "none.jsonl")]
    command += ["--settings", str(SETTINGS), "--output-dir", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "none.jsonl: cannot be read (No such file or directory)" in said(result)


@pytest.mark.slow
def test_tokens_are_counted_by_the_real_processor(tmp_path: Path) -> None:
    """A row of 200 x 150 pixels has 12 image tokens, one of 512 tokens is the longest that may be."""
    many = chat(images=["a.jpg"] * 22, question="<image>" * 22 + "Which?", candidates=["awe"])
    long = chat(ANSWER.replace("<element>a", "<element>" + " 1" * 600))
    flat = chat(images=["flat.png"])
    Image.new("RGB", (3000, 10)).save(tmp_path / "flat.png")
    rows = [chat(), many, long, flat, *[chat()] * 6]
    result = check(tmp_path, rows, MAX_BAD_SHARE="0.3", PREFLIGHT="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert rejected(tmp_path) == {"2": "image_tokens_over_limit", "3": "too_long", "4": "image_unreadable"}
    assert "a batch of" in result.stdout and "of 512 tokens" in result.stdout
    details = (tmp_path / "out" / "rejected_rows.jsonl").read_text()
    assert "264 of at most 256" in details and "tokens of at most 512" in details


@pytest.mark.slow
def test_a_processor_that_does_not_fit_the_model_stops_the_run(tmp_path: Path) -> None:
    """It makes other image tokens than the model merges its patches into, and no error."""
    model = tmp_path / "model"
    shutil.copytree(MINI, model)
    processor = (model / "processor_config.json").read_text()
    (model / "processor_config.json").write_text(processor.replace('"merge_size": 2', '"merge_size": 1'))
    message = said(check(tmp_path, [chat()], model=str(model), PREFLIGHT=""))
    assert "image tokens where its images make 12 within 3136 to 12544 pixels" in message
