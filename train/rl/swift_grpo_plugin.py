"""Gives ms-swift's GRPO the project's rewards: `--external_plugins` and `--reward_funcs emocaliber`.

Environment variables: REWARD names one of the rewards, REWARD_LOG the file that takes every rollout. The rows
need the columns `id`, `task`, `ground_truth` and `candidates` (`data/build_rl_parquet.py --chats`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from swift.rewards import orms

from emocaliber.reward import REWARDS
from emocaliber.reward_log import reward_and_log


class EmoCaliberReward:
    """The reward named by REWARD, of a batch of completions; what ms-swift calls an ORM."""

    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args
        self.reward = os.environ.get("REWARD", "brier")
        self.log = os.environ.get("REWARD_LOG") or None
        if self.reward not in REWARDS:
            raise SystemExit(f"error: REWARD={self.reward}: no such reward; give one of {', '.join(REWARDS)}")

    def __call__(
        self,
        completions: Sequence[str],
        ground_truth: Sequence[str],
        candidates: Sequence[Sequence[str]],
        task: Sequence[str],
        id: Sequence[str],  # the dataset's column of that name
        trainer_state: Any = None,
        **_: Any,
    ) -> list[float]:
        """Score each completion against its own row.

        Args:
            completions: texts, as many as rows; row i of the other columns belongs to text i.
            trainer_state: its `global_step` is logged with the rollouts.

        Returns:
            One score a completion, in the reward's own units.
        """
        step = getattr(trainer_state, "global_step", None)
        scores = []
        for text, truth, labels, name, identity in zip(
            completions, ground_truth, candidates, task, id, strict=True
        ):
            row = {"id": identity, "task": name, "engine": "swift", "step": step, "split": "train"}
            result = reward_and_log(text, truth, labels, reward=self.reward, log=self.log, row=row)
            scores.append(result["score"])
        return scores


orms["emocaliber"] = EmoCaliberReward
