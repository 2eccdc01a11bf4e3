"""Shows how a stage-3 run goes, from the log that its reward writes: while it runs, or afterwards.

    python train/monitor.py train/output/mini/stage3/rewards.jsonl       # once
    python train/monitor.py LOG --follow --figure monitor.png            # until Ctrl-C
    python train/monitor.py LOG --follow --exit-on-alarm > monitor.log   # for scripts

Prints a line "alarm: ..." when confidences go flat, one value makes up most of them, or the parse rate falls.
Exit status: 3 for an alarm with --exit-on-alarm, 2 for a mistake in what was given, else 0; also for Ctrl-C
with --follow.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Read, print and draw; again every few seconds with --follow; give the exit status."""
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
    arguments = parser.parse_args(argv)
    if arguments.window < 1:
        parser.error(f"--window {arguments.window}: give at least 1")
    if not 0 < arguments.refresh < float("inf"):
        parser.error(f"--refresh {arguments.refresh}: give a number of seconds above 0")
    if arguments.figure and arguments.figure.suffix.lower() != ".png":
        parser.error(f"--figure {arguments.figure}: only PNG is drawn; give a name that ends in .png")
    return run_command(lambda: work(arguments))


def work(arguments: argparse.Namespace) -> int:
    """Show the log once, or until interrupted; give the exit status. Raises RecordError."""
    from train.rl.course import watch

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without block characters still gets the numbers
    try:
        return watch(arguments)
    except KeyboardInterrupt:
        if arguments.follow:  # it has no other end
            return 0
        raise


if __name__ == "__main__":
    sys.exit(main())
