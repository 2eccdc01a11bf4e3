"""A VEC-CoT for real: EmoCaliber-mini behind vLLM's own server as the teacher, then one step of ms-swift."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_server import MINI, stop, vllm_server

from emocaliber.records import read_records
from emocaliber.response import parse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of the mini model's server, and its process."""
    with vllm_server(tmp_path / "server.log") as served:
        yield served


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(*command: str | Path, **variables: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


def test_a_model_teaches_and_ms_swift_trains_on_it(
    tmp_path: Path, served: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, process = served
    data, out = tmp_path / "mini", tmp_path / "cot"
    run(sys.executable, ROOT / "data" / "build_mini.py", "--output-dir", data, "--n-test", "5")
    build = [sys.executable, ROOT / "data" / "build_vec_cot.py", "--records", data / "test.jsonl"]
    build += ["--output-dir", out, "--teacher-url", url, "--teacher-model", MINI.name, "--blind"]
    build += ["--teacher-prompt", "student", "--temperature", "0", "--max-tokens", "256"]
    build += ["--confidence-method", "teacher", "--max-errors", "0", "--timeout-s", "300"]
    run(*build)

    records = {row["id"]: row for row in read_records(data / "test.jsonl")}
    answers = {row["id"]: row for row in lines(out / "raw_answers.jsonl")}
    in_stage3 = {row["id"] for row in lines(out / "stage3.jsonl")}
    assert answers.keys() == records.keys() - in_stage3 and all("answer" in row for row in answers.values())
    # It answered about the pictures: a guess would be right in 9 of 45 rows, and fewer are asked about.
    right = {
        identity
        for identity, row in answers.items()
        if parse(row["answer"], records[identity]["candidates"]).label == records[identity]["ground_truth"]
    }
    assert len(right) >= 15
    assert all(row["tokens_in"] > 20 and row["tokens_out"] > 20 for row in answers.values())
    chats = [*lines(out / "stage1.jsonl"), *lines(out / "stage2.jsonl")]
    reasons = {row["id"]: row["reason"] for row in lines(out / "rejected.jsonl")}
    assert {row["id"] for row in chats} <= right
    assert reasons.keys() | {row["id"] for row in chats} == answers.keys()
    assert {identity for identity, reason in reasons.items() if reason == "label_disagrees"} == (
        answers.keys()
        - right
        - {identity for identity, reason in reasons.items() if reason != "label_disagrees"}
    )

    stop(process)
    before = (out / "stage1.jsonl").read_bytes()
    run(*build)  # asks for nothing: there is nobody to ask
    assert (out / "stage1.jsonl").read_bytes() == before

    sft = [
        "bash",
        ROOT / "train" / "sft" / "swift_sft.sh",
        ROOT / "train" / "settings" / "stage1_mini.yaml",
        MINI,
    ]
    sft += [out / "stage1.jsonl", tmp_path / "sft", "--max_steps", "1", "--logging_steps", "1"]
    run(*sft, "--per_device_train_batch_size", "4", STAGE="1", IMAGE_ROOT=str(data), EMOCALIBER_DEVICE="cpu")
    logged = lines(tmp_path / "sft" / "logging.jsonl")
    assert any(row.get("global_step/max_steps") == "1/1" and row["loss"] > 0 for row in logged)
    assert (tmp_path / "sft" / "final" / "model.safetensors").is_file()
