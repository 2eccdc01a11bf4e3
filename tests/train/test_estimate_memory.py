"""The memory estimate: RESULTS.md has the tables that it prints, and every size fits its GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from train.estimate_memory import SETTINGS, SIZES, main
from train.preflight.machine import GIB, GPU_BYTES, PUBLISHED, estimate_rl, estimate_sft, shape_of
from train.rl.settings import compose
from train.sft.settings import read_settings

ROOT = Path(__file__).parents[2]


def test_the_tables_that_it_prints_are_those_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "train" / "RESULTS.md").read_text(encoding="utf-8")
    assert main([]) == 0
    of_sft, of_rl = capsys.readouterr().out.split("\n\n")
    assert f"\n\n{of_sft}\n" in text and f"\n\n{of_rl}" in text
    assert [line.split("|")[1].strip(" `") for line in of_rl.splitlines()[2:]] == list(SIZES)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_fits_its_gpus(size: str) -> None:
    model, gpus = SIZES[size]
    shape = shape_of(PUBLISHED[model])
    for stage in (1, 2):
        one = estimate_sft(read_settings(SETTINGS / f"stage{stage}_{size}.yaml"), shape, gpus)
        assert one.gpu < 72 * GIB, "an 80 GB GPU, less what CUDA and its allocator take"
    assert estimate_rl(compose(SETTINGS / f"stage3_{size}.yaml"), shape).gpu < 0.9 * GPU_BYTES


def test_one_settings_file_and_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--settings", str(SETTINGS / "stage1_7b_8gpu.yaml")]
    assert main([*settings, "--gpus", "8"]) == 0
    assert capsys.readouterr().out == "one GPU 33.1 GiB; a checkpoint 86.4 GiB on the disk\n"
    assert main([*settings, "--model", str(ROOT / "models" / "EmoCaliber-mini")]) == 0
    assert "a checkpoint 0.0 GiB" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_one_line() -> None:
    command = [sys.executable, str(ROOT / "train" / "estimate_memory.py"), "--model", "/no/where"]
    command += ["--settings", str(SETTINGS / "stage1_7b_8gpu.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert run.stderr.startswith("error: /no/where/config.json: No such file")
