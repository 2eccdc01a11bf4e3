"""The reward as a file that verl loads: its keys, its log, what it refuses (test_with_verl.py: by verl)."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emocaliber.reward import REWARD_KEYS, compute_reward
from emocaliber.reward_log import read_reward_log

ROOT = Path(__file__).parents[3]
FILE = ROOT / "train" / "rl" / "verl_reward.py"


def load() -> Callable[..., dict[str, float]]:
    """As verl does: from the file, under a name that no import finds."""
    spec = importlib.util.spec_from_file_location("custom_module", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., dict[str, float]] = module.compute_score
    return function


def test_the_keys_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "rewards.jsonl"
    extra = {"candidates": ["awe", "fear"], "id": "a", "split": "train", "index": 0, "global_steps": 7}
    response = "<answer>awe</answer><confidence>0.8</confidence>"
    result = load()("EmoSet-8", response, "awe", extra, reward="rlcr", log=str(log))
    assert tuple(result) == REWARD_KEYS
    assert result == compute_reward(response, "awe", ["awe", "fear"], "rlcr")
    (row,) = read_reward_log(log)
    stated = {"id": "a", "task": "EmoSet-8", "engine": "verl", "step": 7, "split": "train", "truth": "awe"}
    assert {key: row[key] for key in stated} == stated
    assert row["response"] == response and row["score"] == result["score"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"extra_info": {}}, "extra_info holds no candidates; make the Parquet file with"),
        ({"extra_info": None}, "extra_info holds no candidates"),
        ({"extra_info": {"candidates": ["awe", "fear"]}, "reward": "none"}, "no reward is called 'none'"),
    ],
)
def test_what_cannot_be_rewarded(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load()("EmoSet-8", "text", "awe", **arguments)
