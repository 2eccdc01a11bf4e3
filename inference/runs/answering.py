"""Rows to a backend and their outcomes to whoever writes them, whatever the way of running."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any

from tqdm import tqdm

from emocaliber.provenance import file_sha256
from emocaliber.records import Record, RecordError, record_images
from inference.backends.backend import Backend, EngineError, Refusal, as_output
from inference.backends.prepare import RowError, locate
from inference.runs.plan import Plan
from inference.runs.run_folder import NOT_THE_ROWS_OWN, RunFolder


def say(message: str) -> None:
    """Print a line about the run's progress."""
    print(message, file=sys.stderr, flush=True)


class Stopper:
    """Turns SIGINT and SIGTERM into a flag once `gently` is set; before, and a second time, they raise."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.gently = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: FrameType | None) -> None:
        is_first, self.signal = self.signal is None, number
        if not (self.gently and is_first):
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(self.status)

    @property
    def status(self) -> int:
        """The exit status of a program that the signal ended."""
        return 128 + (self.signal or signal.SIGINT)


class Progress:
    """A bar with the rate and the time left, from the moment when an engine is ready."""

    def __init__(self, total: int, initial: int) -> None:
        self._total = total
        self._initial = initial
        self._bar: Any = None
        self._made = time.monotonic()
        self._started: float | None = None
        self.first_row_s: float | None = None
        """Seconds from the start, loading included, to the first row; None before it."""
        self.n_failed = 0
        """The rows of this start with an error."""

    def update(self, n: int, n_failed: int = 0) -> None:
        """Count rows, some of them with an error; the first call starts the clock of the rate."""
        if self._bar is None:
            self._started = time.monotonic()
            # Without a terminal every refresh is a line in a log.
            interval_s = 0.1 if sys.stderr.isatty() else 5.0
            self._bar = tqdm(
                total=self._total, initial=self._initial, unit="row", mininterval=interval_s, smoothing=0.05
            )
        if n and self.first_row_s is None:
            self.first_row_s = time.monotonic() - self._made
        self.n_failed += n_failed
        if n_failed:
            self._bar.set_postfix_str(f"{self.n_failed} with an error", refresh=False)
        self._bar.update(n)

    def close(self) -> float | None:
        """End the bar; gives the seconds since the clock started."""
        if self._bar is None or self._started is None:
            return None
        self._bar.close()
        return time.monotonic() - self._started


@dataclass
class Run:
    """A run under way: what is asked, where it is kept, whether it is to stop, how far it is.

    Each way of running is a function of a run and its pending rows, which raises EngineError if it cannot go
    on: `answer_alone`, `workers.answer_by_workers`, `ray_workers.answer_on_ray`.
    """

    plan: Plan
    folder: RunFolder
    stopper: Stopper
    progress: Progress

    @property
    def is_stopped(self) -> bool:
        """Has a signal come?"""
        return self.stopper.signal is not None

    def count(self, n_rows: int, n_failed: int) -> None:
        """Count rows on disk, some of them with an error. Raises EngineError for more errors than may be."""
        self.progress.update(n_rows, n_failed)
        most, n_failed = self.plan.arguments.max_failures, self.progress.n_failed
        if most is not None and n_failed > most:
            raise EngineError(
                f"{n_failed} rows have an error, more than --max-failures {most}; see the last lines of "
                "partial*.jsonl, mend their cause and continue with --retry-errors"
            )


def answer_rows(
    backend: Backend,
    records: Iterable[Record],
    write: Callable[[dict[str, Any]], None],
    stopper: Stopper | None = None,
) -> None:
    """Ask every row and write its outcome as it comes, until all are done or the run is stopped.

    `write` gets the fields that the outcome adds to the record, the id included. A row whose
    failure was not its own is asked once more at the end.
    """
    unlucky: list[Record] = []
    by_id: dict[str, Record] = {}

    def remembered(rows: Iterable[Record]) -> Iterator[Record]:
        for record in rows:
            by_id[record["id"]] = record
            yield record

    for rows, is_last in ((records, False), (unlucky, True)):
        with closing(backend.answers(remembered(rows))) as outcomes:
            for outcome in outcomes:
                if outcome is not None:
                    record = by_id.pop(outcome.id)
                    if isinstance(outcome, Refusal) and outcome.type in NOT_THE_ROWS_OWN and not is_last:
                        unlucky.append(record)
                    else:
                        write(as_output(outcome))
                if stopper is not None and stopper.signal is not None:
                    return
        if not unlucky:
            return


def answer_alone(run: Run, pending: Sequence[Record]) -> None:
    """Answer the pending rows with one backend in this process."""
    folder = run.folder
    started = time.monotonic()
    backend = run.plan.start_backend()
    folder.attempt["engine_start_s"] = round(time.monotonic() - started, 2)
    folder.attempt["engine_arguments"] = dict(backend.arguments)
    if run.plan.takes.server:
        folder.check_model()
    run.stopper.gently = True
    run.progress.update(0)
    with folder.appender() as appender:

        def write(row: dict[str, Any]) -> None:
            appender.write(row)
            run.count(1, "error" in row)

        try:
            answer_rows(backend, pending, write, run.stopper)
        finally:
            counts = getattr(backend, "counts", None)
            if counts is not None:
                folder.attempt["requests"] = counts


THREADS = 8


def image_sums(record: Mapping[str, Any], image_root: Path) -> list[str] | None:
    """Give the SHA-256 sums of a record's image files; None where one cannot be read any more."""
    try:
        return [file_sha256(locate(image_root, name)) for name in record_images(record)]
    except (OSError, RowError):
        return None


