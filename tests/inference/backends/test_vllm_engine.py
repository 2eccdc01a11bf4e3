"""What the engine is started with; its answers are in test_infer_vllm.py."""

import importlib.metadata
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.backends import vllm_engine as module
from inference.backends.backend import Asking, Settings
from inference.backends.vllm_engine import engine_arguments, is_small, prepare_environment

SETTINGS = Settings("m", (), 28, 9000, 2, 5, "auto", 1, 0.8, None, None, "KEY", 9.0)
ASKING = Asking(Path("r"), 784, 1568, temperature=1, top_p=1, max_new_tokens=9, seed=4)
NAMES = ("VLLM_PLUGINS", "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "VLLM_LOGGING_LEVEL")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    changed: dict[str, str] = {name: value for name, value in os.environ.items() if name not in NAMES}
    monkeypatch.setattr(os, "environ", changed)
    monkeypatch.setattr(module, "physical_cores", lambda: 6)
    return changed


def test_plugins_are_loaded_but_that_of_ms_swift(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"vllm.general_plugins": {"own": "mine.models:register", "swift_x": "swift.model:register"}}
    installed["vllm.platform_plugins"] = {"npu": "vllm_npu:register"}

    def entry_points(group: str) -> list[Any]:
        return [SimpleNamespace(name=name, value=value) for name, value in installed.get(group, {}).items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    prepare_environment(on_cpu=False, weights_bytes=None, verbose=False)
    assert environment["VLLM_PLUGINS"] == "own,npu"
    assert "OMP_NUM_THREADS" not in environment


def test_what_the_user_has_set_stays(environment: dict[str, str]) -> None:
    environment |= {"VLLM_PLUGINS": "swift_x", "OMP_NUM_THREADS": "3"}
    prepare_environment(on_cpu=True, weights_bytes=1, verbose=True)
    assert (environment["VLLM_PLUGINS"], environment["OMP_NUM_THREADS"]) == ("swift_x", "3")
    assert environment["VLLM_LOGGING_LEVEL"] == "INFO"


@pytest.mark.parametrize(
    ("weights_bytes", "threads", "cache_gib"),
    [(64 * 2**20, "1", "1"), (64 * 2**20 + 1, "6", "4"), (None, "6", "4")],
)
def test_small_weights_are_computed_by_one_thread(
    weights_bytes: int | None, threads: str, cache_gib: str, environment: dict[str, str]
) -> None:
    prepare_environment(on_cpu=True, weights_bytes=weights_bytes, verbose=False)
    assert environment["OMP_NUM_THREADS"] == threads
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == cache_gib
    assert is_small(weights_bytes) == (threads == "1")


def test_arguments_of_the_engine_with_and_without_a_gpu() -> None:
    on_gpu = engine_arguments(SETTINGS, ASKING, on_cpu=False)
    on_cpu = engine_arguments(SETTINGS, ASKING, on_cpu=True)
    for arguments in (on_gpu, on_cpu):
        assert (arguments["seed"], arguments["max_num_seqs"], arguments["trust_remote_code"]) == (4, 5, False)
        assert arguments["limit_mm_per_prompt"] == {"image": 2, "video": 0}
        size = {"shortest_edge": 784, "longest_edge": 1568}
        assert arguments["mm_processor_kwargs"] == {"size": size}
    assert (on_gpu["dtype"], on_gpu["gpu_memory_utilization"]) == ("auto", 0.8)
    assert (on_cpu["dtype"], on_cpu["max_num_batched_tokens"]) == ("float32", 9000)
    assert "gpu_memory_utilization" not in on_cpu
    half = engine_arguments(replace(SETTINGS, dtype="bfloat16"), ASKING, on_cpu=True)
    assert half["dtype"] == "bfloat16"
