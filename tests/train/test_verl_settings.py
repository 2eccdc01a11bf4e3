"""Stage 3's settings against the pinned verl: composed, every key known, validated; the published values."""

from pathlib import Path
from typing import Any

import pytest

from emocaliber.jsonl import RecordError
from emocaliber.reward import REWARDS
from train.preflight.machine import GIB, GPU_BYTES, PUBLISHED, check_machine, estimate_rl, shape_of
from train.rl.settings import check_config, check_keys, compose

ROOT = Path(__file__).parents[2]
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


def changed(tmp_path: Path, size: str, more: str) -> Path:
    path = tmp_path / "changed.yaml"
    path.write_text(settings(size).read_text() + more)
    return path


def test_published_hyperparameters() -> None:
    from omegaconf import OmegaConf

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


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_verl_knows_every_key_and_takes_the_values(size: str) -> None:
    config = compose(settings(size), [MODEL])
    check_keys(settings(size), config)
    check_config(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  no_such_key: 1\n", "verl knows no trainer.no_such_key"),
        ("  save_freq_steps: {every: 1}\n", "verl knows no trainer.save_freq_steps.every"),
        ("custom_reward_function: {path: x.py}\n", "composes custom_reward_function and ignores it"),
        ("reward_model: {reward_manager: dapo}\n", "composes reward_model and ignores it"),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(tmp_path: Path, more: str, message: str) -> None:
    path = changed(tmp_path, "mini", more)
    with pytest.raises(RecordError, match=message):
        check_keys(path, compose(path, [MODEL]))


@pytest.mark.slow
def test_a_switch_that_does_nothing_is_refused() -> None:
    config = compose(settings("mini"), [MODEL, "actor_rollout_ref.actor.freeze_vision_tower=true"])
    with pytest.raises(RecordError, match="freeze_vision_tower and does nothing"):
        check_keys(settings("mini"), config)


@pytest.mark.slow
def test_the_old_override_of_the_reward_is_refused() -> None:
    config = compose(settings("mini"), [MODEL, "custom_reward_function.path=x.py"])
    with pytest.raises(RecordError, match=r"set reward\.custom_reward_function instead"):
        check_keys(settings("mini"), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train_batch_size=4", "must be >= actor.ppo_mini_batch_size"),
        ("actor_rollout_ref.rollout.mode=sync", "sync"),
        ("+actor_rollout_ref.actor.no_such_field=1", "no_such_field"),
        ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=null", "log_prob_micro_batch_size"),
        (
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=48",
            "ref.*=48: 128 rollouts on 1 GPUs do not",
        ),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24", "actor.ppo_micro.*=24: 128 rollouts"),
        ("trainer.n_gpus_per_node=16", "128 rollouts on 16 GPUs do not make whole micro-batches"),
    ],
)
def test_values_that_verl_would_refuse_now_or_later(override: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        check_config(compose(settings("mini"), [MODEL, override]))


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_stated_memory_is_the_arithmetic(size: str) -> None:
    need = estimate_rl(compose(settings(size), [MODEL]), shape_of(PUBLISHED[size[:2]]))
    assert need.gpu < 0.9 * GPU_BYTES
    cells = [f"{part / GIB:.1f}" for part in (need.training, need.generation, need.host, need.checkpoint)]
    assert f"| `{size}` | {' | '.join(cells)} |" in (ROOT / "train" / "README.md").read_text()


def test_the_arithmetic_by_hand() -> None:
    """Full tuning of P weights on 8 GPUs: 16 P / 8 in training, 12 P / 8 beside vLLM's 0.6 of the GPU."""
    shape = shape_of(PUBLISHED["7b"])
    assert shape.total == 8_292_166_656
    need = estimate_rl(compose(settings("7b_8gpu"), [MODEL]), shape, gpu_bytes=80 * GIB)
    assert need.generation == pytest.approx(0.6 * 80 * GIB + 12 * shape.total / 8)
    layers = 28 * 2 * 3584 + 2 * (8 * 3584 + 3 * 18944)
    gathered = 2 * (152064 * 3584 + shape.one_layer)
    assert need.training == pytest.approx(16 * shape.total / 8 + gathered + 4 * 6144 * layers)
    assert need.checkpoint == 12 * shape.total


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NEEDED_DISK_GB": "1e9"}, "checkpoints and the model need about 1000000000.0; make room"),
        (
            {"NEEDED_DISK_GB": "0", "NEEDED_MEMORY_GB": "1e9"},
            "of memory available, the run needs about 1000000000.0; end other",
        ),
    ],
)
def test_too_small_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    where = f"trainer.default_local_dir={tmp_path / 'new' / 'folder'}"
    config = compose(settings("mini"), [MODEL, where, "trainer.device=cpu"])
    with pytest.raises(RecordError, match=message):
        check_machine(config, shape_of(PUBLISHED["7b"]))


def test_too_few_gpus(tmp_path: Path) -> None:
    config = compose(settings("7b_8gpu"), [MODEL, "trainer.n_gpus_per_node=4096"])
    with pytest.raises(RecordError, match=r"N_GPU=4096, but \d+ GPUs are here"):
        check_machine(config, shape_of(PUBLISHED["7b"]))
