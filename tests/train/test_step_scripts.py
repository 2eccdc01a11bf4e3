"""Both training scripts, from nothing to a stage-2 model, a few steps each, on the real ms-swift and vLLM."""

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from emocaliber.jsonl import read_jsonl
from emocaliber.response import SECTIONS, parse
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables |= {"OUTPUT_ROOT": str(folder / "output"), "MINI_DATA": str(folder / "data"), "N_TRAIN": "60"}
    command = ["bash", str(ROOT / "train" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, check=False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def named(row: dict[str, Any]) -> list[str]:
    labels = [parse(sample, row["candidates"]).label for sample in row["samples"]]
    return [label for label in labels if label is not None]


def path_with_nvidia_smi(folder: Path, body: str) -> str:
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    return f"{tool.parent}:{os.environ['PATH']}"


def targets_module() -> Any:
    spec = spec_from_file_location("targets", ROOT / "data" / "build_confidence_targets.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("step1_example.sh", {"SIZE": "7b_8gpu"}, "error: SIZE=7b_8gpu needs MODEL"),
        ("step1_example.sh", {"MODEL": "owner/name"}, "error: SIZE=7b_8gpu needs MODEL"),
        ("step2_example.sh", {}, "run train/step1_example.sh first"),
        ("step2_example.sh", {"SIZE": "3b_2gpu"}, "run train/step1_example.sh first"),
        ("step2_example.sh", {"MODEL": "owner/name"}, "error: SIZE=7b_8gpu needs DATASET"),
    ],
)
def test_what_is_missing_is_said_at_once(
    tmp_path: Path, script: str, variables: dict[str, str], message: str
) -> None:
    result = run(script, tmp_path, **variables)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", ["7b_8gpu", "7b_lora_1gpu", "3b_2gpu"])
def test_a_size_chooses_settings_output_and_gpus(tmp_path: Path, size: str) -> None:
    """Up to the check of its GPUs, of which the driver lists one: as many as it names are asked for."""
    path = path_with_nvidia_smi(tmp_path, 'test "$1" = -L || echo "0, 81000"')
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    variables = {"SIZE": size, "MODEL": str(ROOT / "models" / "EmoCaliber-mini"), "EMOCALIBER_DEVICE": "cpu"}
    variables |= {"DATASET": str(tmp_path / "rows.jsonl"), "PATH": path}
    result = run("step1_example.sh", tmp_path, **variables)
    assert result.returncode == 2
    gpus = int(size.rpartition("_")[2].removesuffix("gpu"))
    if gpus > 1:
        assert f"error: N_GPU={gpus}, but 1 GPUs are here" in result.stderr
    else:  # goes on to the rows
        assert f"listed in {tmp_path / 'output' / 'stage1' / 'rejected_rows.jsonl'}" in result.stderr


def test_a_real_size_without_a_gpu_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    variables = {"MODEL": str(ROOT / "models" / "EmoCaliber-mini"), "DATASET": str(tmp_path / "rows.jsonl")}
    variables |= {"SIZE": "7b_lora_1gpu", "EMOCALIBER_DEVICE": "cpu"}
    variables["PATH"] = path_with_nvidia_smi(tmp_path, "exit 9")
    result = run("step1_example.sh", tmp_path, **variables)
    assert result.returncode == 2
    assert "error: no GPU is here, these settings are for 1; take SIZE=mini" in result.stderr


def test_a_dataset_that_is_given_is_trained_on_and_never_written(tmp_path: Path) -> None:
    """Also where SIZE is forgotten, so that it is mini: nothing is sampled. A stand-in says the data."""
    package = tmp_path / "stubs" / "swift" / "cli"
    package.mkdir(parents=True)
    for name, text in (("../__init__", ""), ("__init__", ""), ("main", "import sys; print(*sys.argv)")):
        (package / f"{name}.py").write_text(text)
    (tmp_path / "output" / "stage1").mkdir(parents=True)
    (tmp_path / "output" / "stage1" / "final").symlink_to(ROOT / "models" / "EmoCaliber-mini")
    think = "".join(f"<{name}>a</{name}>" for name in SECTIONS)
    answer = f"<think>{think}</think><answer>awe</answer><confidence>0.5</confidence>"
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}]
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"messages": messages, "candidates": ["awe", "fear"]}) + "\n")
    before = mine.read_bytes()
    variables = {"PYTHONPATH": str(package.parents[1]), "EMOCALIBER_PYTHON": sys.executable}
    variables |= {"EMOCALIBER_DEVICE": "cpu", "PREFLIGHT": "rows", "DATASET": str(mine)}
    variables["MODEL"] = ""  # as if unset: the size is mini's
    result = run("step2_example.sh", tmp_path, **variables)
    assert f"--dataset {mine} " in result.stdout, result.stderr
    assert mine.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["stage1", "stage2"]


