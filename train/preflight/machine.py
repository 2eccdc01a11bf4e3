"""What a run needs of the machine, estimated: GPUs, memory, disk; and whether it is there, with its model.

Arithmetic, not a measurement: bytes on one of N GPUs. FSDP gives each an Nth of weights, gradients and
optimizer. Stages 1 and 2, by ms-swift:

    frozen        2 bytes a weight in bfloat16
    trained       4 (the weight, float32 under FSDP2 and for adapters) + 4 (gradient) + 8 (Adam's two moments)
    gathered      2 bytes for each weight of the largest module and of one layer, whole while they compute
    activations   b x L tokens (b rows per device, L = max_length): with checkpointing 2 bytes x hidden for
                  each layer's input, and one layer recomputed, 2 x (8 hidden + 3 intermediate)
    logits        10 bytes (bfloat16, float32 and its gradient) x vocabulary for half of the tokens: the
                  question and its image are not learned from

Stage 3, by verl, needs the larger of two phases: training (all of the following) and generation (vLLM's
gpu_memory_utilization x the GPU, the actor's weights, which are there at least while they are handed over,
and its moments, unless they are offloaded). The reference model is on the host: 4 P bytes, besides what is
offloaded there.

    weights       4 P, float32, of P weights; optimizer 12 P; with adapters (LoRA) of A weights 4 A and 12 A
    gathered      as above
    activations   as above, L = prompt + answer at their limits; fused kernels hold the logits of few tokens
                  at once, else 10 bytes x vocabulary for each

CUDA itself and the fragments of its allocator take some GiB more. L is the worst case: most rows are shorter.
"""

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

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
GPU_BYTES = 79 * GIB
"""What an H100 or A100 of "80 GB" has."""
PROCESSES_BYTES = 6 * GIB
"""verl's six processes and Ray's daemons on the host, measured with the mini model."""

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

    @property
    def gathered(self) -> int:
        """Bytes of the largest module, a table of embeddings, and of one layer, whole in 16 bits."""
        return 2 * (self.vocabulary * self.hidden + self.one_layer)

    @property
    def layer_activations(self) -> int:
        """Bytes a token that the backward pass of one layer needs."""
        return 2 * (8 * self.hidden + 3 * self.intermediate)

    def kept_of_layer(self, checkpointing: bool) -> int:
        """Bytes a token that a layer keeps from the forward pass: its input alone with checkpointing."""
        return 2 * self.hidden if checkpointing else self.layer_activations

    def adapters(self, rank: int) -> int:
        """Low-rank adapters on every linear layer of the language model."""
        h, i, kv = self.hidden, self.intermediate, self.key_value
        return self.layers * rank * (2 * (h + h) + 2 * (h + kv) + 3 * (h + i))


@dataclass(frozen=True)
class SFTEstimate:
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


def estimate_sft(settings: Mapping[str, Any], shape: Shape, gpus: int) -> SFTEstimate:
    """The arithmetic in this file's head, for one settings file of `swift sft`."""
    is_full = settings["tuner_type"] == "full"
    trained = shape.language if is_full else shape.adapters(settings["lora_rank"])
    if is_full and not settings["freeze_vit"]:
        trained = shape.total
    frozen = shape.total - trained if is_full else shape.total
    is_sharded = bool(settings.get("fsdp"))
    shards = gpus if is_sharded else 1
    tokens = settings["per_device_train_batch_size"] * settings["max_length"]
    saves_inputs = bool(is_sharded or settings.get("gradient_checkpointing"))
    recomputed = shape.layer_activations if saves_inputs else 0
    return SFTEstimate(
        frozen=2 * frozen / shards,
        trained=16 * trained / shards,
        gathered=shape.gathered if is_sharded else 0,
        activations=tokens * (shape.layers * shape.kept_of_layer(saves_inputs) + recomputed),
        logits=10 * shape.vocabulary * tokens / 2,
        checkpoint=(4 + 8) * trained + (2 * frozen if is_full else 0),
        final=4 * trained + 2 * frozen if is_full else 2 * shape.total,
    )


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
    kept = shape.layers * shape.kept_of_layer(model["enable_gradient_checkpointing"])
    logits = 0 if model["use_fused_kernels"] else 10 * shape.vocabulary
    activations = tokens * (kept + shape.layer_activations + logits)
    offloaded = weights if actor["fsdp_config"]["param_offload"] else 0.0
    offloaded += moments if actor["fsdp_config"]["optimizer_offload"] else 0.0
    generation = rollout["gpu_memory_utilization"] * gpu_bytes + weights + moments
    if actor["fsdp_config"]["optimizer_offload"]:
        generation -= moments
    return RLEstimate(
        training=weights + moments + gradients + shape.gathered + activations,
        generation=generation,
        host=PROCESSES_BYTES + (0 if rank else 4 * shape.total) + gpus * offloaded,
        checkpoint=4 * shape.total + 8 * trained,
    )


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


