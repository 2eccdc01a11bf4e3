"""What a fine-tuning run needs: framework versions, a whole model folder, GPUs, memory, disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from check_variables import number
from estimate_memory import GIB, PUBLISHED, Estimate, estimate, shape_of

from emocaliber.environment import missing
from emocaliber.jsonl import RecordError

ROOT = Path(__file__).resolve().parents[1]


def check_versions() -> None:
    """The pinned frameworks, in their versions. Raises RecordError that names what is missing."""
    lacking = missing(ROOT / "requirement-common.txt")
    if lacking:
        raise RecordError(f"this environment lacks {', '.join(lacking)}; start through train/*.sh")


def check_model(model: str) -> dict[str, Any]:
    """Give the config of a whole local folder; `owner/name` is left to the hub and taken for a 7B.

    Raises RecordError for a folder without config, processor or all of its weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return PUBLISHED["3b" if "3b" in model.lower() else "7b"]
        raise RecordError(f"{model}: no such model folder; give a folder or a hub name as MODEL")
    remedy = "give a complete checkpoint as MODEL"
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise RecordError(f"{model}: no config.json with *.safetensors in it; {remedy}")
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        index = folder / "model.safetensors.index.json"
        listed = (
            json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else []
        )
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(f"{model}: unreadable config or index ({error}); {remedy}") from None
    absent = {name for name in listed if not (folder / name).is_file()}
    absent |= {name for name in ("tokenizer_config.json", "tokenizer.json") if not (folder / name).is_file()}
    if absent:
        raise RecordError(f"{model}: {', '.join(sorted(absent))} is missing; {remedy}")
    if config.get("model_type") != "qwen2_5_vl":
        raise RecordError(
            f"{model}: a {config.get('model_type')}, not a qwen2_5_vl; give a Qwen2.5-VL as MODEL"
        )
    return config


def check_machine(settings: Mapping[str, Any], config: Mapping[str, Any], output_dir: Path) -> str:
    """Enough GPUs, memory and disk by the estimate of estimate_memory.py; gives what was found, in words.

    N_GPU says how many GPUs are used; NEEDED_DISK_GB and NEEDED_MEMORY_GB replace the estimates. Raises
    RecordError.
    """
    gpus = free_gpu_memory()
    wanted = int(number("N_GPU", 1))
    need = estimate(settings, shape_of(config), wanted)
    if gpus:
        check_gpus(gpus, wanted, need)
    elif wanted > 1 or settings.get("torch_dtype") != "float32":
        raise RecordError(
            f"no GPU is here, these settings are for {wanted}; take SIZE=mini, or a machine with GPUs"
        )
    # One more than is kept: the next is written before the oldest goes.
    kept = int(settings.get("save_total_limit") or 1) + 1
    # The weights are read once per process, by FSDP2 once in all; it gathers a whole checkpoint to write it.
    loaded = need.checkpoint if settings.get("fsdp") else 2 * shape_of(config).total * wanted
    found = check_space(output_dir, kept, kept * need.checkpoint + need.final, GIB + loaded)
    on = f"{wanted} of {len(gpus)} GPUs, about {need.gpu / GIB:.1f} GiB each" if gpus else "the CPU"
    return f"{on}; {found}"


def check_space(output_dir: Path, n_checkpoints: int, disk_bytes: float, memory_bytes: float) -> str:
    """Enough disk for so many checkpoints and the model, and memory; gives what is free, in words.

    NEEDED_DISK_GB and NEEDED_MEMORY_GB replace the bytes. Raises RecordError.
    """
    free = shutil.disk_usage(existing_parent(output_dir)).free
    disk = number("NEEDED_DISK_GB", disk_bytes / GIB)
    if free < disk * GIB:
        raise RecordError(
            f"{output_dir}: {free / GIB:.1f} GiB free, {n_checkpoints} checkpoints and the model need about "
            f"{disk:.1f}; make room, set OUTPUT_ROOT to another disk, or set NEEDED_DISK_GB"
        )
    memory = available_memory()
    ram = number("NEEDED_MEMORY_GB", memory_bytes / GIB)
    if memory < ram * GIB:
        raise RecordError(
            f"{memory / GIB:.1f} GiB of memory available, the run needs about {ram:.1f}; end other programs, "
            "take a smaller SIZE, or set NEEDED_MEMORY_GB"
        )
    return f"{memory / GIB:.0f} GiB of memory, {free / GIB:.0f} GiB of disk free"


def check_gpus(gpus: list[int], wanted: int, need: Estimate) -> None:
    """As many GPUs as asked for, each with the estimated memory free."""
    if len(gpus) < wanted:
        raise RecordError(f"N_GPU={wanted}, but {len(gpus)} GPUs are here; set N_GPU, or take another SIZE")
    tight = [free for free in gpus[:wanted] if free < need.gpu]
    if tight:
        raise RecordError(
            f"a GPU has {min(tight) / GIB:.1f} GiB free, the settings need about {need.gpu / GIB:.1f}; "
            "free it, take another SIZE, or lower per_device_train_batch_size"
        )


def free_gpu_memory() -> list[int]:
    """Free bytes of each GPU that may be used (CUDA_VISIBLE_DEVICES); none without a driver."""
    command = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(",") for line in listed.splitlines() if line.count(",") == 1]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if not visible else set(visible.split(","))
    if chosen and not chosen <= {index.strip() for index, _ in rows}:
        chosen = None  # UUIDs, or MIG: not told apart here
    return [int(free) * 2**20 for index, free in rows if chosen is None or index.strip() in chosen]


def available_memory() -> int:
    """Bytes that a new program can have without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**63


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
