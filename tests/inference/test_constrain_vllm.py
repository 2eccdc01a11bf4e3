"""Prompts and constrained responses with real vLLM, from the question to the comparison of confidences."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emocaliber.response import parse, parse_distribution
from inference.backends.prepare import ChatTokenizer

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Run = subprocess.CompletedProcess[str]
SETTINGS = ("--min-pixels", 3136, "--max-pixels", 12544, "--temperature", 1, "--max-new-tokens", 1024)
LABELS = {"Two": ["positive", "negative"], "Odd": ["joy", "l'ennui", "quiet awe", "Öde", "fear (deep)"]}
N_ROWS = 24


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[[int, int, int], Image.Image],
    make_row: Callable[..., Row],
    write_rows: Callable[..., Path],
) -> Path:
    """Rows whose own messages ask nothing of the kind, with three sets of candidates."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(N_ROWS):
        draw(number, 112, 112).save(folder / f"{number}.png")
        row = make_row(f"r{number}", f"{number}.png", "Describe.")
        task = (None, *LABELS)[number % 3]
        if task is not None:
            row |= {"task": task, "candidates": LABELS[task], "ground_truth": LABELS[task][0]}
        rows.append(row)
    return write_rows(folder / "test.jsonl", rows)


@pytest.fixture(scope="module", params=["published", "distribution"])
def asked(
    request: pytest.FixtureRequest,
    data: Path,
    checkpoint: Path,
    infer: Callable[..., Run],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    run = infer(
        *("--checkpoint", checkpoint, "--data", data, "--output-dir", folder, *SETTINGS),
        *("--prompt", request.param, "--constrain", "--confidence", "likelihood", "--confidence", "p_true"),
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return request.param, folder


def test_every_constrained_response_is_read_without_repairs(
    asked: tuple[str, Path], read_rows: Callable[[Path], list[Row]]
) -> None:
    prompt, folder = asked
    rows = read_rows(folder / "predictions.jsonl")
    assert len(rows) == N_ROWS
    for row in rows:
        parsed = parse(row["response"], row["candidates"])
        assert parsed.label in row["candidates"]
        assert not parsed.flags & {"fallback", "malformed_reasoning", "truncated", "rescaled"}
        assert set(row["candidate_logprobs"]) == set(row["candidates"])
        assert 0 <= row["p_true"] <= 1
        if prompt == "published":
            assert parsed.confidence is not None
        else:
            # What no grammar can hold: that the probabilities sum to 1.
            reason = parse_distribution(row["response"], row["candidates"]).reason
            assert reason in (None, "sum_not_one"), reason


def test_the_prompt_is_shown_as_it_was_asked(
    asked: tuple[str, Path], root: Path, checkpoint: Path, read_rows: Callable[[Path], list[Row]]
) -> None:
    prompt, folder = asked
    row = read_rows(folder / "predictions.jsonl")[5]
    command = [sys.executable, str(root / "inference" / "show_prompt.py"), "--run", str(folder), "--id", "r5"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert str(row["candidates"]) in shown.stdout
    assert ("<distribution>" in shown.stdout) == (prompt == "distribution")
    n_tokens = len(ChatTokenizer(str(checkpoint)).encode_text(shown.stdout.removesuffix("\n")))
    assert n_tokens - 1 + row["n_image_tokens"] == row["n_prompt_tokens"]
    assert json.loads((folder / "run.json").read_text())["prompt"]["name"] == prompt


def test_the_evaluation_compares_the_confidences(asked: tuple[str, Path], root: Path, tmp_path: Path) -> None:
    _, folder = asked
    command = [sys.executable, str(root / "inference" / "evaluate.py"), "--output-dir", str(tmp_path)]
    command += ["--predictions", str(folder / "predictions.jsonl"), "--no-page", "--no-figures"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    log = (tmp_path / "metric_conf.log").read_text()
    assert "likelihood" in log
    assert "P(True)" in log
