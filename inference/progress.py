"""The progress of a run on standard error."""

import sys
import time
from typing import Any

from tqdm import tqdm


class Progress:
    """A bar with the rate and the time left, from the moment when an engine is ready."""

    def __init__(self, total: int, initial: int) -> None:
        self._total = total
        self._initial = initial
        self._bar: Any = None
        self._started: float | None = None

    def update(self, n: int) -> None:
        """Count rows; the first call starts the clock."""
        if self._bar is None:
            self._started = time.monotonic()
            # Without a terminal every refresh is a line in a log.
            interval_s = 0.1 if sys.stderr.isatty() else 5.0
            self._bar = tqdm(
                total=self._total, initial=self._initial, unit="row", mininterval=interval_s, smoothing=0.05
            )
        self._bar.update(n)

    def close(self) -> float | None:
        """End the bar; gives the seconds since the clock started."""
        if self._bar is None or self._started is None:
            return None
        self._bar.close()
        return time.monotonic() - self._started
