"""The progress of a run on standard error, and what its closing lines need."""

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
        self._made = time.monotonic()
        self._started: float | None = None
        self.first_row_s: float | None = None
        """Seconds from the start, loading included, to the first row; None before it."""
        self.n_failed = 0
        """The rows of this start with an error."""

    def update(self, n: int, n_failed: int = 0) -> None:
        """Count rows, some of them with an error; the first call starts the clock of the rate."""
        if self._bar is None:
            self._started = time.monotonic()
            # Without a terminal every refresh is a line in a log.
            interval_s = 0.1 if sys.stderr.isatty() else 5.0
            self._bar = tqdm(
                total=self._total, initial=self._initial, unit="row", mininterval=interval_s, smoothing=0.05
            )
        if n and self.first_row_s is None:
            self.first_row_s = time.monotonic() - self._made
        self.n_failed += n_failed
        if n_failed:
            self._bar.set_postfix_str(f"{self.n_failed} with an error", refresh=False)
        self._bar.update(n)

    def close(self) -> float | None:
        """End the bar; gives the seconds since the clock started."""
        if self._bar is None or self._started is None:
            return None
        self._bar.close()
        return time.monotonic() - self._started
