"""What tests of the training room share."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emocaliber.jsonl import read_jsonl

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mini_responses.jsonl"


def damaged(text: str, rng: random.Random) -> str:
    """One of the faults of rollouts."""
    return rng.choice(
        [
            text[: rng.randrange(len(text))],
            text.replace("</think>", ""),
            text.replace("<confidence>", "<confidence>1"),
            text.replace("answer>", "Answer>").upper(),
            text.split("<confidence>")[0],
            text + text,
            "",
        ]
    )


@pytest.fixture(scope="session")
def thousand_responses() -> list[dict[str, Any]]:
    """Answers of the mini model, half of them damaged, that both engines of stage 3 are held to.

    Rows with `id`, `task`, `ground_truth`, `candidates` and `response`; ids occur more than once.
    """
    rng = random.Random(0)
    chosen = rng.choices([row for _, row in read_jsonl(GOLDEN)], k=1000)
    return [
        row | {"response": damaged(row["response"], rng)} if rng.random() < 0.5 else row for row in chosen
    ]


@pytest.fixture
def vllm_answers(tmp_path: Path) -> Callable[[Path, Path], list[dict[str, Any]]]:
    """What vLLM makes of a finished model, as (checkpoint, records) -> rows"""

    def answers(checkpoint: Path, data: Path) -> list[dict[str, Any]]:
        command = [sys.executable, str(ROOT / "inference" / "infer.py"), "--data", str(data)]
        command += [
            "--checkpoint",
            str(checkpoint),
            "--output-dir",
            str(tmp_path / "answers"),
            "--limit",
            "8",
        ]
        command += ["--max-new-tokens", "32", "--min-pixels", "3136", "--max-pixels", "12544"]
        answered = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answered.returncode == 0, answered.stderr[-3000:]
        return [row for _, row in read_jsonl(tmp_path / "answers" / "predictions.jsonl")]

    return answers
