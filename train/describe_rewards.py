"""Computes what every reward pays for, and writes it as a table and a figure.

    python train/describe_rewards.py
    python train/describe_rewards.py --benchmark PREDICTIONS

The table goes into train/RESULTS.md, between the lines `<!-- rewards: begin -->` and `<!-- rewards: end -->`,
the figure to images/reward_incentives.png. With --benchmark nothing is written: it prints how many of the
responses in a run's `predictions.jsonl` one core rewards in a second.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_text_atomic
from emocaliber.records import read_records
from emocaliber.reward import REWARDS, compute_reward

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK_PASSES = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table and the figure, or measure the speed; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=ROOT / "train" / "RESULTS.md", help="for the table")
    parser.add_argument("--figure", type=Path, default=ROOT / "images" / "reward_incentives.png")
    parser.add_argument("--benchmark", type=Path, metavar="PREDICTIONS", help="measure the speed instead")
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Do what was asked for. Raises RecordError and OSError."""
    if arguments.benchmark:
        benchmark(arguments.benchmark)
        return
    from train.rl.reward_tables import draw, section
    from train.stages.markdown import around_section, write_bytes_atomic

    before, after = around_section(arguments.readme, "rewards")
    write_bytes_atomic(arguments.figure, draw())
    write_text_atomic(arguments.readme, f"{before}\n{section()}{after}")
    print(f"{arguments.readme}: the table; {arguments.figure}: the figure")


def benchmark(predictions: Path) -> None:
    """Print how many responses a second each reward reads on one core: CPU time, median of the passes."""
    rows = [
        (row["response"], row["ground_truth"], row["candidates"])
        for row in read_records(predictions)
        if isinstance(row.get("response"), str)
    ]
    if not rows:
        raise RecordError(f"{predictions}: no row has a response; give the predictions.jsonl of a run")
    print(
        f"{len(rows)} responses of {sum(len(row[0]) for row in rows) / len(rows):.0f} characters on average"
    )
    for name in REWARDS:
        spent_s = []
        for _ in range(BENCHMARK_PASSES):
            begin = time.process_time()
            for response, truth, candidates in rows:
                compute_reward(response, truth, candidates, name)
            spent_s.append(time.process_time() - begin)
        print(f"{name:16} {len(rows) / median(spent_s):9,.0f} responses a second per core")


if __name__ == "__main__":
    sys.exit(main())
