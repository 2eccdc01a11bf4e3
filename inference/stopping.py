"""Ending a run by Ctrl-C or SIGTERM with everything that is finished on disk."""

import signal
from types import FrameType


class Stopper:
    """Turns SIGINT and SIGTERM into a flag once `gently` is set; before, and a second time, they raise."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.gently = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, number
        if not (self.gently and is_first):
            raise KeyboardInterrupt

    @property
    def status(self) -> int:
        """The exit status of a program that the signal ended."""
        return 128 + (self.signal or signal.SIGINT)
