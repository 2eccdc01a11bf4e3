"""Measure what an evaluation costs, against the same tables by a loop of scikit-learn calls, in one run.

    python inference/benchmark.py evaluate --predictions infer_results/mini/predictions.jsonl

The loop does what a first script would: for every row group and metric it parses the responses of the group
and calls scikit-learn, and for the intervals calls it again on every bootstrap draw. Both sides run as
processes of their own, from their start to the finished tables, on one core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser
from emocaliber.records import RecordError, iterate_records, write_jsonl_atomic

HERE = Path(__file__).resolve().parent
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = CommandParser(prog="benchmark.py evaluate", description=__doc__)
    parser.add_argument(
        "--predictions", type=Path, required=True, help="rows to draw the benchmark's rows from"
    )
    parser.add_argument("--rows", type=int, default=8032, help="how many (default: %(default)s, as VECBench)")
    parser.add_argument(
        "--draws",
        type=int,
        default=2000,
        help="bootstrap draws on both sides (default: %(default)s, for which the loop takes minutes)",
    )
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[], help="also time evaluate.py on so many rows"
    )
    parser.add_argument("--loop-on", type=Path, help=argparse.SUPPRESS)  # the process of the other side
    arguments = parser.parse_args(argv)
    if arguments.draws != 0 and arguments.draws < 100:
        parser.error("--draws must be 0 or at least 100")
    if arguments.loop_on is not None:
        tables_by_a_loop(arguments.loop_on, arguments.draws)
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(arguments, Path(folder))
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Time both sides and print the ratios, then the cost of each part, then the sizes."""
    rows = list(iterate_records(arguments.predictions))
    if not rows:
        raise RecordError(f"{arguments.predictions}: no rows; give a file with predictions")
    data = write_rows(rows, arguments.rows, folder / "rows.jsonl")
    print(f"{arguments.rows} rows, one core, whole processes:")
    ways = {
        "tables without intervals": (0, ["--draws", "0", "--no-figures"]),
        "tables with intervals": (arguments.draws, ["--draws", str(arguments.draws), "--no-figures"]),
    }
    loop = [
        sys.executable,
        str(HERE / "benchmark.py"),
        "evaluate",
        "--predictions",
        "-",
        "--loop-on",
        str(data),
    ]
    for name, (draws, options) in ways.items():
        ours, _ = timed_process(evaluate_command(data, folder, *options))
        theirs, _ = timed_process([*loop, "--draws", str(draws)])
        print(f"{name:<40}{ours:8.2f} s{theirs:9.2f} s by the loop: {ours / theirs:.3f} of it", flush=True)
    ours, _ = timed_process(evaluate_command(data, folder))
    name = "evaluate.py --no-page, as it stands"
    print(f"{name:<40}{ours:8.2f} s (intervals, figures): {ours / theirs:.3f} of the loop's intervals")
    print("\nparts, in one process:")
    for name, seconds in parts(data, folder):
        print(f"{name:<40}{seconds:8.2f} s")
    if arguments.sizes:
        time_sizes(rows, sorted(arguments.sizes), folder)


def time_sizes(rows: Sequence[dict[str, Any]], sizes: Sequence[int], folder: Path) -> None:
    """Print seconds and peak memory of evaluate.py, and what each further row costs: the same, if linear."""
    print("\nrows          seconds   per further 1,000 rows   peak memory")
    before: tuple[int, float] | None = None
    for size in sizes:
        data = write_rows(rows, size, folder / "rows.jsonl")
        seconds, peak_mb = timed_process(evaluate_command(data, folder))
        further = f"{(seconds - before[1]) / (size - before[0]) * 1000:9.4f} s" if before else " " * 11
        print(f"{size:<12}{seconds:9.1f}   {further:<22}   {peak_mb:8.0f} MB", flush=True)
        before = (size, seconds)


def write_rows(rows: Sequence[dict[str, Any]], n: int, path: Path) -> Path:
    """Write n rows, the given ones over and over, each with an id and an image of its own."""
    copies = (
        {**rows[number % len(rows)], "id": f"row-{number}", "image": f"images/{number}.jpg"}
        for number in range(n)
    )
    write_jsonl_atomic(path, copies)
    return path


