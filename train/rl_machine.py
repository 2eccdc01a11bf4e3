"""What a stage-3 run of verl needs of the machine: an estimate of memory and disk; is it there?

Arithmetic, not a measurement. Per GPU, in bytes, with FSDP over N GPUs and weights P (adapters A):

    weights      4 P / N, float32
    optimizer    12 P / N: gradients and Adam's two moments; with LoRA 12 A / N
    gathered     2 bytes for each weight of the largest module and of one layer, whole while they compute
    activations  b x L tokens (b = micro-batch, L = prompt + answer at their limits), as estimate_memory.py
                 has it; fused kernels hold the logits of few tokens at once, else 10 bytes x vocabulary each
    vLLM         gpu_memory_utilization x the GPU; it sleeps while the actor trains

A step needs the larger of two phases: training (weights, optimizer, gathered, activations) and generation
(vLLM, the actor's weights, which are there at least while they are handed over, and its moments, unless they
are offloaded). The reference model is on the host: 4 P bytes in all, besides what is offloaded there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimate_memory import GIB, Shape
from sft_machine import check_space, free_gpu_memory

from emocaliber.jsonl import RecordError

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
