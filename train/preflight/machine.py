"""What a fine-tuning run needs: framework versions, a whole model folder, GPUs, memory, disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emocaliber.environment import missing
from emocaliber.jsonl import RecordError
from train.preflight.variables import number

GIB = 2**30

SETTINGS = Path(__file__).parents[1] / "settings"

VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "in_channels": 3,
}

PUBLISHED: dict[str, dict[str, Any]] = {  # config.json of Qwen2.5-VL, the numbers that matter here
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "vision_config": VISION,
    },
    "3b": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "vision_config": VISION,
    },
}

SIZES = {"7b_8gpu": ("7b", 8), "7b_lora_1gpu": ("7b", 1), "3b_2gpu": ("3b", 2)}


@dataclass(frozen=True)
class Shape:
    """What a Qwen2.5-VL is made of, in weights (not bytes)."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    embeddings: int  # one table, or two where the output has its own
    one_layer: int
    key_value: int
    vision: int
    merger: int

    @property
    def language(self) -> int:
        """The language model with its embeddings."""
        return self.embeddings + self.layers * self.one_layer + self.hidden

    @property
    def total(self) -> int:
        """All weights."""
        return self.language + self.vision + self.merger

    def adapters(self, rank: int) -> int:
        """Low-rank adapters on every linear layer of the language model."""
        h, i, kv = self.hidden, self.intermediate, self.key_value
        return self.layers * rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + i))


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU by purpose, and bytes on the disk for one checkpoint and for the finished model."""

    frozen: float
    trained: float
    gathered: float
    activations: float
    logits: float
    checkpoint: float
    final: float

    @property
    def gpu(self) -> float:
        """All that one GPU holds at once."""
        return self.frozen + self.trained + self.gathered + self.activations + self.logits


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Count the weights of a Qwen2.5-VL from its config.json, nested (`text_config`) or flat."""
    text = {**config, **config.get("text_config", {})}
    h, i = text["hidden_size"], text["intermediate_size"]
    kv = h // text["num_attention_heads"] * text["num_key_value_heads"]
    attention = 2 * h * h + h + 2 * (h * kv + kv)  # q, k and v have a bias, o has none
    seen = config["vision_config"]
    v, inner, merged = seen["hidden_size"], seen["intermediate_size"], seen["spatial_merge_size"] ** 2
    channels = seen.get("in_channels", seen.get("in_chans", 3))
    patch = v * channels * seen["temporal_patch_size"] * seen["patch_size"] ** 2
    block = 4 * (v * v + v) + 2 * (v * inner + inner) + inner * v + v + 2 * v
    wide = v * merged
    return Shape(
        hidden=h,
        intermediate=i,
        layers=text["num_hidden_layers"],
        vocabulary=text["vocab_size"],
        embeddings=text["vocab_size"] * h * (1 if text["tie_word_embeddings"] else 2),
        one_layer=attention + 3 * h * i + 2 * h,
        key_value=kv,
        vision=patch + seen["depth"] * block,
        merger=v + wide * wide + wide + wide * h + h,
    )


def estimate(settings: Mapping[str, Any], shape: Shape, gpus: int) -> Estimate:
    """The arithmetic in this file's head, for one settings file of `swift sft`."""
    is_full = settings["tuner_type"] == "full"
    trained = shape.language if is_full else shape.adapters(settings["lora_rank"])
    if is_full and not settings["freeze_vit"]:
        trained = shape.total
    frozen = shape.total - trained if is_full else shape.total
    is_sharded = bool(settings.get("fsdp"))
    shards = gpus if is_sharded else 1
    tokens = settings["per_device_train_batch_size"] * settings["max_length"]
    saves_inputs = is_sharded or settings.get("gradient_checkpointing")
    one_layer = 2 * (8 * shape.hidden + 3 * shape.intermediate)
    layers = shape.layers * (2 * shape.hidden if saves_inputs else one_layer)
    table = shape.vocabulary * shape.hidden
    return Estimate(
        frozen=2 * frozen / shards,
        trained=16 * trained / shards,
        gathered=2 * (table + shape.one_layer) if is_sharded else 0,
        activations=tokens * (layers + (one_layer if saves_inputs else 0)),
        logits=10 * shape.vocabulary * tokens / 2,
        checkpoint=(4 + 8) * trained + (2 * frozen if is_full else 0),
        final=4 * trained + 2 * frozen if is_full else 2 * shape.total,
    )


