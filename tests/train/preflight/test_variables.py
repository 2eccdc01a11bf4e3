"""What is given to the training scripts: nonsense is one line with the remedy, before anything starts."""

import doctest
import os
import subprocess
from pathlib import Path

import pytest

from emocaliber.jsonl import RecordError
from train.preflight import variables as module
from train.preflight.variables import check_variables, number
from train.sft.settings import read_settings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("SEED", "-1", "SEED=-1: give a whole number from 0 to 4294967295"),
        ("SEED", "1.5", "give a whole number"),
        ("STEPS", "0", "STEPS=0: give a whole number of 1 or more"),
        ("STEPS", "1_000", "give a whole number"),
        ("STEPS", "\u0663", "give a whole number"),
        ("LR", "fast", "LR=fast: give a number from 1e-12 to 1"),
        ("LR", "nan", "give a number"),
        ("LR", "0", "give a number"),
        ("N_GPU", "all", "give a whole number of 1 or more"),
        ("MAX_BAD_SHARE", "5", "give a number from 0 to 1"),
        ("MAX_DECODED_IMAGES", "1e3", "give a whole number of 0 or more"),
        ("NEEDED_DISK_GB", "inf", "give a number of 0 or more"),
        ("NEEDED_MEMORY_GB", "1e999", "give a number of 0 or more"),
        ("REWARD", "none", "no such reward; give one of emocaliber, brier, rlcr"),
        ("IMAGE_ROOT", "/no/where", "IMAGE_ROOT=/no/where: no such folder"),
    ],
)
def test_nonsense_is_told(name: str, text: str, message: str) -> None:
    with pytest.raises(RecordError) as error:
        check_variables({name: text})
    assert message in str(error.value) and str(error.value).startswith(f"{name}={text}: ")


def test_what_makes_sense_is_taken_and_what_is_unset_has_its_default(tmp_path: Path) -> None:
    good = {"SEED": "0", "STEPS": "200", "LR": "1.5e-4", "MAX_BAD_SHARE": ".5", "REWARD": "rlcr"}
    check_variables(good | {"IMAGE_ROOT": str(tmp_path), "N_GPU": "", "NEEDED_DISK_GB": "1e9"})
    assert number("LR", 1, good) == 1.5e-4 and number("STEPS", 1, good) == 200
    assert number("N_GPU", 3, {"N_GPU": ""}) == 3 == number("N_GPU", 3, {})


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("step1_example.sh", {"SEED": "one"}),
        ("step2_example.sh", {"N_SAMPLES": "0"}),
        ("step3_example.sh", {"STEPS": "many"}),
        ("step3_example.sh", {"LR": "1,5"}),
        ("step3_example.sh", {"RL_ENGINE": "swift", "REWARD": "none"}),
        ("reproduce_mini.sh", {"SEEDS": "0 x"}),
        ("reproduce_mini.sh", {"REWARDS": "brier none"}),
        ("reproduce_mini.sh", {"N_JOBS": "0"}),
        ("reproduce_mini.sh", {"DRAWS": "99"}),
    ],
)
def test_the_scripts_tell_it_before_they_write(
    tmp_path: Path, script: str, variables: dict[str, str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    places = {"OUTPUT_ROOT": str(tmp_path / "output"), "MINI_DATA": str(tmp_path / "data"), "SIZE": "mini"}
    places |= {"TEST_DATA": str(tmp_path / "data"), "MODEL": str(tmp_path / "model")}
    result = subprocess.run(
        ["bash", str(ROOT / "train" / script)],
        capture_output=True,
        text=True,
        env=os.environ | places | variables,
        check=False,
    )
    assert result.returncode == 2
    told = [line for line in result.stderr.splitlines() if not line.startswith("[setup_env]")]
    assert (
        len(told) == 1 and told[0].startswith("error: ") and ": give" in told[0].replace("; give", ": give")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_swift_sft_says_how_it_is_used(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "train" / "sft" / "swift_sft.sh")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: usage: swift_sft.sh SETTINGS MODEL DATASET")


def test_the_examples() -> None:
    results = doctest.testmod(module)
    assert results.attempted == 2 and results.failed == 0


@pytest.mark.parametrize("flags", [["--max_length", "256"], ["--max_length=256"], ["--max-length=256"]])
def test_a_flag_goes_before_the_settings_in_either_form(flags: list[str]) -> None:
    settings = read_settings(ROOT / "train" / "settings" / "stage1_mini.yaml", [*flags, "--seed=7"])
    assert (settings["max_length"], settings["seed"], settings["num_train_epochs"]) == (256, 7, 2)
