"""The scripts of training: how they tell their use, what stops them at once, what a size chooses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emocaliber.response import SECTIONS

ROOT = Path(__file__).parents[2]


def run(script: str, folder: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MODEL", "RECORDS", "SIZE")
    }
    variables |= {"OUTPUT_ROOT": str(folder / "output"), "MINI_DATA": str(folder / "data"), "N_TRAIN": "60"}
    command = ["bash", str(ROOT / "train" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, env=environment | variables, check=False)


def path_with_nvidia_smi(folder: Path, body: str) -> str:
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    return f"{tool.parent}:{os.environ['PATH']}"


SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.sh", "*/*.sh")
    for path in (ROOT / "train").glob(pattern)
)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_tells_its_use_and_makes_no_environment(tmp_path: Path, script: str, flag: str) -> None:
    """In a copy without setup_env.sh, and without a Python or a GPU's tool to be found."""
    copy = tmp_path / script
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / script).read_text())
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sed", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    before = sorted(tmp_path.rglob("*"))
    environment = {"PATH": str(tools)}
    command = [str(tools / "bash"), str(copy), flag]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert Path(script).name in told.stdout and "set -euo" not in told.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_every_script_of_the_room_is_tried() -> None:
    assert {"train/step1_example.sh", "train/check_gpu.sh", "train/sft/swift_run.sh"} < set(SCRIPTS)
    assert len(SCRIPTS) == 9


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("step1_example.sh", {"SIZE": "7b_8gpu"}, "error: SIZE=7b_8gpu needs MODEL"),
        ("step1_example.sh", {"MODEL": "owner/name"}, "error: SIZE=7b_8gpu needs MODEL"),
        ("step2_example.sh", {}, "run train/step1_example.sh first"),
        ("step2_example.sh", {"SIZE": "3b_2gpu"}, "run train/step1_example.sh first"),
        ("step2_example.sh", {"MODEL": "owner/name"}, "error: SIZE=7b_8gpu needs DATASET"),
        ("step3_example.sh", {"RL_ENGINE": "trl"}, "RL_ENGINE=trl: give verl or swift"),
        (
            "step3_example.sh",
            {"RL_ENGINE": "swift", "SIZE": "7b_8gpu"},
            "no such settings file for RL_ENGINE=swift SIZE=7b_8gpu",
        ),
        ("step3_example.sh", {"SIZE": "7b_8gpu"}, "SIZE=7b_8gpu needs RECORDS"),
        (
            "step3_example.sh",
            {"SIZE": "7b_8gpu", "RECORDS": "a.jsonl"},
            "run train/step2_example.sh first, or name one as MODEL",
        ),
        ("step3_example.sh", {"MODEL": "/no/where"}, "SIZE=7b_8gpu needs RECORDS"),
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
    path = path_with_nvidia_smi(tmp_path, 'test "$1" = -L || echo 0')
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


def test_a_finished_stage_3_is_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "output" / "stage3" / "final"
    final.mkdir(parents=True)
    (final / "config.json").touch()
    result = run("step3_example.sh", tmp_path)
    assert result.returncode == 0 and "already trained; remove" in result.stdout
    assert [path.name for path in final.iterdir()] == ["config.json"]
