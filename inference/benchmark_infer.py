"""Measure inference. Takes every option of inference/infer.py that decides a response, and --checkpoint,
--data and --image-root; responses are kept nowhere.

infer: (a) one generate call per row, (b) one generate call for all, (c) as infer.py does it, from the records
to rows on disk that are read back and scored, all on one engine; then (d) infer.py itself with one and two
workers. confidences: the rows with nothing but their response, then with each further confidence, all on one
engine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from answer_rows import answer_rows
from arguments import parse_arguments
from backend import CONFIDENCES, EngineError
from infer import say
from plan import Plan, make_plan
from prepare import Request
from provenance import describe_run
from run_folder import RunFolder
from start_backend import start_backend
from stopping import Stopper

from emocaliber.records import RecordError, iterate_records, write_text_atomic

if TYPE_CHECKING:
    from engine import Engine

TARGET_GAIN, TARGET_SHARE = 12, 0.9
WARM_UP_ROWS = 2
ROWS_ONE_BY_ONE = 64  # they take as long as a thousand rows together
ROUNDS = 2  # (b) and (c) in turn, so that a machine that gets slower is no advantage of either


def main(what: str, argv: Sequence[str]) -> int:
    """Run one of the two comparisons; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"benchmark.py {what}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--rows", type=int, default=512, help="the first N rows (default: %(default)s)")
    parser.add_argument("--worker-rows", type=int, default=4096, help="those of (d), 0 to leave it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    own, rest = parser.parse_known_args(argv)
    try:
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
    except RecordError as error:
        say(f"error: {error}")
        return 2
    except (EngineError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


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
    numbers = {"rows": len(requests), "engine": engine.arguments, "ways": found}
    one, all_at_once, ours = (way["rows_per_s"] for way in numbers["ways"].values())
    return numbers | {"gain": round(ours / one, 2), "share": round(ours / all_at_once, 3)}


def _started(plan: Plan) -> "Engine":
    from engine import Engine

    backend = start_backend(plan)
    if not isinstance(backend, Engine):
        raise RecordError("the benchmark is of --backend vllm; leave --backend out")
    return backend


def _timed(
    measured: dict[str, Callable[[], int]], n_rows: int, rounds: int = 1
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


def _as_infer_does(plan: Plan, engine: "Engine") -> int:
    """Take the folder, look what is done, answer the rest, write the final files, read and score them."""
    from emocaliber.scoring import score

    folder = RunFolder(plan.arguments.output_dir)
    folder.open(describe_run(plan), overwrite=True)
    done = folder.gather(retry_errors=False)
    n_tokens = _answered(plan, engine, folder, [row for row in plan.records if row["id"] not in done])
    folder.finish(plan.records)
    for record in iterate_records(folder.path / "predictions.jsonl", need_truth=False):
        score(record)
    folder.close()
    return n_tokens


def _answered(plan: Plan, engine: "Engine", folder: RunFolder, pending: Sequence[dict[str, Any]]) -> int:
    """Answer rows onto the disk; gives the tokens of the responses and of the further confidences."""
    n_tokens = 0
    with folder.appender() as appender:

        def write(output: dict[str, Any]) -> None:
            nonlocal n_tokens
            appender.write(output)
            n_tokens += output.get("n_response_tokens", 0) + sum(output.get("confidence_tokens", {}).values())

        answer_rows(engine, pending, plan.image_root, write, Stopper())
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
    measured = {name: lambda name=name: asked(name) for name in askings}
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
