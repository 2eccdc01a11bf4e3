"""The reward of stage 3 as verl calls it: `reward.custom_reward_function.path=train/rl/verl_reward.py`.

verl loads this file, under no module name, in each of its reward workers, and calls `compute_score` from
threads. What it computes is the library's: `emocaliber.reward` has the rewards, `emocaliber.reward_log` the
log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    reward: str = "brier",
    log: str | None = None,
) -> dict[str, float]:
    """Reward one rollout.

    Args:
        data_source: the task of the row.
        solution_str: what the policy wrote.
        ground_truth: the right label.
        extra_info: of the row: its `candidates`, `id` and `split`; with verl's `naive` reward manager also
            `global_steps`, the number of steps that the policy which wrote it had been trained for.
        reward: a name in `emocaliber.reward.REWARDS`, from `reward.custom_reward_function.reward_kwargs`.
        log: file of JSON lines to append the rollout to, from there too; None keeps no log.
    Returns:
        The parts of the reward, always the same keys; `score` is what GRPO gets.
    Raises:
        ValueError: the row holds no candidates, or the reward is unknown.
    """
    from emocaliber.reward_log import reward_and_log

    row = dict(extra_info or {})
    if row.get("candidates") is None:
        raise ValueError(
            "extra_info holds no candidates; make the Parquet file with data/build_rl_parquet.py"
        )
    return reward_and_log(
        solution_str,
        ground_truth,
        [str(candidate) for candidate in row["candidates"]],
        reward=reward,
        log=log,
        row={
            "id": row.get("id"),
            "task": data_source,
            "engine": "verl",
            "step": row.get("global_steps"),
            "split": row.get("split"),
        },
    )
