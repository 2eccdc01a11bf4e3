"""Shows how a stage-3 run goes, from the log that its reward writes: while it runs, or afterwards.

    python train/monitor.py train/output/mini/stage3/rewards.jsonl       # once
    python train/monitor.py LOG --follow --figure monitor.png            # until Ctrl-C
    python train/monitor.py LOG --follow --exit-on-alarm > monitor.log   # for scripts

Prints a line "alarm: ..." when confidences go flat, one value makes up most of them, or the parse rate falls.
Exit status: 0, 2 for a mistake in what was given, 3 for an alarm with --exit-on-alarm.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from emocaliber.command_line import CommandParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emocaliber.rollout_statistics import Rollout

ALARM_STATUS = 3
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def main() -> None:
    """Read, print and draw; again every few seconds with --follow."""
    arguments = parse_arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without block characters still gets the numbers
    from emocaliber.jsonl import RecordError

    try:
        status = watch(arguments)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 0
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    raise SystemExit(status)


def parse_arguments() -> argparse.Namespace:
    """The command line; ends the command for a window that could never raise the alarm it is asked to."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("log", type=Path, help="rewards.jsonl of a stage-3 run")
    how_often = parser.add_mutually_exclusive_group()
    how_often.add_argument("--once", action="store_true", help="print once and end (the default)")
    how_often.add_argument(
        "--follow", action="store_true", help="go on as the log grows; wait for it to begin"
    )
    parser.add_argument("--figure", type=Path, metavar="PNG", help="also draw the course of the run")
    parser.add_argument(
        "--window", type=int, default=512, metavar="N", help="rollouts a window (default 512)"
    )
    parser.add_argument(
        "--refresh", type=float, default=10, metavar="SECONDS", help="for --follow (default 10)"
    )
    parser.add_argument("--exit-on-alarm", action="store_true", help="end with status 3 at the first alarm")
    arguments = parser.parse_args()
    if arguments.window < 1:
        parser.error(f"--window {arguments.window}: give at least 1")
    if not 0 < arguments.refresh < float("inf"):
        parser.error(f"--refresh {arguments.refresh}: give a number of seconds above 0")
    if arguments.figure and arguments.figure.suffix.lower() != ".png":
        parser.error(f"--figure {arguments.figure}: only PNG is drawn; give a name that ends in .png")
    return arguments


def watch(arguments: argparse.Namespace) -> int:
    """Show the log once, or until interrupted; give the exit status."""
    from emocaliber.jsonl import RecordError
    from emocaliber.reward_log import RewardLogReader
    from emocaliber.rollout_statistics import LEAST_FOR_ALARM, rollout_of

    if arguments.exit_on_alarm and arguments.window < LEAST_FOR_ALARM:
        raise RecordError(
            f"--window {arguments.window}: alarms need windows of {LEAST_FOR_ALARM} rollouts; give no less"
        )
    reader = RewardLogReader(arguments.log)
    rollouts: list[Rollout] = []
    while True:
        n_before = len(rollouts)
        if not arguments.follow or is_there(arguments.log):
            for row in reader.new_rows():
                rollouts.append(rollout_of(row, f"{arguments.log}:{len(rollouts) + 1}"))
        if not rollouts and not arguments.follow:
            raise RecordError(f"{arguments.log}: no rollouts yet; wait for the first step, or use --follow")
        if len(rollouts) > n_before or not rollouts:
            found = show(rollouts, arguments)
            if found and arguments.exit_on_alarm:
                return ALARM_STATUS
        if not arguments.follow:
            return 0
        time.sleep(arguments.refresh)


def is_there(log: Path) -> bool:
    """Has the run begun to write? Raises RecordError where not even the folder is there."""
    from emocaliber.jsonl import RecordError

    if not log.exists() and not log.parent.is_dir():
        raise RecordError(f"{log}: no such folder; give the rewards.jsonl of a stage-3 run")
    return log.exists()


def show(rollouts: Sequence[Rollout], arguments: argparse.Namespace) -> list[str]:
    """Print the state of the run and draw it; give the alarms."""
    from monitor_text import report

    from emocaliber.rollout_statistics import HELD_OUT, alarms, course

    training = [rollout for rollout in rollouts if rollout.split not in HELD_OUT]
    run = course(training, arguments.window) if training else None
    found = alarms(run) if run else []
    block = report(str(arguments.log), rollouts, run, found, arguments.window)
    if sys.stdout.isatty() and arguments.follow:
        block = _HOME_AND_CLEAR + block
    print(block, flush=True)
    if arguments.figure and run:
        from monitor_figure import draw

        draw(run, arguments.figure)
    return found


if __name__ == "__main__":
    main()