@dataclass(frozen=True)
class Need:
    """What a run is going to use: GPUs with bytes each, bytes on the host and on the disk.

    `n_checkpoints` are on the disk at once. `is_for_cpu`: it does without GPUs. `to_lower`: the setting that
    makes it fit on a smaller GPU.
    """

    n_gpus: int
    gpu: float
    host: float
    disk: float
    n_checkpoints: int
    is_for_cpu: bool
    to_lower: str


def sft_need(settings: Mapping[str, Any], config: Mapping[str, Any]) -> Need:
    """Of `swift sft`, of a model with this config, on N_GPU GPUs; float32 may do without."""
    n_gpus = int(number("N_GPU", 1))
    shape = shape_of(config)
    one = estimate_sft(settings, shape, n_gpus)
    # One more than is kept: the next is written before the oldest goes.
    n_checkpoints = int(settings.get("save_total_limit") or 1) + 1
    # The weights are read once per process, by FSDP2 once in all; it gathers a whole checkpoint to write it.
    loaded = one.checkpoint if settings.get("fsdp") else 2 * shape.total * n_gpus
    return Need(
        n_gpus=n_gpus,
        gpu=one.gpu,
        host=GIB + loaded,
        disk=n_checkpoints * one.checkpoint + one.final,
        n_checkpoints=n_checkpoints,
        is_for_cpu=n_gpus == 1 and settings.get("torch_dtype") == "float32" and not free_gpu_memory(),
        to_lower="per_device_train_batch_size",
    )


def rl_need(settings: Mapping[str, Any], config: Mapping[str, Any]) -> Need:
    """Of verl with these composed settings, of a model with this config."""
    trainer = settings["trainer"]
    shape = shape_of(config)
    one = estimate_rl(settings, shape)
    n_checkpoints = (trainer["max_actor_ckpt_to_keep"] or 1) + 1
    return Need(
        n_gpus=trainer["n_gpus_per_node"],
        gpu=one.training,  # vLLM takes a share of whatever GPU it finds
        host=one.host,
        disk=n_checkpoints * one.checkpoint + 4 * shape.total,
        n_checkpoints=n_checkpoints,
        is_for_cpu=trainer["device"] == "cpu",
        to_lower="actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    )


def check_machine(need: Need, output_dir: Path) -> str:
    """Enough GPUs, disk and memory; gives what was found, in words.

    NEEDED_DISK_GB and NEEDED_MEMORY_GB replace the estimates. Raises RecordError.
    """
    on = "the CPU"
    if not need.is_for_cpu:
        gpus = free_gpu_memory()
        if not gpus:
            raise RecordError(
                f"no GPU is here, these settings are for {need.n_gpus}; "
                "take SIZE=mini, or a machine with GPUs"
            )
        if len(gpus) < need.n_gpus:
            raise RecordError(
                f"N_GPU={need.n_gpus}, but {len(gpus)} GPUs are here; set N_GPU, or take another SIZE"
            )
        least = min(gpus[: need.n_gpus])
        if least < need.gpu:
            raise RecordError(
                f"a GPU has {least / GIB:.1f} GiB free, the settings need about {need.gpu / GIB:.1f}; "
                f"free it, take another SIZE, or lower {need.to_lower}"
            )
        on = f"{need.n_gpus} of {len(gpus)} GPUs, about {need.gpu / GIB:.1f} GiB each"
    free = shutil.disk_usage(existing_parent(output_dir)).free
    disk = number("NEEDED_DISK_GB", need.disk / GIB)
    if free < disk * GIB:
        raise RecordError(
            f"{output_dir}: {free / GIB:.1f} GiB free, {need.n_checkpoints} checkpoints and the model need "
            f"about {disk:.1f}; make room, set OUTPUT_ROOT to another disk, or set NEEDED_DISK_GB"
        )
    memory = available_memory()
    ram = number("NEEDED_MEMORY_GB", need.host / GIB)
    if memory < ram * GIB:
        raise RecordError(
            f"{memory / GIB:.1f} GiB of memory available, the run needs about {ram:.1f}; end other programs, "
            "take a smaller SIZE, or set NEEDED_MEMORY_GB"
        )
    return f"{on}; {memory / GIB:.0f} GiB of memory, {free / GIB:.0f} GiB of disk free"


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
