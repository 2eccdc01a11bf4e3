"""Data and keys of a small run of verl."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from emocaliber.jsonl import write_jsonl_atomic
from emocaliber.prompts import conversation

ROOT = Path(__file__).parents[3]
CANDIDATES = ["awe", "fear"]


@pytest.fixture(scope="session")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty rows as data/build_rl_parquet.py makes them."""
    folder = tmp_path_factory.mktemp("data")
    Image.effect_noise((112, 112), 50).convert("RGB").save(folder / "a.png")
    record = {"task": "EmoSet-8", "ground_truth": "awe", "candidates": CANDIDATES, "image": "a.png"}
    record["conversations"] = conversation("a.png", CANDIDATES)
    write_jsonl_atomic(folder / "records.jsonl", [record | {"id": str(number)} for number in range(20)])
    command = [
        sys.executable,
        str(ROOT / "data" / "build_rl_parquet.py"),
        "--output",
        str(folder / "a.parquet"),
    ]
    subprocess.run([*command, "--records", str(folder / "records.jsonl")], check=True, capture_output=True)
    return folder / "a.parquet"


@pytest.fixture(scope="session")
def keys_of() -> Callable[..., list[str]]:
    """Overrides for a run in a folder, as (folder, train, *overrides, val=None) -> keys"""

    def keys(folder: Path, train: Path, *overrides: str, val: Path | None = None) -> list[str]:
        return [
            f"actor_rollout_ref.model.path={ROOT / 'models' / 'EmoCaliber-mini'}",
            f"data.train_files={train}",
            f"data.val_files={val or train}",
            f"reward.custom_reward_function.path={ROOT / 'train' / 'rl' / 'verl_reward.py'}",
            f"++reward.custom_reward_function.reward_kwargs.log={folder / 'rewards.jsonl'}",
            f"trainer.default_local_dir={folder}",
            "trainer.device=cpu",
            *overrides,
        ]

    return keys
