"""Checks the variables of the training scripts before anything starts: numbers, the reward, the image folder.

    python train/preflight/variables.py [NAME=VALUE ...]

Looks at those of the environment, and at the ones given, of which a name may come more than once. The first
mistake is named, with status 2.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser
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


def main() -> None:
    """Check, or name the first mistake and exit with 2."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("given", nargs="*", metavar="NAME=VALUE")
    args = parser.parse_args()
    try:
        check_variables()
        for pair in args.given:
            check_variables(dict([pair.partition("=")[::2]]))
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


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


NOT_DECIDING = re.compile(
    # How long, what is written, on how many machines' parts.
    r"max_steps|num_train_epochs|(save|logging|eval|dataloader|ddp|vllm|offload)_\w+|report_to|run_name"
    r"|output_dir|add_version|resume_\w+|dataset_num_proc|load_from_cache_file|attn_impl|deepspeed|fsdp"
    r"|fsdp_config|gradient_checkpointing\w*|use_cpu|sleep_level"
    # They count as rows a step.
    r"|per_device_train_batch_size|gradient_accumulation_steps"
    # verl's
    r"|(trainer|hydra|ray_kwargs|transfer_queue)\..+|data\.val_.+|(.+\.)?(val_kwargs|checkpoint|agent)\..+"
    r"|.+\.(\w*micro_batch_size(_per_gpu)?|\w*max_token_len_per_gpu|\w*use_dynamic_bsz|\w+_offload"
    r"|gpu_memory_utilization|max_num_batched_tokens|max_num_seqs|num_workers|\w+_num_workers|enforce_eager"
    r"|tensor_model_parallel_size|free_cache_engine|enable_gradient_checkpointing|use_torch_compile"
    r"|enable_chunked_prefill|attn_implementation)"
)
"""Names whose value is the machine's or the length's: a run may go on with another."""


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


def deciding(flags: dict[str, str]) -> dict[str, str]:
    """Those that decide what is learned; numbers in one notation."""
    return {name: _plain(value) for name, value in flags.items() if not NOT_DECIDING.fullmatch(name)}


def _plain(value: str) -> str:
    try:
        return f"{float(value):.12g}"
    except ValueError:
        return value


if __name__ == "__main__":
    main()
