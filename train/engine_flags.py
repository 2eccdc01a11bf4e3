"""The flags of `swift` and the keys of verl, as names and values; which of them decide what is learned."""

from __future__ import annotations

import re
from collections.abc import Sequence

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
