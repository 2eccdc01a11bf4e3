"""The memory estimate: counts of weights against real models, bytes by hand, and the table of the README."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "train" / "estimate_memory.py"


@pytest.fixture(scope="module")
def module() -> Any:
    import sys

    spec = importlib.util.spec_from_file_location("estimate_memory", SCRIPT)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["estimate_memory"] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def test_the_weights_of_real_models_are_counted(module: Any) -> None:
    """The mini model's as its files hold them, Qwen2.5-VL's as published (8.29 and 3.75 billion)."""
    config = json.loads((ROOT / "models" / "EmoCaliber-mini" / "config.json").read_text())
    assert module.shape_of(config).total == 1_314_496
    assert module.shape_of(module.PUBLISHED["7b"]).total == 8_292_166_656
    assert module.shape_of(module.PUBLISHED["3b"]).total == 3_754_622_976


def test_bytes_by_hand(module: Any) -> None:
    """Two GPUs share 16 bytes for each of 100 trained weights and 2 for each of 10 frozen ones."""
    shape = module.Shape(
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
    one = module.estimate(settings | {"per_device_train_batch_size": 2}, shape, 2)
    assert (one.frozen, one.trained) == (10, 800)
    assert one.gathered == 2 * (10 + 44)
    # 16 tokens: the inputs of two layers, 2 bytes x 2, and one layer recomputed, 2 x (8 x 2 + 3 x 3).
    assert one.activations == 16 * (2 * 4 + 50)
    assert one.logits == 10 * 5 * 8
    assert (one.checkpoint, one.final) == (12 * 100 + 20, 4 * 100 + 20)


def test_adapters_are_few_and_their_base_is_frozen(module: Any) -> None:
    shape = module.shape_of(module.PUBLISHED["7b"])
    assert shape.adapters(64) == 161_480_704
    settings = yaml.safe_load((ROOT / "train" / "settings" / "stage1_7b_lora_1gpu.yaml").read_text())
    one = module.estimate(settings, shape, 1)
    assert one.frozen == 2 * shape.total and one.trained == 16 * 161_480_704
    assert one.final == 2 * shape.total


def test_every_size_fits_its_gpus_and_the_readme_says_so(module: Any) -> None:
    table = module.table()
    assert table in (ROOT / "train" / "README.md").read_text()
    for size, (model, gpus) in module.SIZES.items():
        for stage in (1, 2):
            settings = yaml.safe_load((ROOT / f"train/settings/stage{stage}_{size}.yaml").read_text())
            one = module.estimate(settings, module.shape_of(module.PUBLISHED[model]), gpus)
            assert one.gpu < 72 * module.GIB, "an 80 GB GPU, less what CUDA and its allocator take"
            assert f"| `{size}` |" in table and f"{one.gpu / module.GIB:.1f}" in table
