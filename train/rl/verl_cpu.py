"""Lets verl 0.9.1 train without a GPU: a CPU platform and a rollout, by verl's own extension points.

    export VERL_USE_EXTERNAL_MODULES=train.rl.verl_cpu VERL_PLATFORM=cpu PYTHONPATH=$ROOT

`train/rl/verl_grpo.sh` does this where there is no GPU; with a GPU nothing here is loaded. verl imports this
module in the driver and in every Ray worker. It registers

- `PlatformCPU`, by `PlatformRegistry`: torch.cpu with what verl calls on torch.cuda besides;
- the rollout `transformers_cpu` (train/rl/verl_cpu_rollout.py), by `RolloutReplicaRegistry`;

and, no file of verl being changed, replaces three things at run time for which 0.9.1 has no extension point;
each is marked REPLACED. Another version of verl needs a new look at them, so any other is refused.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
import verl.utils.distributed as verl_distributed
import verl.utils.fsdp_utils as verl_fsdp
from torch.distributed.fsdp import CPUOffloadPolicy
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.workers.rollout import base as verl_rollout
from verl.workers.rollout.replica import RolloutReplicaRegistry

VERL_VERSION = "0.9.1"
ROLLOUT_NAME = "transformers_cpu"

if version("verl") != VERL_VERSION:
    raise ImportError(
        f"train/rl/verl_cpu.py is for verl {VERL_VERSION}, not {version('verl')}: install that one"
    )

# verl's FSDP engine runs on any device of torch, but is registered for cuda and npu only: take that of cuda.
os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")


class CPUDevice(types.ModuleType):
    """`torch.cpu` with the functions of `torch.cuda` that verl calls; memory is told as 0 bytes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    @staticmethod
    def _nothing(*_: Any, **__: Any) -> None:
        """What has no meaning without a GPU."""

    is_available = staticmethod(lambda: True)  # this platform is chosen by name only
    current_device = staticmethod(lambda: "cpu")
    get_device_name = staticmethod(lambda *_: "CPU")
    mem_get_info = staticmethod(lambda *_: (0, 1))  # bytes, free and in all
    get_rng_state = staticmethod(lambda *_: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, *_: torch.set_rng_state(state))
    memory_allocated = memory_reserved = staticmethod(lambda *_: 0)
    max_memory_allocated = max_memory_reserved = memory_reserved
    set_device = synchronize = empty_cache = ipc_collect = reset_peak_memory_stats = _nothing


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One process a "GPU": Ray is told by `ray_init.num_gpus` how many logical ones there are."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = CPUDevice("torch.cpu")

    def is_available(self) -> bool:
        """Everywhere."""
        return True

    def current_device(self) -> Any:
        """What verl hands to torch as the device."""
        return "cpu"

    def device_count(self) -> int:
        """Devices that one process sees."""
        return 1

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """There is none."""
        return None, None

    def communication_backend_name(self) -> str:
        """The backend of torch.distributed between CPUs."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Ray sets this one for its logical GPUs."""
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        """Workers ask Ray for logical GPUs."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """None needed."""
        return []

    def is_ipc_supported(self) -> bool:
        """Weights go to the rollout through Ray, not by handles of device memory."""
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No profiler."""
        yield

    def _nothing(self, *_: Any, **__: Any) -> None:
        """What has no meaning without a GPU."""

    set_device = synchronize = set_allocator_settings = empty_cache = _nothing
    profiler_start = profiler_stop = cudart = _nothing


def _load_replica() -> Any:
    # Late: verl imports this module in the middle of its own import, when what that one needs is not there.
    from train.rl.verl_cpu_rollout import TransformersReplica

    return TransformersReplica


RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)

# REPLACED 1: the worker's side of a rollout has no public way to register.
verl_rollout._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = "train.rl.verl_cpu_rollout.TransformersAdapter"


def _initialize_process_group(timeout_second: float | None = None, backend: str | None = None) -> None:
    _verl_initialize_process_group(timeout_second, backend or "cpu:gloo")


# REPLACED 2: verl asks for "cpu:gloo,<device>:<backend>", and torch refuses a device that is named twice.
_verl_initialize_process_group = verl_distributed.initialize_global_process_group_ray
verl_distributed.initialize_global_process_group_ray = _initialize_process_group


# REPLACED 3: the reference model is offloaded to pinned memory, which only an accelerator has.
verl_fsdp.CPUOffloadPolicy = lambda pin_memory=True: CPUOffloadPolicy(pin_memory=False)
