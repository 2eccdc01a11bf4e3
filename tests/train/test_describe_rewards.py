"""The table and the figure of the rewards are what the library computes now."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emocaliber.reward import REWARDS
from train.rl.reward_tables import draw, section
from train.stages.markdown import around_section

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "train" / "describe_rewards.py"
RESULTS = ROOT / "train" / "RESULTS.md"
FIGURE = ROOT / "images" / "reward_incentives.png"
PREDICTIONS = ROOT / "tests" / "golden" / "mini_responses.jsonl"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_results_have_the_table_that_is_computed():
    before, after = around_section(RESULTS, "rewards")
    assert f"{before}\n{section()}{after}" == RESULTS.read_text("utf-8")


def test_the_table_shows_what_the_published_reward_pays_for():
    rows = [line.split(" | ") for line in RESULTS.read_text("utf-8").splitlines() if "`emocaliber` |" in line]
    assert [row for row in rows if "**p < 0.849** (p < 0.844)" in row and "**no**" in row]


def test_the_figure_is_the_one_that_is_drawn():
    from matplotlib.image import imread

    committed, drawn = imread(FIGURE), imread(io.BytesIO(draw()))
    assert committed.shape == drawn.shape
    # Other versions of matplotlib and its fonts move letters by a pixel.
    assert np.abs(committed - drawn).mean() < 0.01


@pytest.mark.slow
def test_it_writes_both_and_a_second_time_the_same(tmp_path):
    readme, figure = tmp_path / "README.md", tmp_path / "figure.png"
    readme.write_text("before\n<!-- rewards: begin -->\noutdated\n<!-- rewards: end -->\nafter\n")
    for _ in range(2):
        result = run("--readme", readme, "--figure", figure)
        assert (result.returncode, result.stderr) == (0, "")
        written = readme.read_text("utf-8")
        assert written.startswith("before\n<!-- rewards: begin -->\n| reward |")
        assert written.endswith("\n<!-- rewards: end -->\nafter\n")
        assert "outdated" not in written and written.count("| `brier` |") == 3
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "figure.png"]


@pytest.mark.parametrize("text", ["no marks\n", "<!-- rewards: end -->\n<!-- rewards: begin -->\n", None])
def test_without_its_place_in_the_readme_nothing_is_written(tmp_path, text):
    readme, figure = tmp_path / "README.md", tmp_path / "figure.png"
    if text:
        readme.write_text(text)
    result = run("--readme", readme, "--figure", figure)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and str(readme) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not figure.exists()
    assert not text or readme.read_text() == text


def test_the_benchmark_measures_every_reward_and_writes_nothing(tmp_path):
    readme = tmp_path / "README.md"
    result = run("--benchmark", PREDICTIONS, "--readme", readme)
    assert result.returncode == 0, result.stderr
    first, *lines = result.stdout.splitlines()
    assert first.startswith("396 responses of 51")
    assert [line.split()[0] for line in lines] == list(REWARDS)
    assert all(int(line.split()[1].replace(",", "")) > 1000 for line in lines)
    assert not readme.exists()


def test_a_benchmark_without_responses_is_refused(tmp_path):
    empty = tmp_path / "predictions.jsonl"
    empty.write_text("")
    for file in (empty, tmp_path / "missing.jsonl"):
        result = run("--benchmark", file)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
