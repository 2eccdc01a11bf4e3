"""The settings files: the published hyperparameters where they are claimed, the traps avoided everywhere."""

import json
from pathlib import Path

import pytest
import yaml

SETTINGS = Path(__file__).parents[2] / "train" / "settings"
PIXELS_7B = {"MIN_PIXELS": 256 * 28 * 28, "MAX_PIXELS": 576 * 28 * 28}


def load(name: str) -> dict:
    return yaml.safe_load((SETTINGS / f"{name}.yaml").read_text())


@pytest.mark.parametrize(("name", "learning_rate"), [("stage1_7b", 1e-5), ("stage2_7b", 4e-6)])
def test_published_hyperparameters(name: str, learning_rate: float) -> None:
    settings = load(name)
    assert settings["learning_rate"] == learning_rate
    assert settings["num_train_epochs"] == 1
    assert settings["warmup_ratio"] == 0.05
    assert settings["max_length"] == 2048
    assert settings["per_device_train_batch_size"] == 8
    assert settings["gradient_accumulation_steps"] == 2
    assert (settings["save_steps"], settings["save_total_limit"], settings["logging_steps"]) == (1000, 2, 5)
    assert settings["dataloader_num_workers"] == 8
    assert settings["torch_dtype"] == "bfloat16"
    assert settings["tuner_type"] == "full"
    assert settings["ENV"] == PIXELS_7B
    assert (SETTINGS.parents[1] / settings["fsdp"]).is_file()


def test_sharded_training_saves_whole_weights_and_checkpoints_activations() -> None:
    fsdp = json.loads((SETTINGS / "fsdp2.json").read_text())["fsdp_config"]
    assert fsdp["state_dict_type"] == "FULL_STATE_DICT"
    assert fsdp["activation_checkpointing"] is True
    assert load("stage1_7b")["gradient_checkpointing"] is False


@pytest.mark.parametrize("name", ["warmup_mini", "stage1_mini", "stage2_mini"])
def test_mini_trains_all_of_the_model_at_its_own_pixels(name: str) -> None:
    settings = load(name)
    assert settings["freeze_vit"] is False
    assert settings["freeze_aligner"] is False
    assert settings["ENV"] == {"MIN_PIXELS": 3136, "MAX_PIXELS": 12544}
