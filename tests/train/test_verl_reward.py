"""The reward through verl's own loader, reward managers and reward worker: the library's numbers."""

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emocaliber.reward import REWARD_KEYS, compute_reward
from emocaliber.reward_log import read_reward_log

ROOT = Path(__file__).parents[2]
FILE = ROOT / "train" / "rl" / "verl_reward.py"
MODEL = ROOT / "models" / "EmoCaliber-mini"


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


def config_of(reward: str, log: Path) -> Any:
    """verl's own config with our reward in it."""
    import hydra
    import verl

    folder = Path(verl.__file__).parent / "trainer" / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        return hydra.compose(
            "ppo_trainer",
            overrides=[
                "actor_rollout_ref.rollout.name=vllm",
                f"actor_rollout_ref.model.path={MODEL}",
                f"reward.custom_reward_function.path={FILE}",
                f"+reward.custom_reward_function.reward_kwargs.reward={reward}",
                f"+reward.custom_reward_function.reward_kwargs.log={log}",
            ],
        )


def rollout(row: dict[str, Any], tokenizer: Any) -> Any:
    """One response as verl's agent loop hands it to the reward."""
    import numpy as np
    import torch
    from verl import DataProto

    tokens = [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    fields = {
        "data_source": row["task"],
        "reward_model": {"style": "rule", "ground_truth": row["ground_truth"]},
        "extra_info": {"id": row["id"], "candidates": row["candidates"], "split": "train"},
        "tool_extra_fields": {"global_steps": 3},
    }
    return DataProto.from_dict(
        tensors={
            "prompts": torch.zeros(1, 2, dtype=torch.long),
            "responses": torch.tensor([tokens]),
            "attention_mask": torch.ones(1, 2 + len(tokens), dtype=torch.long),
        },
        non_tensors={name: np.array([value], dtype=object) for name, value in fields.items()},
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["naive", "dapo", "worker"])
def test_the_library_s_numbers_by_every_way_of_verl(
    tmp_path: Path, way: str, thousand_responses: list[dict[str, Any]]
) -> None:
    from verl.experimental.reward_loop import RewardLoopWorker
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(str(MODEL))
    log = tmp_path / "rewards.jsonl"
    config = config_of("brier" if way == "naive" else "emocaliber", log)
    if way == "worker":
        worker = RewardLoopWorker(config)
        loop, score = worker.loop, worker.compute_score
    else:
        config.reward.reward_manager.name = way
        manager = load_reward_manager(config, tokenizer)
        loop, score = manager.loop, manager.run_single

    rows = thousand_responses

    async def all_scores() -> list[dict[str, Any]]:
        return await asyncio.gather(*(score(rollout(row, tokenizer)) for row in rows))

    results = loop.run_until_complete(all_scores())
    reward = config.reward.custom_reward_function.reward_kwargs.reward
    texts = [tokenizer.decode(tokenizer(row["response"])["input_ids"]) for row in rows]
    expected = [
        compute_reward(text, row["ground_truth"], row["candidates"], reward)
        for text, row in zip(texts, rows, strict=True)
    ]
    assert [result["reward_extra_info"] for result in results] == expected
    assert [result["reward_score"] for result in results] == [one["score"] for one in expected]
    assert len({one["score"] for one in expected}) > 20 and 0 < sum(one["format"] for one in expected) < 1000
    logged = list(read_reward_log(log))
    assert sorted(row["id"] for row in logged) == sorted(row["id"] for row in rows)
    assert {row["step"] for row in logged} == ({None} if way == "dapo" else {3})
