"""Runs a script so that a signal ends all of it: every process that it has started, not the script alone.

    python emocaliber/supervise.py SCRIPT [ARGUMENT ...]

Started by its path, not by `python -m`, which would first look for modules in the user's folder.

On SIGTERM, SIGINT or SIGHUP all processes below this one, orphans included, get SIGTERM, and after GRACE_S
seconds SIGKILL. Ctrl-C reaches all of them by itself: they have PATIENCE_S seconds before that. The exit
status is then 128 + the signal's number, else the script's own. A script finds EMOCALIBER_SUPERVISED set
and does not start this again.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser

GRACE_S = 30
"""Longer than train/rl/verl_grpo.sh takes to end verl and Ray."""
PATIENCE_S = 10
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Stopped(BaseException):
    """A signal that ends the run; its number is the argument."""


def main() -> int:
    """Run the script and give its status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("script", help="for bash")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    # Processes whose parent has ended become this one's children, so that none is missed below.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        _on_signals(_stop)
        environment = os.environ | {"EMOCALIBER_SUPERVISED": "1"}
        status = subprocess.Popen(["bash", args.script, *args.arguments], env=environment).wait()
        return status if status >= 0 else 128 - status
    except Stopped as stopped:
        _on_signals(signal.SIG_IGN)
        number = int(stopped.args[0])
        if number == signal.SIGINT:
            _wait_for_all(PATIENCE_S)
        _end_all(GRACE_S)
        return 128 + number


def _on_signals(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    """Set the handler of the signals, but of one that was ignored at the start (nohup)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _stop(number: int, _frame: Any) -> None:
    raise Stopped(number)


def _end_all(grace_s: float) -> None:
    """End every process below this one and wait until none is left."""
    _send(signal.SIGTERM)
    _wait_for_all(grace_s)
    while _descendants():  # what is killed may have started others
        _send(signal.SIGKILL)
        time.sleep(0.1)


def _wait_for_all(most_s: float) -> None:
    until = time.monotonic() + most_s
    while _descendants() and time.monotonic() < until:
        time.sleep(0.1)


def _send(number: signal.Signals) -> None:
    for process in _descendants():
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(process, number)


def _descendants() -> list[int]:
    """The processes below this one that have not ended. Those of its children that have are forgotten."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            children[int(parent)].append((int(folder.name), state))
    found, pending = [], [os.getpid()]
    while pending:
        for process, state in children[pending.pop()]:
            pending.append(process)
            if state != "Z":
                found.append(process)
    with suppress(ChildProcessError):  # one that has ended stays in /proc until its status is taken
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return found


if __name__ == "__main__":
    sys.exit(main())
