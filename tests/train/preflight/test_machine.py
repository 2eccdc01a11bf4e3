"""What a run needs: weights counted against real models, bytes by hand; and what a machine lacks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from emocaliber.jsonl import RecordError
from train.preflight import machine as module
from train.preflight.machine import (
    GIB,
    PUBLISHED,
    Need,
    Shape,
    check_machine,
    estimate_rl,
    estimate_sft,
    rl_need,
    sft_need,
    shape_of,
)
from train.rl.settings import compose

ROOT = Path(__file__).parents[3]
SETTINGS = ROOT / "train" / "settings"
NOTHING = Need(n_gpus=1, gpu=GIB, host=0, disk=0, n_checkpoints=3, is_for_cpu=False, to_lower="batch")


def test_the_weights_of_real_models_are_counted() -> None:
    """The mini model's as its files hold them, Qwen2.5-VL's as published (8.29 and 3.75 billion)."""
    config = json.loads((ROOT / "models" / "EmoCaliber-mini" / "config.json").read_text())
    assert shape_of(config).total == 1_314_496
    assert shape_of(PUBLISHED["7b"]).total == 8_292_166_656
    assert shape_of(PUBLISHED["3b"]).total == 3_754_622_976


def test_bytes_by_hand() -> None:
    """Two GPUs share 16 bytes for each of 100 trained weights and 2 for each of 10 frozen ones."""
    shape = Shape(
        hidden=2,
        intermediate=3,
        layers=2,
        vocabulary=5,
        embeddings=10,
        one_layer=44,
        key_value=2,
        vision=6,
        merger=4,
    )
    assert (shape.language, shape.total) == (100, 110)
    settings = {"tuner_type": "full", "freeze_vit": True, "fsdp": "x", "max_length": 8}
    one = estimate_sft(settings | {"per_device_train_batch_size": 2}, shape, 2)
    assert (one.frozen, one.trained) == (10, 800)
    assert one.gathered == 2 * (10 + 44)
    # 16 tokens: the inputs of two layers, 2 bytes x 2, and one layer recomputed, 2 x (8 x 2 + 3 x 3).
    assert one.activations == 16 * (2 * 4 + 50)
    assert one.logits == 10 * 5 * 8
    assert (one.checkpoint, one.final) == (12 * 100 + 20, 4 * 100 + 20)


def test_adapters_are_few_and_their_base_is_frozen() -> None:
    shape = shape_of(PUBLISHED["7b"])
    assert shape.adapters(64) == 161_480_704
    settings = yaml.safe_load((ROOT / "train" / "settings" / "stage1_7b_lora_1gpu.yaml").read_text())
    one = estimate_sft(settings, shape, 1)
    assert one.frozen == 2 * shape.total and one.trained == 16 * 161_480_704
    assert one.final == 2 * shape.total


def test_the_arithmetic_of_stage_3_by_hand() -> None:
    """Full tuning of P weights on 8 GPUs: 16 P / 8 in training, 12 P / 8 beside vLLM's 0.6 of the GPU."""
    shape = shape_of(PUBLISHED["7b"])
    assert shape.total == 8_292_166_656
    need = estimate_rl(compose(SETTINGS / "stage3_7b_8gpu.yaml"), shape, gpu_bytes=80 * GIB)
    assert need.generation == pytest.approx(0.6 * 80 * GIB + 12 * shape.total / 8)
    layers = 28 * 2 * 3584 + 2 * (8 * 3584 + 3 * 18944)
    gathered = 2 * (152064 * 3584 + shape.one_layer)
    assert need.training == pytest.approx(16 * shape.total / 8 + gathered + 4 * 6144 * layers)
    assert need.checkpoint == 12 * shape.total


def test_a_run_of_swift_needs_what_its_estimate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("N_GPU", "8")
    settings = yaml.safe_load((SETTINGS / "stage1_7b_8gpu.yaml").read_text())
    need, one = sft_need(settings, PUBLISHED["7b"]), estimate_sft(settings, shape_of(PUBLISHED["7b"]), 8)
    assert (need.n_gpus, need.gpu, need.is_for_cpu) == (8, one.gpu, False)
    assert (need.n_checkpoints, need.disk) == (3, 3 * one.checkpoint + one.final)
    assert need.host == GIB + one.checkpoint, "FSDP2 gathers a whole checkpoint to write it"


def test_the_mini_model_does_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((ROOT / "models" / "EmoCaliber-mini" / "config.json").read_text())
    settings = yaml.safe_load((SETTINGS / "stage1_mini.yaml").read_text())
    monkeypatch.setattr(module, "free_gpu_memory", lambda: [])
    assert sft_need(settings, config).is_for_cpu
    assert not sft_need(settings | {"torch_dtype": "bfloat16"}, config).is_for_cpu
    monkeypatch.setattr(module, "free_gpu_memory", lambda: [80 * GIB])
    assert not sft_need(settings, config).is_for_cpu


def test_a_run_of_verl_needs_what_its_estimate_says() -> None:
    settings = compose(SETTINGS / "stage3_3b_2gpu.yaml")
    need, one = rl_need(settings, PUBLISHED["3b"]), estimate_rl(settings, shape_of(PUBLISHED["3b"]))
    assert (need.n_gpus, need.gpu, need.host, need.is_for_cpu) == (2, one.training, one.host, False)
    assert need.disk == 3 * one.checkpoint + 4 * shape_of(PUBLISHED["3b"]).total
    assert rl_need(compose(SETTINGS / "stage3_mini.yaml", ["trainer.device=cpu"]), PUBLISHED["3b"]).is_for_cpu


@pytest.mark.parametrize(
    ("gpus", "n_gpus", "message"),
    [
        ([], 2, "no GPU is here, these settings are for 2; take SIZE=mini"),
        ([80 * GIB], 2, "N_GPU=2, but 1 GPUs are here; set N_GPU, or take another SIZE"),
        ([80 * GIB, GIB // 2], 2, "a GPU has 0.5 GiB free, the settings need about 1.0; free it"),
    ],
)
def test_gpus_that_are_missing_or_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: list[int], n_gpus: int, message: str
) -> None:
    monkeypatch.setattr(module, "free_gpu_memory", lambda: gpus)
    with pytest.raises(RecordError, match=message):
        check_machine(replace(NOTHING, n_gpus=n_gpus), tmp_path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NEEDED_DISK_GB": "1e9"}, "3 checkpoints and the model need about 1000000000.0; make room"),
        ({"NEEDED_MEMORY_GB": "1e9"}, "of memory available, the run needs about 1000000000.0; end other"),
    ],
)
def test_too_small_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecordError, match=message):
        check_machine(replace(NOTHING, is_for_cpu=True), tmp_path / "new" / "folder")


def test_what_was_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_gpu_memory", lambda: [80 * GIB] * 4)
    assert check_machine(NOTHING, tmp_path).startswith("1 of 4 GPUs, about 1.0 GiB each; ")
    assert check_machine(replace(NOTHING, is_for_cpu=True), tmp_path).startswith("the CPU; ")
