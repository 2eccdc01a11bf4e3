"""Stage 3's settings against the pinned verl: composed, every key known, validated; the published values."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from emocaliber.jsonl import RecordError
from emocaliber.reward import REWARDS
from train.preflight.variables import settings_files
from train.rl.settings import compose, keys_of

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "train" / "settings"
SIZES = ("mini", "7b_8gpu", "7b_lora_1gpu", "3b_2gpu")
MODEL = f"actor_rollout_ref.model.path={ROOT / 'models' / 'EmoCaliber-mini'}"


PUBLISHED_7B: dict[str, Any] = {
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": False,
    "algorithm.use_kl_in_reward": False,
    "data.train_batch_size": 64,
    "data.max_prompt_length": 4096,
    "data.max_response_length": 2048,
    "data.filter_overlong_prompts": True,
    "actor_rollout_ref.model.use_remove_padding": False,
    "actor_rollout_ref.model.use_fused_kernels": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_coef": 0.01,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.fsdp_config.param_offload": False,
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload": False,
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.n": 8,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.6,
    "actor_rollout_ref.rollout.enable_chunked_prefill": False,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.rollout.engine_kwargs.vllm": {"mm_processor_cache_gb": 0},
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 4,
    "actor_rollout_ref.ref.fsdp_config.param_offload": True,
    "reward.custom_reward_function.reward_kwargs": {"reward": "emocaliber"},
    "trainer.n_gpus_per_node": 8,
    "trainer.save_freq": 100,
    "trainer.test_freq": 10,
    "trainer.total_epochs": 1,
}


def settings(size: str) -> Path:
    return SETTINGS / f"stage3_{size}.yaml"


def values(size: str) -> dict[str, Any]:
    """Every value of the composed settings that this repository's files set."""
    config = compose(settings(size), [MODEL])
    keys = {key for file in settings_files(settings(size)) for key in keys_of(OmegaConf.load(file))}
    return {key: OmegaConf.select(config, key) for key in keys if not key.startswith(("defaults", "hydra"))}


OWN: dict[str, dict[str, Any]] = {
    "7b_8gpu": {},
    "3b_2gpu": {
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4,
        "trainer.n_gpus_per_node": 2,
    },
    "7b_lora_1gpu": {
        "actor_rollout_ref.model.lora_rank": 64,
        "actor_rollout_ref.model.lora_alpha": 32,
        "actor_rollout_ref.model.target_modules": "all-linear",
        "actor_rollout_ref.model.exclude_modules": ".*visual.*",
        "actor_rollout_ref.model.lora.merge": True,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 2,
        "actor_rollout_ref.actor.optim.lr": 1e-5,
        "actor_rollout_ref.actor.fsdp_config.param_offload": True,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": 2,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 2,
        "trainer.n_gpus_per_node": 1,
    },
}
"""What is set otherwise than for the published size."""


@pytest.mark.parametrize("size", OWN)
def test_a_size_is_the_published_one_but_for_its_own_values(size: str) -> None:
    expected = values("7b_8gpu") | OWN[size] | {"trainer.experiment_name": f"stage3_{size}"}
    assert values(size) == expected
    assert [file.name for file in settings_files(settings(size))] == [
        "stage3_real.yaml",
        f"stage3_{size}.yaml",
    ]


def test_published_hyperparameters() -> None:
    config = compose(settings("7b_8gpu"), [MODEL])
    found = {key: OmegaConf.select(config, key) for key in PUBLISHED_7B}
    assert found == PUBLISHED_7B


@pytest.mark.parametrize("size", SIZES)
def test_it_composes_and_names_a_reward_of_ours(size: str) -> None:
    config = compose(settings(size), [MODEL])
    assert config.reward.custom_reward_function.reward_kwargs.reward in REWARDS
    assert config.trainer.resume_mode == "auto"
    assert config.algorithm.adv_estimator == "grpo"
    prompt_and_answer = config.data.max_prompt_length + config.data.max_response_length
    assert config.actor_rollout_ref.rollout.max_model_len == prompt_and_answer
    assert config.actor_rollout_ref.rollout.max_num_batched_tokens >= prompt_and_answer


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["actor_rollout_ref.actor.no_such_key=1"], "no_such_key"),
        (["data.train_batch_size=[1"], "no viable alternative"),
    ],
)
def test_a_wrong_override_is_refused_by_its_name(overrides: list[str], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        compose(settings("mini"), [MODEL, *overrides])


def test_an_apostrophe_in_a_path_is_told_as_what_it_is() -> None:
    with pytest.raises(
        RecordError, match=r"/it's/here'.* cannot hold an apostrophe; rename the file or folder"
    ):
        compose(settings("mini"), [MODEL, "trainer.default_local_dir='/it's/here'"])
