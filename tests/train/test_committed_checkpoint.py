"""The committed EmoCaliber-mini perceives: real inference over fresh pictures meets the card's aims."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from safetensors import safe_open

from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "EmoCaliber-mini"
ROWS_A_TASK = {"ID VSA": 400, "ID VER": 150, "OOD VER": 0}


def run(*command: str) -> str:
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def test_the_folder_is_whole_and_small() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert (CHECKPOINT / "README.md").is_file()
    with safe_open(CHECKPOINT / "model.safetensors", "np") as weights:
        count = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118
    assert 1_000_000 < count < 2_000_000
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 8 * 2**20


@pytest.mark.slow
def test_it_perceives_and_ranks_its_answers(tmp_path: Path) -> None:
    """Pictures of another seed than the card's: the aims do not hang on one draw.

    An AUROC over few errors is mostly chance: 220 rows of ID VSA have some 28, and a standard error of 0.055;
    the 800 here have 0.03. Of ID VER, with more errors, 150 rows a task do. The tasks out of distribution
    have no aims and are left out.
    """
    data, output = tmp_path / "data", tmp_path / "output"
    run(str(ROOT / "data" / "build_mini.py"), "--output-dir", str(data), "--n-test", "400", "--seed", "7")
    lines = (data / "test.jsonl").read_text().splitlines(keepends=True)
    taken: Counter[str] = Counter()
    with (data / "inside.jsonl").open("w") as file:
        for line in lines:
            task = TASKS[json.loads(line)["task"]]
            taken[task.name] += 1
            if taken[task.name] <= ROWS_A_TASK[task.group]:
                file.write(line)
    arguments = ["--checkpoint", str(CHECKPOINT), "--data", str(data / "inside.jsonl")]
    arguments += ["--output-dir", str(output), "--temperature", "0", "--max-new-tokens", "256"]
    arguments += ["--min-pixels", "3136", "--max-pixels", "12544"]
    run(str(ROOT / "inference" / "infer.py"), *arguments)
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert {row["n_image_tokens"] for row in rows} == {16}
    stated = run(
        *(str(ROOT / "train" / "check_mini.py"), "--predictions", str(output / "predictions.jsonl")),
        *("--scenes", str(data / "test_scenes.jsonl")),
    )
    assert "every aim is met" in stated
