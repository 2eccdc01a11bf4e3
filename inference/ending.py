"""Ends a command that writes all or nothing: by Ctrl-C, SIGTERM or a closed pipe, without a traceback."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


def run_to_its_end(command: Callable[[], int]) -> int:
    """Run a command; what interrupts it unwinds it, so that it clears away what is half-written.

    Returns:
        Its own status, or 128 and the number of the signal: 130 for Ctrl-C, 141 for a standard output that is
        closed (`| head`).
    Raises:
        SystemExit: 143, for SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        status = command()
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is still to be printed would raise once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the clearing away
    raise SystemExit(128 + number)
