"""How busy the GPUs are while a run lasts, as nvidia-smi tells it once a second."""

import contextlib
import subprocess
import threading
from collections.abc import Iterable
from statistics import mean
from typing import Any

_QUERY = [
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    "-l",
    "1",
]


class GpuWatch:
    """Watches from its making to `close`; where there is no nvidia-smi it sees nothing."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        with contextlib.suppress(OSError):
            # Through a pipe, so that it ends when this process is killed.
            self._process = subprocess.Popen(
                _QUERY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
            )
            self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
            self._reader.start()

    def _read(self, lines: Iterable[str]) -> None:
        self._lines.extend(lines)

    def close(self) -> dict[str, Any]:
        """Give, by GPU, the mean utilisation in percent and the most memory used in MiB; empty without."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join(timeout=5)
        seen: dict[str, list[tuple[float, float]]] = {}
        for line in list(self._lines):
            with contextlib.suppress(ValueError):  # a last line cut off, or "[N/A]"
                index, busy, used = line.split(",")
                sample = float(busy), float(used)
                seen.setdefault(index.strip(), []).append(sample)
        return {
            index: {
                "utilisation_percent": round(mean(busy for busy, _ in samples), 1),
                "memory_mib": max(used for _, used in samples),
            }
            for index, samples in seen.items()
        }