def check_images(records: Iterable[Record], done: Mapping[str, Mapping[str, Any]], image_root: Path) -> None:
    """Raise RecordError if rows were answered with other images than are there now.

    Images that are gone since are no hindrance: their rows have been answered.

    Args:
        records: the rows of the data.
        done: by id, the rows that earlier starts finished; those without sums are not looked at.
    """
    answered = [record for record in records if done.get(record["id"], {}).get("images_sha256")]
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            sums = list(pool.map(partial(image_sums, image_root=image_root), answered))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    changed = [
        record
        for record, now in zip(answered, sums, strict=True)
        if now is not None and now != done[record["id"]]["images_sha256"]
    ]
    if changed:
        first = changed[0]
        raise RecordError(
            f"{len(changed)} rows were answered with other images than are there now, the first is "
            f"{first['id']!r} ({', '.join(record_images(first))}); put the images back, give another "
            "--output-dir, or --overwrite"
        )


_QUERY = [
    "nvidia-smi",
    "--query-gpu=index,utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    "-l",
    "1",
]


class GpuWatch:
    """Watches from its making to `close`; where there is no nvidia-smi it sees nothing."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        with contextlib.suppress(OSError):
            # Through a pipe, so that it ends when this process is killed.
            self._process = subprocess.Popen(
                _QUERY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
            )
            self._reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
            self._reader.start()

    def _read(self, lines: Iterable[str]) -> None:
        self._lines.extend(lines)

    def close(self) -> dict[str, Any]:
        """Give, by GPU, the mean utilisation in percent and the most memory used in MiB; empty without."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join(timeout=5)
        seen: dict[str, list[tuple[float, float]]] = {}
        for line in list(self._lines):
            with contextlib.suppress(ValueError):  # a last line cut off, or "[N/A]"
                index, busy, used = line.split(",")
                sample = float(busy), float(used)
                seen.setdefault(index.strip(), []).append(sample)
        return {
            index: {
                "utilisation_percent": round(mean(busy for busy, _ in samples), 1),
                "memory_mib": max(used for _, used in samples),
            }
            for index, samples in seen.items()
        }


def closing_lines(
    attempt: Mapping[str, Any], n_rows: int, n_responses: int, errors: Mapping[str, int]
) -> list[str]:
    """Give the lines to print: rows by outcome, rates, time to the first row, GPUs, cost.

    Args:
        attempt: this start's entry of run.json.
        n_rows: of the data.
        n_responses: rows with a response, of all starts.
        errors: how many rows have an error, by its type.
    """
    named = ", ".join(f"{count} {name}" for name, count in sorted(errors.items()))
    lines = [
        f"{n_rows} rows: {n_responses} with a response, {sum(errors.values())} with an error"
        + (f" ({named}; see error.jsonl)" if named else "")
        + f"; {attempt['rows_done']} done now, {attempt['rows_done_before']} before"
    ]
    if "rows_per_s" in attempt:
        lines.append(
            f"{attempt['rows_per_s']} rows/s, {attempt['prompt_tokens_per_s']:.0f} prompt and "
            f"{attempt['response_tokens_per_s']:.0f} response tokens/s; first row after "
            f"{attempt['first_row_s']} s"
        )
    if "confidence_tokens" in attempt:
        spent = (
            f"{n / max(1, attempt['rows_done']):.0f} for {name}"
            for name, n in attempt["confidence_tokens"].items()
        )
        lines.append(f"tokens a row beyond the response: {', '.join(spent)}")
    for index, gpu in attempt.get("gpus", {}).items():
        lines.append(f"GPU {index}: {gpu['utilisation_percent']} % busy, {gpu['memory_mib']:.0f} MiB at most")
    if "cost" in attempt and attempt["cost"] is None:
        lines.append("cost unknown: the server did not count the tokens of every row")
    elif "cost" in attempt:
        lines.append(f"cost {attempt['cost']}, {attempt['cost_per_1000_rows']} per 1,000 rows")
    return lines