def table() -> str:
    """The Markdown table of train/README.md: one row per size, the same for both stages."""
    import yaml

    lines = [
        "| size | frozen | trained | gathered | activations | logits | one GPU | checkpoint | final model |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, (model, gpus) in SIZES.items():
        settings = yaml.safe_load((SETTINGS / f"stage1_{size}.yaml").read_text(encoding="utf-8"))
        one = estimate(settings, shape_of(PUBLISHED[model]), gpus)
        parts = (one.frozen, one.trained, one.gathered, one.activations, one.logits, one.gpu)
        cells = [f"{part / GIB:.1f}" for part in (*parts, one.checkpoint, one.final)]
        lines.append(f"| `{size}` | {' | '.join(cells)} |")
    return "\n".join(lines)


ROOT = Path(__file__).resolve().parents[2]


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


def sft_machine_check_machine(
    settings: Mapping[str, Any], config: Mapping[str, Any], output_dir: Path
) -> str:
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


GPU_BYTES = 79 * GIB
"""What an H100 or A100 of "80 GB" has."""
PROCESSES_BYTES = 6 * GIB
"""verl's six processes and Ray's daemons on the host, measured with the mini model."""


@dataclass(frozen=True)
class RLEstimate:
    """Bytes: on one GPU in each phase, on the host, on the disk for one checkpoint."""

    training: float
    generation: float
    host: float
    checkpoint: float

    @property
    def gpu(self) -> float:
        """What one GPU needs."""
        return max(self.training, self.generation)


def estimate_rl(config: Mapping[str, Any], shape: Shape, gpu_bytes: float = GPU_BYTES) -> RLEstimate:
    """The arithmetic in this file's head, for a composed config of verl's PPO trainer."""
    actor, model = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["model"]
    rollout, data = config["actor_rollout_ref"]["rollout"], config["data"]
    gpus = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
    rank = model["lora_rank"]
    trained = shape.adapters(rank) if rank else shape.total
    weights = 4 * (shape.total + (trained if rank else 0)) / gpus
    moments, gradients = 8 * trained / gpus, 4 * trained / gpus
    tokens = actor["ppo_micro_batch_size_per_gpu"] * (data["max_prompt_length"] + data["max_response_length"])
    one_layer = 2 * (8 * shape.hidden + 3 * shape.intermediate)
    per_layer = 2 * shape.hidden if model["enable_gradient_checkpointing"] else one_layer
    logits = 0 if model["use_fused_kernels"] else 10 * shape.vocabulary
    activations = tokens * (shape.layers * per_layer + one_layer + logits)
    gathered = 2 * (shape.vocabulary * shape.hidden + shape.one_layer)
    offloaded = weights if actor["fsdp_config"]["param_offload"] else 0.0
    offloaded += moments if actor["fsdp_config"]["optimizer_offload"] else 0.0
    generation = rollout["gpu_memory_utilization"] * gpu_bytes + weights + moments
    if actor["fsdp_config"]["optimizer_offload"]:
        generation -= moments
    return RLEstimate(
        training=weights + moments + gradients + gathered + activations,
        generation=generation,
        host=PROCESSES_BYTES + (0 if rank else 4 * shape.total) + gpus * offloaded,
        checkpoint=4 * shape.total + 8 * trained,
    )


def check_machine(config: Mapping[str, Any], shape: Shape) -> str:
    """Enough GPUs, memory and disk; gives what was found, in words. Raises RecordError.

    NEEDED_DISK_GB and NEEDED_MEMORY_GB replace the estimates.
    """
    trainer = config["trainer"]
    wanted = trainer["n_gpus_per_node"]
    need = estimate_rl(config, shape)
    gpus = free_gpu_memory() if trainer["device"] != "cpu" else []
    if trainer["device"] != "cpu":
        if len(gpus) < wanted:
            raise RecordError(
                f"N_GPU={wanted}, but {len(gpus)} GPUs are here; set N_GPU, or take another SIZE"
            )
        least = min(gpus[:wanted])
        if least < need.training:
            raise RecordError(
                f"a GPU has {least / GIB:.1f} GiB free, training needs about {need.training / GIB:.1f}; free "
                "it, take another SIZE, or lower actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
            )
    # One more than is kept, as the next is written before the oldest goes, and the finished model.
    kept = (trainer["max_actor_ckpt_to_keep"] or 1) + 1
    disk = kept * need.checkpoint + 4 * shape.total
    found = check_space(Path(trainer["default_local_dir"]), kept, disk, need.host)
    on = f"{wanted} of {len(gpus)} GPUs" if gpus else "the CPU"
    return f"{on}; {found}"
