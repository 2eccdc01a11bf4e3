"""The settings of stages 1 and 2: published values where they are claimed, every key read by ms-swift."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "train" / "settings"
PIXELS_7B = {"MIN_PIXELS": 256 * 28 * 28, "MAX_PIXELS": 576 * 28 * 28}
SIZES = {"7b_8gpu": 8, "7b_lora_1gpu": 1, "3b_2gpu": 2}
REAL = [f"stage{stage}_{size}" for stage in (1, 2) for size in SIZES]
MINI = ["warmup_mini", "stage1_mini", "stage2_mini"]


def load(name: str) -> dict:
    return yaml.safe_load((SETTINGS / f"{name}.yaml").read_text())


@pytest.mark.parametrize(("name", "learning_rate"), [("stage1_7b_8gpu", 1e-5), ("stage2_7b_8gpu", 4e-6)])
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
    assert settings["system"] == "You are a helpful assistant."
    assert settings["ENV"].items() >= PIXELS_7B.items()
    assert (ROOT / settings["fsdp"]).is_file()


@pytest.mark.parametrize("name", REAL)
def test_every_real_size_keeps_the_published_rows_a_step_and_their_tokens(name: str) -> None:
    settings = load(name)
    gpus = SIZES[name.partition("_")[2]]
    assert gpus * settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 128
    published = load(f"{name.partition('_')[0]}_7b_8gpu")
    for kept in ("max_length", "num_train_epochs", "warmup_ratio", "torch_dtype", "system"):
        assert settings[kept] == published[kept]
    assert settings["ENV"].items() >= PIXELS_7B.items()
    factor = 10 if settings["tuner_type"] == "lora" else 1
    assert settings["learning_rate"] == pytest.approx(factor * published["learning_rate"])


@pytest.mark.parametrize("name", REAL)
def test_activations_are_checkpointed_without_reentry(name: str) -> None:
    settings = load(name)
    if "fsdp" in settings:  # by FSDP itself: ms-swift's own would be done twice
        fsdp = json.loads((SETTINGS / "fsdp2.json").read_text())["fsdp_config"]
        assert settings["ENV"]["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
        assert fsdp["activation_checkpointing"] is True
        assert settings["gradient_checkpointing"] is False
    else:
        assert settings["gradient_checkpointing"] is True
        assert settings["gradient_checkpointing_kwargs"] == {"use_reentrant": False}


@pytest.mark.parametrize("name", MINI)
def test_mini_trains_all_of_the_model_at_its_own_pixels(name: str) -> None:
    settings = load(name)
    assert settings["freeze_vit"] is False
    assert settings["freeze_aligner"] is False
    assert settings["ENV"] == {"MIN_PIXELS": 3136, "MAX_PIXELS": 12544}


# In a process of its own: ms-swift writes to the environment. Prints for each file what is wrong with it.
COMPOSE = """
import json, os, sys
from pathlib import Path
from train.sft.settings import check_keys, read_settings
from accelerate.utils import FullyShardedDataParallelPlugin
from emocaliber.jsonl import RecordError
from swift.arguments import SftArguments
from swift.cli.main import parse_yaml_args
from swift.utils import parse_args

SHOWN = {"torch_dtype": lambda value: str(value).removeprefix("torch."),
         "target_modules": lambda value: value[0] if len(value) == 1 else value}
KEPT = dict(os.environ)

def faults(path):
    settings = read_settings(Path(path))
    try:
        check_keys(settings, Path(path))
    except RecordError as error:
        return [str(error)]
    os.environ.clear(), os.environ.update(KEPT)
    argv = [path]
    parse_yaml_args(argv)
    variables = settings.pop("ENV")
    found = [f"{name} is not in the environment" for name in variables if name not in os.environ]
    argv += ["--model", "models/EmoCaliber-mini", "--model_type", "qwen2_5_vl", "--template", "qwen2_5_vl"]
    argv += ["--dataset", "none.jsonl", "--output_dir", sys.argv[1], "--add_version", "false"]
    argv += ["--report_to", "none", "--use_cpu", "true", "--strict", "true", "--check_model", "false"]
    args, remaining = parse_args(SftArguments, argv)
    found += remaining
    if settings.pop("fsdp", None):
        plugin = FullyShardedDataParallelPlugin(**args.training_args.fsdp_plugin_args)
        found += [] if plugin.fsdp_version == 2 and plugin.reshard_after_forward is True else ["not FSDP2"]
        found += [] if "FULL" in str(plugin.state_dict_type) else [str(plugin.state_dict_type)]
        found += [] if args.training_args.fsdp_config["activation_checkpointing"] is True else ["memory"]
    for name, value in settings.items():
        composed = getattr(args.training_args, name, getattr(args, name))
        composed = SHOWN.get(name, lambda value: value)(composed)
        if composed != value:
            found.append(f"{name}: {value!r} became {composed!r}")
    return found

print("RESULT" + json.dumps({path: faults(path) for path in sys.argv[2:]}))
"""


@pytest.mark.slow
def test_ms_swift_knows_every_key_and_ignores_none(tmp_path: Path) -> None:
    """ms-swift's own parser takes `learning_rat` for learning_rate: such a key has to be found before."""
    good = [f"train/settings/{name}.yaml" for name in (*MINI, *REAL)]
    assert {Path(path).stem for path in good} == {
        path.stem for path in SETTINGS.glob("*.yaml") if not path.stem.startswith("stage3")
    }
    text = (SETTINGS / "stage1_mini.yaml").read_text()
    bad = []
    for name, wrong in (("beginning", "learning_rat: 1.0e-3"), ("unknown", "learning_speed: 1.0e-3")):
        bad.append(str(tmp_path / f"{name}.yaml"))
        Path(bad[-1]).write_text(text.replace("learning_rate: 1.0e-3", wrong))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_PIXELS")}
    result = subprocess.run(
        [sys.executable, "-c", COMPOSE, str(tmp_path / "output"), *good, *bad],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.split("RESULT")[1])
    assert {path: found[path] for path in good} == {path: [] for path in good}
    for path in bad:
        assert len(found[path]) == 1 and "unknown to `swift sft`" in found[path][0]
