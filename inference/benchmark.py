"""Measure what batching gains: one generate call per row, one call for all, and rows streamed to disk.

All three on the same engine and the same rows, in one run. Takes every option of inference/infer.py that
decides a response, and its --checkpoint, --data and --image-root; responses are kept nowhere.
`benchmark.py evaluate` measures the evaluation instead and has a --help of its own.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import benchmark_evaluate
from engine import EngineError, Sampling, as_output
from infer import say, start_engine
from plan import Plan, make_plan, parse_arguments
from prepare import Request

from emocaliber.records import JsonlAppender, RecordError, write_text_atomic

TARGET_GAIN = 10
WARM_UP_ROWS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["evaluate"]:
        return benchmark_evaluate.main(given[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=256, help="the first N rows (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    own, rest = parser.parse_known_args(given)
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = [*rest, "--limit", str(own.rows), "--output-dir", folder]
            plan = make_plan(parse_arguments(options, description=__doc__))
            numbers = measure(plan, Path(folder))
        print(table(numbers))
        if own.json is not None:
            write_text_atomic(own.json, json.dumps(numbers, indent=2) + "\n")
    except RecordError as error:
        say(f"error: {error}")
        return 2
    except (EngineError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Give rows per second of the three ways, with the tokens that each wrote."""
    arguments = plan.arguments
    engine = start_engine(plan)
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_new_tokens)
    preparer = engine.preparer(plan.image_root, arguments.seed)
    prepared = [preparer.prepare(record) for record in plan.records]
    requests = [row for row in prepared if isinstance(row, Request)]
    if not requests:
        raise RecordError(f"{arguments.data}: none of the first {len(prepared)} rows can be asked")

    def streamed() -> int:
        """Do as infer.py does, from the records to rows on disk."""
        n_tokens = 0
        with JsonlAppender(folder / "rows.jsonl") as appender:
            prepared = preparer.prepare_ahead(plan.records, threads=2, ahead=engine.refill)
            for outcome in engine.answers(prepared, sampling):
                if outcome is not None:
                    appender.write(as_output(outcome))
                    n_tokens += getattr(outcome, "n_response_tokens", 0)
        return n_tokens

    engine.generate(requests[:WARM_UP_ROWS], sampling)
    ways: dict[str, Callable[[], int]] = {
        "one generate call per row": lambda: sum(engine.generate([row], sampling) for row in requests),
        "one generate call for all": lambda: engine.generate(requests, sampling),
        "infer.py, rows to disk": streamed,
    }
    numbers: dict[str, Any] = {"rows": len(requests), "engine": engine.arguments, "ways": {}}
    for name, way in ways.items():
        say(f"{name}: {len(requests)} rows ...")
        started = time.monotonic()
        n_tokens = way()
        seconds = time.monotonic() - started
        numbers["ways"][name] = {
            "seconds": round(seconds, 3),
            "rows_per_s": round(len(requests) / seconds, 3),
            "response_tokens_per_s": round(n_tokens / seconds, 1),
        }
    rates = [way["rows_per_s"] for way in numbers["ways"].values()]
    numbers["gain"] = round(rates[-1] / rates[0], 2)
    return numbers


def table(numbers: dict[str, Any]) -> str:
    """Give the numbers as lines to read."""
    lines = [f"{numbers['rows']} rows"]
    lines += [
        f"{name:<28}{way['rows_per_s']:>9.2f} rows/s{way['response_tokens_per_s']:>10.1f} tokens/s"
        for name, way in numbers["ways"].items()
    ]
    return "\n".join([*lines, f"batching gains {numbers['gain']} times (target: at least {TARGET_GAIN})"])


if __name__ == "__main__":
    sys.exit(main())
