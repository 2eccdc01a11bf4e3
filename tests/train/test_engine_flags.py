"""Flags of ms-swift and keys of verl: every form that the engines take, and which of them decide."""

import doctest
from pathlib import Path

import pytest

from train.preflight import variables as engine_flags
from train.sft.settings import read_settings
from train.preflight.variables import deciding, swift_flags, verl_keys

ROOT = Path(__file__).parents[2]


def test_the_examples() -> None:
    results = doctest.testmod(engine_flags)
    assert results.attempted == 2 and results.failed == 0


@pytest.mark.parametrize("flags", [["--max_length", "256"], ["--max_length=256"], ["--max-length=256"]])
def test_a_flag_goes_before_the_settings_in_either_form(flags: list[str]) -> None:
    settings = read_settings(ROOT / "train" / "settings" / "stage1_mini.yaml", [*flags, "--seed=7"])
    assert (settings["max_length"], settings["seed"], settings["num_train_epochs"]) == (256, 7, 2)


def test_steps_and_the_machines_part_do_not_decide() -> None:
    flags = ["--max_steps", "5", "--save_steps=2", "--logging_steps", "1", "--dataloader_num_workers", "4"]
    flags += ["--per_device_train_batch_size", "2", "--seed", "3", "--learning_rate", "1.0e-3"]
    assert deciding(swift_flags(flags)) == {"seed": "3", "learning_rate": "0.001"}
    actor = "actor_rollout_ref.actor"
    keys = [
        "trainer.total_training_steps=5",
        "trainer.save_freq=1",
        f"{actor}.ppo_micro_batch_size_per_gpu=4",
    ]
    keys += [
        "actor_rollout_ref.rollout.gpu_memory_utilization=0.5",
        f"{actor}.fsdp_config.param_offload=true",
    ]
    keys += ["+ray_kwargs.ray_init.num_cpus=2", "data.seed=3", "++actor_rollout_ref.rollout.n=16"]
    keys += [f"{actor}.ppo_mini_batch_size=4", f"{actor}.optim.lr=0.001", "data.train_batch_size=4"]
    assert deciding(verl_keys(keys)) == {
        "data.seed": "3",
        "actor_rollout_ref.rollout.n": "16",
        f"{actor}.ppo_mini_batch_size": "4",
        f"{actor}.optim.lr": "0.001",
        "data.train_batch_size": "4",
    }
