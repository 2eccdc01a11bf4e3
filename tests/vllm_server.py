"""vLLM's own server on the CPU, with EmoCaliber-mini, for the tests that need one."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MINI = Path(__file__).parents[1] / "models" / "EmoCaliber-mini"
MIN_PIXELS, MAX_PIXELS = 3136, 12544
STARTS_WITHIN_S = 1800
ON_CPU = {
    "CUDA_VISIBLE_DEVICES": "",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TORCHDYNAMO_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
SERVE = ["--model", str(MINI), "--served-model-name", MINI.name, "--host", "127.0.0.1"]
SERVE += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--skip-mm-profiling"]
SERVE += ["--no-enable-chunked-prefill", "--no-enable-prefix-caching", "--max-num-batched-tokens", "8192"]
SERVE += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}']
SERVE += ["--mm-processor-kwargs"]
SERVE += [f'{{"size": {{"shortest_edge": {MIN_PIXELS}, "longest_edge": {MAX_PIXELS}}}}}']


@contextmanager
def vllm_server(log: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve until the block ends; gives the address and the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *SERVE, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=output,
            stderr=output,
            env=os.environ | ON_CPU,
            start_new_session=True,
        )
        try:
            _wait_until_it_serves(port, process, log)
            yield f"http://127.0.0.1:{port}/v1", process
        finally:
            stop(process)


def _wait_until_it_serves(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < STARTS_WITHIN_S:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(1)
    raise AssertionError(f"vLLM does not serve after {STARTS_WITHIN_S} s: {log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and the engine that it started; both are in the session of their own."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
