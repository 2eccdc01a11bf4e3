"""Runs a script so that a signal ends all of it: every process that it has started, not the script alone.

    python -m emocaliber.supervise SCRIPT [ARGUMENT ...]

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
import time
from collections import defaultdict
from collections.abc import Callable
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


def main() -> None:
    """Run the script and exit with its status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("script", help="for bash")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    # Processes whose parent has ended become this one's children, so that none is missed below.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        on_signals(stop)
        environment = os.environ | {"EMOCALIBER_SUPERVISED": "1"}
        status = subprocess.Popen(["bash", args.script, *args.arguments], env=environment).wait()
    except Stopped as stopped:
        on_signals(signal.SIG_IGN)
        if stopped.args[0] == signal.SIGINT:
            wait_for_all(PATIENCE_S)
        end_all(GRACE_S)
        raise SystemExit(128 + int(stopped.args[0])) from None
    raise SystemExit(status if status >= 0 else 128 - status)


def on_signals(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    """Set the handler of the signals, but of one that was ignored at the start (nohup)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def stop(number: int, _frame: Any) -> None:
    """Raise Stopped."""
    raise Stopped(number)


def end_all(grace_s: float) -> None:
    """End every process below this one and wait until none is left."""
    send(signal.SIGTERM)
    wait_for_all(grace_s)
    while descendants():  # what is killed may have started others
        send(signal.SIGKILL)
        time.sleep(0.1)


def wait_for_all(most_s: float) -> None:
    """Wait until no process is left below this one, or for so many seconds."""
    until = time.monotonic() + most_s
    while descendants() and time.monotonic() < until:
        time.sleep(0.1)


def send(number: signal.Signals) -> None:
    """Send a signal to every process below this one."""
    for process in descendants():
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue  # it has ended by itself


def descendants() -> list[int]:
    """The processes below this one that have not ended. Those of its children that have are forgotten."""
    children = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[int(parent)].append((int(folder.name), state))
    found, pending = [], [os.getpid()]
    while pending:
        for process, state in children[pending.pop()]:
            pending.append(process)
            if state != "Z":
                found.append(process)
    reap()
    return found


def reap() -> None:
    """Take the status of children that have ended, as they stay in /proc until then."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
