"""Measure what this room costs: inference, the further confidences, the evaluation.

    python inference/benchmark.py infer       --checkpoint DIR --data FILE
    python inference/benchmark.py confidences --checkpoint DIR --data FILE
    python inference/benchmark.py evaluate    --predictions FILE

Each compares several ways in one run, and has a --help of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.records import RecordError, iterate_records, write_jsonl_atomic, write_text_atomic
from emocaliber.response import parse
from emocaliber.scoring import score
from emocaliber.taxonomy import task_group
from inference.backends.backend import CONFIDENCES, EngineError
from inference.backends.prepare import Request
from inference.backends.vllm_engine import Engine
from inference.runs.answering import answer_rows, say
from inference.runs.arguments import parse_arguments
from inference.runs.plan import Plan, describe_run, make_plan
from inference.runs.run_folder import RunFolder

TARGET_GAIN, TARGET_SHARE = 12, 0.9
WARM_UP_ROWS = 2
ROWS_ONE_BY_ONE = 64  # they take as long as a thousand rows together
ROUNDS = 2  # (b) and (c) in turn, so that a machine that gets slower is no advantage of either
HERE = Path(__file__).resolve().parent
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TABLES_ALONE = ("--no-figures", "--no-page")


def measure_evaluation(argv: Sequence[str]) -> None:
    """Time the tables of both sides on one core, evaluate.py with each further output, and the sizes."""
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
        return
    rows = list(iterate_records(arguments.predictions))
    if not rows:
        raise RecordError(f"{arguments.predictions}: no rows; give a file with predictions")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_rows(rows, arguments.rows, folder / "rows.jsonl")
        print(f"{arguments.rows} rows, whole processes")
        loop = [sys.executable, str(HERE / "benchmark.py"), "evaluate", "--predictions", "-"]
        loop += ["--loop-on", str(data)]
        for what, draws in (("without", 0), ("with", arguments.draws)):
            options = ("--draws", str(draws))
            ours, _ = timed_evaluation(data, folder, *options, *TABLES_ALONE, on_one_core=True)
            theirs, _ = timed_process([*loop, *options], on_one_core=True)
            title = f"tables {what} intervals, one core"
            print(f"{title:<40}{ours:8.2f} s{theirs:9.2f} s by a loop: {ours / theirs:.3f} of it", flush=True)
        for title, wanted in {
            "tables with intervals": TABLES_ALONE,
            "and report.html": ("--no-figures",),
            "and PNG figures (evaluate.py as it is)": (),
            "and PDF figures": ("--pdf",),
        }.items():
            seconds, _ = timed_evaluation(data, folder, *wanted)
            print(f"{title:<40}{seconds:8.2f} s", flush=True)
        if arguments.sizes:
            time_sizes(rows, sorted(arguments.sizes), folder)


def time_sizes(rows: Sequence[dict[str, Any]], sizes: Sequence[int], folder: Path) -> None:
    """Print seconds and peak memory of evaluate.py, and what each further row costs: the same, if linear."""
    print("\nrows          seconds   per further 1,000 rows   peak memory")
    before: tuple[int, float] | None = None
    for size in sizes:
        data = write_rows(rows, size, folder / "rows.jsonl")
        seconds, peak_mb = timed_evaluation(data, folder, "--no-page")
        further = f"{(seconds - before[1]) / (size - before[0]) * 1000:9.4f} s" if before else " " * 11
        print(f"{size:<12}{seconds:9.1f}   {further:<22}   {peak_mb:8.0f} MB", flush=True)
        before = (size, seconds)


def write_rows(rows: Sequence[dict[str, Any]], n: int, path: Path) -> Path:
    """Write n rows, the given ones over and over, each with an id and an image of its own."""
    copies = ((number, rows[number % len(rows)]) for number in range(n))
    write_jsonl_atomic(path, ({**row, "id": f"row-{i}", "image": f"images/{i}.jpg"} for i, row in copies))
    return path


def timed_evaluation(
    data: Path, folder: Path, *options: str, on_one_core: bool = False
) -> tuple[float, float]:
    """Run evaluate.py; gives its seconds and its peak memory in MB."""
    command = [sys.executable, str(HERE / "evaluate.py"), "--predictions", str(data)]
    return timed_process(
        [*command, "--output-dir", str(folder / "results"), *options], on_one_core=on_one_core
    )


def timed_process(command: Sequence[str], *, on_one_core: bool = False) -> tuple[float, float]:
    """Run a command; gives its seconds and its peak memory in MB."""
    started = time.monotonic()
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        command,
        env=os.environ | (ONE_CORE if on_one_core else {}),
        stdout=subprocess.DEVNULL,
        preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if on_one_core else None,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RecordError(f"{' '.join(command)}: exit status {process.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def tables_by_a_loop(data: Path, n_draws: int) -> None:
    """Print the five scores of every task, group and overall, with intervals if draws are asked for."""
    import numpy as np
    from sklearn import metrics

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


def measure_inference(what: str, argv: Sequence[str]) -> None:
    """Run one of the two comparisons of inference and print it. Raises RecordError, EngineError."""
    parser = CommandParser(prog=f"benchmark.py {what}", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=512, help="the first N rows (default: %(default)s)")
    parser.add_argument("--worker-rows", type=int, default=4096, help="those of (d), 0 to leave it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    own, rest = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = [*rest, "--limit", str(own.rows), "--output-dir", str(folder / "run")]
        plan = make_plan(parse_arguments(options, description=__doc__))
        numbers = ways(plan) if what == "infer" else confidences(plan)
        if what == "infer" and own.worker_rows:
            numbers["workers"] = workers([*rest, "--limit", str(own.worker_rows)], folder)
    print("\n".join(lines(numbers)))
    if own.json is not None:
        write_text_atomic(own.json, json.dumps(numbers, indent=2) + "\n")


def ways(plan: Plan) -> dict[str, Any]:
    """Give rows per second of (a), (b) and (c), with the tokens that each wrote."""
    engine = _started(plan)
    prepared = [engine.preparer.prepare(record) for record in plan.records]
    requests = [row for row in prepared if isinstance(row, Request)]
    if not requests:
        raise RecordError(f"{plan.arguments.data}: none of the first {len(prepared)} rows can be asked")
    engine.generate(requests[:WARM_UP_ROWS])
    some = requests[:ROWS_ONE_BY_ONE]
    alone = {"(a) one generate call per row": lambda: sum(engine.generate([row]) for row in some)}
    together = {
        "(b) one generate call for all": lambda: engine.generate(requests),
        "(c) as infer.py, scored rows": lambda: _as_infer_does(plan, engine),
    }
    found = _timed(alone, len(some)) | _timed(together, len(requests), rounds=ROUNDS)
    one, all_at_once, ours = (way["rows_per_s"] for way in found.values())
    rates = {"gain": round(ours / one, 2), "share": round(ours / all_at_once, 3)}
    return {"rows": len(requests), "engine": engine.arguments, "ways": found, **rates}


def _started(plan: Plan) -> Engine:
    backend = plan.start_backend()
    if not isinstance(backend, Engine):
        raise RecordError("the benchmark is of --backend vllm; leave --backend out")
    return backend


def _timed(
    measured: Mapping[str, Callable[[], int]], n_rows: int, rounds: int = 1
) -> dict[str, dict[str, float]]:
    """Give seconds and rates of each; what is measured gives the number of tokens that it wrote."""
    seconds = dict.fromkeys(measured, 0.0)
    n_tokens = dict.fromkeys(measured, 0)
    for _ in range(rounds):
        for name, way in measured.items():
            say(f"{name}: {n_rows} rows ...")
            started = time.monotonic()
            n_tokens[name] += way()
            seconds[name] += time.monotonic() - started
    return {
        name: {
            "rows": rounds * n_rows,
            "seconds": round(seconds[name], 3),
            "rows_per_s": round(rounds * n_rows / seconds[name], 3),
            "tokens_per_s": round(n_tokens[name] / seconds[name], 1),
            "tokens_per_row": round(n_tokens[name] / (rounds * n_rows), 1),
        }
        for name in measured
    }


def _as_infer_does(plan: Plan, engine: Engine) -> int:
    """Take the folder, look what is done, answer the rest, write the final files, read and score them."""
    folder = RunFolder(plan.arguments.output_dir)
    folder.open(describe_run(plan), overwrite=True)
    done = folder.gather(retry_errors=False)
    n_tokens = _answered(plan, engine, folder, [row for row in plan.records if row["id"] not in done])
    folder.finish(plan.records)
    for record in iterate_records(folder.path / "predictions.jsonl", need_truth=False):
        score(record)
    folder.close()
    return n_tokens


def _answered(plan: Plan, engine: Engine, folder: RunFolder, pending: Sequence[dict[str, Any]]) -> int:
    """Answer rows onto the disk; gives the tokens of the responses and of the further confidences."""
    n_tokens = 0
    with folder.appender() as appender:

        def write(output: dict[str, Any]) -> None:
            nonlocal n_tokens
            appender.write(output)
            n_tokens += output.get("n_response_tokens", 0) + sum(output.get("confidence_tokens", {}).values())

        answer_rows(engine, pending, write)
    return n_tokens


def workers(options: Sequence[str], folder: Path) -> dict[str, float]:
    """Give rows per second of infer.py with one and two workers, from when the first engine is ready."""
    rates = {}
    for n_workers in (1, 2):
        say(f"(d) infer.py with {n_workers} workers ...")
        output = folder / f"workers-{n_workers}"
        command = [sys.executable, str(Path(__file__).with_name("infer.py")), *options]
        command += ["--output-dir", str(output), "--workers", str(n_workers)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise EngineError(f"infer.py with {n_workers} workers failed: {run.stderr.strip()[-300:]}")
        rates[str(n_workers)] = json.loads((output / "run.json").read_text())["attempts"][-1]["rows_per_s"]
    return rates


def confidences(plan: Plan) -> dict[str, Any]:
    """Give seconds and tokens of the rows with their response alone, and with each further confidence."""
    engine = _started(plan)
    asking = engine.asking
    askings = {"response, stated confidence": replace(asking, confidences=(), n_samples=1)}
    askings |= {f"and {name}": replace(asking, confidences=(name,), n_samples=1) for name in CONFIDENCES}
    askings["and agreement of 5 samples"] = replace(asking, confidences=(), n_samples=5)
    folder = RunFolder(plan.arguments.output_dir)
    folder.open(describe_run(plan), overwrite=True)

    def asked(name: str) -> int:
        engine.asking = askings[name]
        folder.part().unlink(missing_ok=True)
        return _answered(plan, engine, folder, plan.records)

    asked("response, stated confidence")  # warm-up
    measured = {name: partial(asked, name) for name in askings}
    return {"rows": len(plan.records), "ways": _timed(measured, len(plan.records))}


def lines(numbers: dict[str, Any]) -> list[str]:
    """Give the numbers as lines to read."""
    found = [
        f"{name:<32}{way['rows']:>5} rows{way['rows_per_s']:>8.2f} rows/s{way['tokens_per_s']:>9.1f} tokens/s"
        f"{way['tokens_per_row']:>9.1f} tokens/row"
        for name, way in numbers["ways"].items()
    ]
    if "gain" in numbers:
        found.append(f"(c) is {numbers['gain']} times (a) (target: at least {TARGET_GAIN})")
        found.append(f"(c) is {numbers['share']} of (b) (target: at least {TARGET_SHARE})")
    rates = numbers.get("workers")
    if rates:
        found.append(
            f"(d) {rates['1']} rows/s with one worker, {rates['2']} with two: "
            f"{rates['2'] / rates['1']:.2f} times"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = CommandParser(description=__doc__)
    parser.add_argument("what", choices=("infer", "confidences", "evaluate"))
    what = parser.parse_args(given[:1]).what
    measure = measure_evaluation if what == "evaluate" else partial(measure_inference, what)
    return run_command(lambda: measure(given[1:]))


if __name__ == "__main__":
    sys.exit(main())
