"""What a user gives the training scripts: variables, which this program checks, settings files and flags.

    python train/preflight/variables.py [NAME=VALUE ...]

Checks the variables of the environment, and those that are given, of which a name may come more than once:
numbers, the reward, the image folder. Names the first mistake, with status 2.
"""

from __future__ import annotations

import math
import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError
from emocaliber.reward import REWARDS

COUNTS = ("STEPS", "WARMUP_STEPS", "N_TRAIN", "N_SAMPLED_ROWS", "N_SAMPLES", "N_VAL", "N_GPU")
REPRODUCTION = ("N_JOBS", "N_TEST", "N_TEST_VSA")
LIMITS = ("STALL_S", "RAY_CPUS", "MIN_PIXELS", "MAX_PIXELS", "MAX_IMAGE_TOKENS")
WHOLE = {
    **dict.fromkeys((*COUNTS, *REPRODUCTION, *LIMITS), (1, math.inf)),
    "SEED": (0, 2**32 - 1),
    "MAX_DECODED_IMAGES": (0, math.inf),
    "DRAWS": (100, math.inf),  # as compare_stages.py
}
REAL = {
    "LR": (1e-12, 1),
    "MAX_BAD_SHARE": (0, 1),
    "NEEDED_DISK_GB": (0, math.inf),
    "NEEDED_MEMORY_GB": (0, math.inf),
}
"""Least and greatest value, of whole numbers above and of others."""
_REAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def main(argv: Sequence[str] | None = None) -> int:
    """Check; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("given", nargs="*", metavar="NAME=VALUE")
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Check the environment, then each of the given pairs. Raises RecordError."""
    check_variables()
    for pair in arguments.given:
        name, _, value = pair.partition("=")
        check_variables({name: value})


def check_variables(environment: Mapping[str, str] = os.environ) -> None:
    """Check those of the variables that are set. Raises RecordError."""
    for name in (*WHOLE, *REAL):
        number(name, 0, environment)
    reward = environment.get("REWARD")
    if reward and reward not in REWARDS:
        raise RecordError(f"REWARD={reward}: no such reward; give one of {', '.join(REWARDS)}")
    images = environment.get("IMAGE_ROOT")
    if images and not Path(images).is_dir():
        raise RecordError(
            f"IMAGE_ROOT={images}: no such folder; give the one that image paths are relative to"
        )


def number(name: str, default: float, environment: Mapping[str, str] = os.environ) -> float:
    """The number that a variable holds, an int for those in WHOLE; the default where it is unset or empty.

    Raises RecordError for what is no such number.
    """
    text = environment.get(name)
    if not text:
        return default
    is_whole = name in WHOLE
    least, most = WHOLE[name] if is_whole else REAL[name]
    written = re.compile(r"\d+", re.ASCII) if is_whole else _REAL
    value = (int if is_whole else float)(text) if written.fullmatch(text) else math.nan
    if not least <= value <= most or value == math.inf:
        kind = "a whole number" if is_whole else "a number"
        limits = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
        raise RecordError(f"{name}={text}: give {kind} {limits}")
    return value


def settings_files(settings: Path) -> list[Path]:
    """The file and those beside it that its `defaults` name, the base first. Raises RecordError."""
    try:
        content = yaml.safe_load(settings.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecordError(f"{settings}: not readable as settings ({' '.join(str(error).split())})") from None
    names = content.get("defaults", ()) if isinstance(content, dict) else ()
    beside = [settings.with_name(f"{name}.yaml") for name in names if name != "_self_"]
    return [*(file for base in beside if base.is_file() for file in settings_files(base)), settings]


def swift_flags(arguments: Sequence[str]) -> dict[str, str]:
    """Names and values of `--name value ...` and `--name=value`; of a repeated one the last.

    >>> swift_flags(["--seed", "3", "--max-length=512", "--reward_funcs", "a", "b", "--strict"])
    {'seed': '3', 'max_length': '512', 'reward_funcs': 'a b', 'strict': ''}
    """
    found: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, is_joined, value = argument[2:].partition("=")
            name = name.replace("-", "_")  # ms-swift's parser takes both
            found[name] = [value] if is_joined else []
        elif name:
            found[name].append(argument)
    return {name: " ".join(values) for name, values in found.items()}


def verl_keys(arguments: Sequence[str]) -> dict[str, str]:
    """Names and values of `key=value`, `+key=value`, `++key=value` and `~key`.

    >>> verl_keys(["data.seed=3", "++a.b='c'", "~d"])
    {'data.seed': '3', 'a.b': 'c', '~d': ''}
    """
    pairs = (argument.lstrip("+").partition("=") for argument in arguments)
    return {name: value.strip("'\"") for name, _, value in pairs}


def given_values(engine: str, arguments: Sequence[str]) -> dict[str, str]:
    """Names and values of what is given to an engine, "swift" or "verl"."""
    return swift_flags(arguments) if engine == "swift" else verl_keys(arguments)


if __name__ == "__main__":
    sys.exit(main())