@pytest.mark.slow
def test_mini_from_nothing_to_a_stated_confidence(tmp_path: Path) -> None:
    first = run("step1_example.sh", tmp_path, "--max_steps", "2", WARMUP_STEPS="2")
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]

    # What a stage 1 of two steps says is noise, and which rows of it name a label hangs on the last digits of
    # the weights, so on the processor: the chats have to follow from the samples, whatever these are.
    second = run("step2_example.sh", tmp_path, "--max_steps", "2", N_SAMPLES="8")
    assert second.returncode == 0, second.stdout[-3000:] + second.stderr[-3000:]
    sampled = rows_of(tmp_path / "output" / "stage1_samples" / "predictions.jsonl")
    chains = rows_of(tmp_path / "data" / "train_stage2.jsonl")
    assert [row["id"] for row in sampled] == [row["id"] for row in chains] and len(chains) > 10
    assert all(len(row["samples"]) == 8 for row in sampled)
    votes = {row["id"]: Counter(labels) for row in sampled if (labels := named(row))}
    chats = {row["id"]: row for row in rows_of(tmp_path / "output" / "train_stage2_chat.jsonl")}
    assert list(chats) == list(votes)
    targets = targets_module()
    for identity, chat in chats.items():
        parsed = parse(chat["messages"][-1]["content"], TASKS[chat["task"]].labels)
        assert votes[identity][parsed.label] == max(votes[identity].values())
        assert parsed.confidence is not None
        assert parsed.confidence == targets.target_confidence(votes[identity][parsed.label], 8)

    again = run("step2_example.sh", tmp_path, N_SAMPLES="8")
    assert again.returncode == 0
    assert "already trained" in again.stdout
    check_results(tmp_path / "output")
    check_answers(tmp_path)


def check_results(output: Path) -> None:
    """Each stage changed most of the weights and left a model with its card; no hub was asked."""
    chain = [output / "base", *(output / part / "final" for part in ("warmup", "stage1", "stage2"))]
    weights = [load_file(folder / "model.safetensors") for folder in chain]
    for before, after in pairwise(weights):
        assert before.keys() == after.keys()
        assert sum(not np.array_equal(before[name], after[name]) for name in after) > 0.9 * len(after)
    for part in ("stage1", "stage2"):
        card = (output / part / "final" / "README.md").read_text()
        assert "| Steps | 2 |" in card and str(output) not in card and str(ROOT) not in card
        log = (output / part / "train.log").read_text()
        assert "global_step/max_steps': '2/2'" in log and "listing failed" not in log


def check_answers(folder: Path) -> None:
    """vLLM reads the stage-2 model; what a model of two steps says does not matter."""
    rows = folder / "rows.jsonl"
    rows.write_text("".join((folder / "data" / "train_stage3.jsonl").read_text().splitlines(True)[:4]))
    command = [sys.executable, str(ROOT / "inference" / "infer.py"), "--data", str(rows)]
    command += ["--checkpoint", str(folder / "output" / "stage2" / "final"), "--max-new-tokens", "32"]
    command += ["--image-root", str(folder / "data"), "--output-dir", str(folder / "answers")]
    command += ["--min-pixels", "3136", "--max-pixels", "12544"]
    answered = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answered.returncode == 0, answered.stderr[-3000:]
    assert all("response" in row for row in rows_of(folder / "answers" / "predictions.jsonl"))
