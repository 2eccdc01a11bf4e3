"""Whether what a run needs is here: the pinned frameworks, a whole Qwen2.5-VL, GPUs, disk and memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from emocaliber.environment import missing
from emocaliber.jsonl import RecordError
from train.preflight.variables import number

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30


def check_versions() -> None:
    """The pinned frameworks, in their versions. Raises RecordError that names what is missing."""
    lacking = missing(ROOT / "requirement-common.txt")
    if lacking:
        raise RecordError(f"this environment lacks {', '.join(lacking)}; start through train/*.sh")


def check_model(model: str) -> float:
    """Give the number of weights in a whole local folder; `owner/name` is left to the hub and gives 0.

    Raises RecordError for a folder without config, processor or all of its weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return 0
        raise RecordError(f"{model}: no such model folder; give a folder or a hub name as MODEL")
    remedy = "give a complete checkpoint as MODEL"
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise RecordError(f"{model}: no config.json with *.safetensors in it; {remedy}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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
    is_float32 = config.get("dtype", config.get("torch_dtype")) == "float32"
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / (4 if is_float32 else 2)


def check_machine(output_dir: Path, n_gpus: int, n_weights: float, n_kept: int) -> str:
    """Enough GPUs, disk and memory; gives what was found, in words.

    Args:
        output_dir: on whose disk the checkpoints go.
        n_gpus: that the run uses; 0 for a run on the CPU.
        n_weights: that are trained; 0 where they are few or not known, and nothing is asked of the disk.
        n_kept: checkpoints that are kept.
    Raises:
        RecordError: something is not there. NEEDED_DISK_GB goes before what is asked of the disk;
            NEEDED_MEMORY_GB has to be free where it is given.
    """
    import psutil

    on = "the CPU"
    if n_gpus:
        n_here = len(visible_gpus())
        if not n_here:
            raise RecordError(
                f"no GPU is here, these settings are for {n_gpus}; take SIZE=mini, or a machine with GPUs"
            )
        if n_here < n_gpus:
            raise RecordError(f"N_GPU={n_gpus}, but {n_here} GPUs are here; set N_GPU, or take another SIZE")
        on = f"{n_gpus} of {n_here} GPUs"
    existing = next(path for path in (output_dir.absolute(), *output_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    # Weights and optimizer, about 16 bytes a weight. One more than is kept: the next is written before the
    # oldest goes.
    disk = number("NEEDED_DISK_GB", 16 * n_weights * (n_kept + 1) / GIB)
    if free < disk * GIB:
        raise RecordError(
            f"{output_dir}: {free / GIB:.1f} GiB free, {n_kept + 1} checkpoints and the model need "
            f"about {disk:.1f}; make room, set OUTPUT_ROOT to another disk, or set NEEDED_DISK_GB"
        )
    memory: int = psutil.virtual_memory().available
    ram = number("NEEDED_MEMORY_GB", 0)
    if memory < ram * GIB:
        raise RecordError(
            f"{memory / GIB:.1f} GiB of memory available, the run needs about {ram:.1f}; end other programs, "
            "take a smaller SIZE, or set NEEDED_MEMORY_GB"
        )
    return f"{on}; {memory / GIB:.0f} GiB of memory, {free / GIB:.0f} GiB of disk free"


def visible_gpus() -> list[str]:
    """The numbers of the GPUs that may be used (CUDA_VISIBLE_DEVICES); none without a driver."""
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = listed.split()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = set(visible.split(",") if visible else gpus)
    if not chosen <= set(gpus):
        return gpus  # UUIDs, or MIG: not told apart here
    return [gpu for gpu in gpus if gpu in chosen]
