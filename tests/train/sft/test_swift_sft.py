"""The launch of ms-swift: what it is started with, on a GPU machine and after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
MINI = ROOT / "models" / "EmoCaliber-mini"
ROW = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "awe"}]}
# Stands before the real ms-swift: prints how it would be started.
SWIFT = """
import os, sys
print("SWIFT", *sys.argv[1:], f"KEPT={os.environ.get('MALLOC_TRIM_THRESHOLD_', '')}",
      f"NPROC={os.environ.get('NPROC_PER_NODE', '')}", f"GPUS={os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
"""


def launch(
    folder: Path, *, gpus: int = 0, bad: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    Image.new("RGB", (60, 60)).save(folder / "a.jpg")
    rows = [ROW | {"images": ["a.jpg"]}] * 2 + [ROW | {"images": ["none.jpg"]}] * bad
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    package = folder / "stubs" / "swift" / "cli"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in (("../__init__", ""), ("__init__", ""), ("main", SWIFT)):
        (package / f"{name}.py").write_text(text)
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    if gpus:
        listed = "".join(f"{number}, 80000\n" for number in range(gpus))
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<E\n{listed}E\n")
        (tools / "nvidia-smi").chmod(0o755)
    command = ["bash", str(ROOT / "train" / "sft" / "swift_sft.sh"), variables.pop("SETTINGS", "")]
    command[2] = command[2] or str(ROOT / "train" / "settings" / "stage1_mini.yaml")
    command += [str(MINI), str(folder / "rows.jsonl"), str(folder / "out"), "--max_steps", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "N_GPU"}
    environment |= {"PYTHONPATH": str(folder / "stubs"), "EMOCALIBER_PYTHON": sys.executable}
    environment |= {
        "EMOCALIBER_DEVICE": "cpu",
        "PREFLIGHT": "rows",
        "PATH": f"{tools}:{os.environ['PATH']}",
    } | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def started(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in result.stdout.splitlines() if line.startswith("SWIFT")]
    assert len(lines) == 1, result.stdout + result.stderr
    return lines[0]


def test_without_a_gpu_it_runs_on_the_cpu_and_passes_flags_on(tmp_path: Path) -> None:
    line = started(launch(tmp_path))
    assert "--use_cpu true" in line and "--max_steps 3" in line
    assert "--external_plugins" in line and "resume" not in line
    # No row is replaced in silence; nobody is asked whether a local model is the newest.
    assert "--strict true" in line and "--check_model false" in line
    assert f"--dataset {tmp_path / 'rows.jsonl'} " in line
    assert line.endswith("NPROC= GPUS=")
    # What a step frees stays with the process: 16 GiB of it.
    assert " KEPT=17179869184 " in line


@pytest.mark.parametrize(("n_gpu", "visible"), [("1", "0"), ("4", "0,1,2,3")])
def test_with_gpus_it_uses_as_many_as_asked_for(tmp_path: Path, n_gpu: str, visible: str) -> None:
    line = started(launch(tmp_path, gpus=4, N_GPU=n_gpu, CUDA_VISIBLE_DEVICES=""))
    assert "--use_cpu" not in line
    assert line.endswith(f"NPROC={n_gpu} GPUS={visible}")


def test_it_goes_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    for number, whole in ((90, True), (100, True), (200, False)):
        checkpoint = tmp_path / "out" / f"checkpoint-{number}"
        checkpoint.mkdir(parents=True)
        if whole:
            (checkpoint / "trainer_state.json").touch()
    refused = launch(tmp_path)
    assert refused.returncode == 2 and "holds checkpoints and no run.json" in refused.stderr.splitlines()[-1]
    line = started(launch(tmp_path, RESUME_UNKNOWN="1"))
    assert f"--resume_from_checkpoint {tmp_path / 'out' / 'checkpoint-100'}" in line
    assert "resume" in started(launch(tmp_path)), "from then on they are known"


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "final").mkdir(parents=True)
    (tmp_path / "out" / "final" / "config.json").touch()
    result = launch(tmp_path)
    assert result.returncode == 0
    assert "already trained" in result.stdout and "SWIFT" not in result.stdout


def test_bad_rows_are_left_out_or_refused(tmp_path: Path) -> None:
    refused = launch(tmp_path, bad=1)
    assert refused.returncode == 2
    assert "1 of 3 rows cannot be trained on (1 image_missing)" in refused.stderr
    assert "SWIFT" not in refused.stdout
    line = started(launch(tmp_path, bad=1, MAX_BAD_SHARE="0.4"))
    assert f"--dataset {tmp_path / 'out' / 'dataset.jsonl'} " in line
    assert len((tmp_path / "out" / "dataset.jsonl").read_text().splitlines()) == 2


def test_missing_settings_are_one_line(tmp_path: Path) -> None:
    result = launch(tmp_path, SETTINGS=str(tmp_path / "none.yaml"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        f"error: {tmp_path / 'none.yaml'}: no such settings file"
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """The real ms-swift, killed after a checkpoint; the same command takes the steps that are left."""
    Image.new("RGB", (60, 60), "red").save(tmp_path / "a.jpg")
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROW | {"images": ["a.jpg"]}) + "\n") * 64)
    output = tmp_path / "out"
    command = [
        "bash",
        str(ROOT / "train" / "sft" / "swift_sft.sh"),
        str(ROOT / "train/settings/stage1_mini.yaml"),
    ]
    command += [str(MINI), str(tmp_path / "rows.jsonl"), str(output), "--max_steps", "400"]
    command += ["--save_strategy", "steps", "--save_steps", "40", "--logging_steps", "1"]
    command += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while first.poll() is None and not list(output.glob("checkpoint-*/trainer_state.json")):
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not (output / "final").exists()
    written = [path.parent for path in output.glob("checkpoint-*/trainer_state.json")]
    step = max(int(path.name.removeprefix("checkpoint-")) for path in written)
    assert 0 < step < 400

    command[command.index("400")] = str(step + 2)
    environment = os.environ | {"RESUME_CHANGED": "1"}
    second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 0, second.stdout[-2000:] + second.stderr[-2000:]
    logged = [json.loads(line) for line in (output / "logging.jsonl").read_text().splitlines()]
    steps = [row["global_step/max_steps"] for row in logged if "loss" in row]
    assert steps[-2:] == [f"{step + 1}/{step + 2}", f"{step + 2}/{step + 2}"]
    assert f"1/{step + 2}" not in steps
    assert (output / "final" / "model.safetensors").is_file()
    assert f"| Steps | {step + 2} |" in (output / "final" / "README.md").read_text()