def evaluate_command(data: Path, folder: Path, *options: str) -> list[str]:
    """The command line of evaluate.py without the page."""
    command = [sys.executable, str(HERE / "evaluate.py"), "--predictions", str(data), "--no-page"]
    return [*command, "--output-dir", str(folder / "results"), *options]


def timed_process(command: Sequence[str]) -> tuple[float, float]:
    """Run a command on one core; gives its seconds and its peak memory in MB."""
    started = time.monotonic()
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        command,
        env=os.environ | ONE_CORE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RecordError(f"{' '.join(command)}: exit status {process.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def parts(data: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """The seconds of each step of an evaluation, one after the other."""

    def timed(step: Callable[[], Any]) -> tuple[Any, float]:
        started = time.monotonic()
        result = step()
        return result, time.monotonic() - started

    def imports() -> None:
        import emocaliber.report.figures
        import emocaliber.report.logs
        import emocaliber.report.summary  # noqa: F401

    yield "import", timed(imports)[1]
    from emocaliber.report.as_json import metrics_json
    from emocaliber.report.figures import draw_figures
    from emocaliber.report.logs import metric_conf_log
    from emocaliber.report.summary import evaluate
    from emocaliber.scoring import score

    records, seconds = timed(lambda: list(iterate_records(data)))
    yield "read and check the rows", seconds
    rows, seconds = timed(lambda: [score(record) for record in records])
    yield "parse and score", seconds
    yield "count, and every score", timed(lambda: evaluate(rows, n_draws=0))[1]
    evaluation, with_draws = timed(lambda: evaluate(rows))
    yield "the same with 2,000 draws", with_draws
    yield (
        "logs and metrics.json",
        timed(lambda: (metric_conf_log(evaluation), metrics_json(evaluation, {})))[1],
    )
    yield "write merged_conf.jsonl", timed(lambda: write_jsonl_atomic(folder / "merged.jsonl", records))[1]
    yield "figures", timed(lambda: draw_figures(evaluation))[1]


def tables_by_a_loop(data: Path, n_draws: int) -> None:
    """Print the five scores of every task, group and overall, with intervals if draws are asked for."""
    import numpy as np
    from sklearn import metrics

    from emocaliber.response import parse
    from emocaliber.taxonomy import task_group

    def ece(right: Any, stated: Any) -> float:
        bins = np.minimum((stated * 10).astype(int), 9)
        inside = [bins == index for index in range(10) if (bins == index).any()]
        return float(sum(abs(right[one].mean() - stated[one].mean()) * one.mean() for one in inside))

    by_answer = {
        "acc": metrics.accuracy_score,
        "f1": lambda truth, answer: metrics.f1_score(truth, answer, average="weighted", zero_division=0),
    }
    by_confidence = {"ece": ece, "brier": metrics.brier_score_loss, "auroc": metrics.roc_auc_score}
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    groups: dict[str, list[dict[str, Any]]] = {"Overall": records}
    for record in records:
        groups.setdefault(record["task"], []).append(record)
        groups.setdefault(str(task_group(record["task"])), []).append(record)
    rng = np.random.default_rng(0)
    for group, members in groups.items():
        for name, metric in (by_answer | by_confidence).items():
            read = [parse(record.get("response") or "", record["candidates"]) for record in members]
            truth = np.array([record["ground_truth"] for record in members])
            answer = np.array([one.label or "unknown" for one in read])
            stated = np.array([np.nan if one.confidence is None else float(one.confidence) for one in read])
            columns = (truth, answer)
            if name in by_confidence:
                known = ~np.isnan(stated)
                columns = ((truth == answer)[known], stated[known])
            values = [metric(*columns)]
            for _ in range(n_draws):
                drawn = rng.integers(0, len(columns[0]), len(columns[0]))
                values.append(metric(columns[0][drawn], columns[1][drawn]))
            print(group, name, values[0], np.percentile(values, [2.5, 97.5]))
