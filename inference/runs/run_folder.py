"""The folder of a run: what was asked (run.json), the rows done so far, and the files at its end.

While it runs, finished rows are lines of `partial.jsonl` (and `partial-<i>.jsonl` of worker i), each written
in one append. At the end they become predictions.jsonl, merged.jsonl (the published name for the same rows)
and error.jsonl, each written whole, and the partial files go.
"""

import datetime
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from emocaliber.chat_server import SERVERS_OWN
from emocaliber.records import (
    JsonlAppender,
    Record,
    RecordError,
    merge_by_id,
    read_jsonl,
    write_jsonl_atomic,
    write_text_atomic,
)
from inference.backends.backend import Answer

PARTIAL = "partial.jsonl"
FINAL = ("predictions.jsonl", "merged.jsonl", "error.jsonl")
RUN = "run.json"
LOCK = ".lock"
TOKEN_COUNTS = ("prompt_tokens", "response_tokens")  # of run.json, in the order of the prices
PATIENCE_S = 10.0  # the workers of a killed run take a moment to notice
NOT_THE_ROWS_OWN = frozenset({"request_refused", *SERVERS_OWN})
"""Failures that lie in the engine, the server or the way to it: such a row is asked again."""
OUTPUT_FIELDS = ("error", *(field.name for field in fields(Answer)))
"""What inference adds to a record, and the id."""


def utc_now() -> str:
    """Give the time as ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def compare(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    names_before: Mapping[str, str] | None = None,
    names_now: Mapping[str, str] | None = None,
) -> list[str]:
    """Say what differs between the deciding arguments of two runs, as "seed 0 then, 4 now".

    `names_before`, `names_now`: what a user calls that which a sum stands for.
    """
    return [
        f"{argument} {_shown(before.get(argument), (names_before or {}).get(argument))} then, "
        f"{_shown(now.get(argument), (names_now or {}).get(argument))} now"
        for argument in sorted({*before, *now})
        if before.get(argument) != now.get(argument)
    ]


def _shown(value: Any, name: str | None) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:12] if name is None else f"{name} ({value[:12]})"
    return str(value)


def read_run(folder: Path) -> dict[str, Any]:
    """Give what a folder's run.json holds. Raises RecordError for one that is not readable."""
    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        run = None
    if not isinstance(run, dict):
        raise RecordError(f"{folder / RUN}: not readable; use --overwrite or another --output-dir")
    return run


class RunFolder:
    """One output folder, held by one run at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run: dict[str, Any] = {}
        self.lock = -1
        """The descriptor that holds an open folder; it stays taken until every process that has it ends."""

    def check(
        self, identity: Mapping[str, Any], *, overwrite: bool, names: Mapping[str, str] | None = None
    ) -> None:
        """Refuse a folder that cannot be written or holds another run's rows; changes nothing.

        `names`: of `checkpoint` and `data`, which are sums in the `identity`. Raises RecordError with the
        difference.
        """
        folder = next(parent for parent in (self.path, *self.path.absolute().parents) if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise RecordError(f"{self.path}: cannot be written; give another --output-dir")
        if overwrite:
            return
        remedy = "give the same arguments, another --output-dir, or --overwrite"
        if not (self.path / RUN).is_file():
            found = [name for name in FINAL if (self.path / name).exists()]
            if found:
                raise RecordError(f"{self.path}: holds {found[0]} of an unknown run (no {RUN}); {remedy}")
            return
        run = read_run(self.path)
        named = {"checkpoint": run.get("model", {}).get("name"), "data": run.get("data", {}).get("path")}
        difference = compare(run.get("identity", {}), identity, named, names)
        if difference:
            raise RecordError(
                f"{self.path}: holds a run with other arguments: {'; '.join(difference)}; {remedy}"
            )

    def answered(self) -> dict[str, dict[str, Any]]:
        """Give the rows with a response that earlier starts left, by id; changes nothing."""
        rows: dict[str, dict[str, Any]] = {}
        for source in self._sources():
            with suppress(RecordError):  # a torn last line: `gather` repairs it
                for _, row in read_jsonl(source):
                    if "error" not in row:
                        rows[row["id"]] = row
        return rows

    def _sources(self) -> list[Path]:
        final = self.path / FINAL[0]
        return [*([final] if final.is_file() else []), *self._parts()]

    def open(self, run: Mapping[str, Any], *, overwrite: bool) -> None:
        """Take the folder, making it if need be.

        `run` is what run.json says of this run; the attempts of an earlier start are kept. Raises RecordError
        if it cannot be written or another run holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RecordError(
                f"{self.path}: cannot be written ({error.strerror}); give another --output-dir"
            ) from None
        self._wait_for_lock()
        for name in (*FINAL, RUN, PARTIAL):  # what a killed start was writing
            for file in self.path.glob(f".{name}.*.tmp"):
                file.unlink()
        if overwrite:
            for name in (*FINAL, RUN):
                (self.path / name).unlink(missing_ok=True)
            for part in self._parts():
                part.unlink()
        earlier = read_run(self.path).get("attempts", []) if (self.path / RUN).is_file() else []
        self.run = {**run, "attempts": [*earlier, run["attempts"][0]]}
        self.write_run()

    def _wait_for_lock(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RecordError(
                        f"{self.path}: another run is writing there; wait for it or give another --output-dir"
                    ) from None
                time.sleep(0.2)
            except OSError:  # a file system without locks
                return

    def check_model(self) -> None:
        """Raise RecordError if a server has another model than at the first start that met one."""
        models = [start.get("engine_arguments", {}).get("model") for start in self.run["attempts"]]
        first = next(model for model in models if model is not None)
        if first != models[-1]:
            raise RecordError(
                f"{self.path}: holds a run with other arguments: model {first} then, {models[-1]} now; "
                "serve the same model, give another --output-dir, or --overwrite"
            )

    @property
    def attempt(self) -> dict[str, Any]:
        """This start's entry of run.json; change it, then `write_run`."""
        entry: dict[str, Any] = self.run["attempts"][-1]
        return entry

    def write_run(self) -> None:
        """Write run.json."""
        write_text_atomic(self.path / RUN, json.dumps(self.run, indent=2, ensure_ascii=False) + "\n")

    def close_attempt(
        self,
        status: str,
        before: Collection[str],
        *,
        first_row_s: float | None = None,
        generate_s: float | None = None,
        gpus: Mapping[str, Any] | None = None,
    ) -> None:
        """Write into run.json how this start ended and what it added to the rows `before`.

        Args:
            status: finished, interrupted or failed.
            before: the ids of the rows that were done when it began.
            first_row_s: seconds from the start to the first row, None without one.
            generate_s: seconds since an engine was ready, None if none was.
            gpus: what `GpuWatch.close` gave.
        """
        new = [row for identity, row in self.read_done().items() if identity not in before]
        attempt = self.attempt
        attempt |= {
            "status": status,
            "ended_at": utc_now(),
            "rows_done_before": len(before),
            "rows_done": len(new),
            "rows_failed": sum("error" in row for row in new),
            "prompt_tokens": sum(row.get("n_prompt_tokens", 0) for row in new),
            "response_tokens": sum(row.get("n_response_tokens", 0) for row in new),
        }
        scored = Counter[str]()
        for row in new:
            scored.update(row.get("confidence_tokens", {}))
        if scored:
            attempt["confidence_tokens"] = dict(scored)
        if first_row_s is not None:
            attempt["first_row_s"] = round(first_row_s, 2)
        if generate_s:
            attempt["generate_s"] = round(generate_s, 2)
            for name, n in (("rows", len(new)), *((key, attempt[key]) for key in TOKEN_COUNTS)):
                attempt[f"{name}_per_s"] = round(n / generate_s, 2)
        if gpus:
            attempt["gpus"] = dict(gpus)
        self._add_cost(attempt, new)
        self.write_run()

    def _add_cost(self, attempt: dict[str, Any], new: Sequence[Mapping[str, Any]]) -> None:
        """Price the tokens: of a server all that it counted, also for answers that came to nothing."""
        prices = [attempt["arguments"].get(name) for name in ("price_in", "price_out")]
        answered = [row for row in new if "error" not in row]
        if not answered or None in prices:
            return
        if not all("n_prompt_tokens" in row and "n_response_tokens" in row for row in answered):
            attempt["cost"] = None  # the server does not tell
            return
        n_in, n_out = (attempt.get("requests", attempt)[key] for key in TOKEN_COUNTS)
        n_in += sum(attempt.get("confidence_tokens", {}).values())
        paid = (n_in * prices[0] + n_out * prices[1]) / 1e6
        attempt |= {"cost": round(paid, 6), "cost_per_1000_rows": round(1000 * paid / len(new), 6)}

    def _parts(self) -> list[Path]:
        return sorted(self.path.glob("partial*.jsonl"))

    def part(self, worker: int | None = None) -> Path:
        """Give the file that finished rows are appended to, of the run or of one worker."""
        return self.path / (PARTIAL if worker is None else f"partial-{worker}.jsonl")

    def appender(self, worker: int | None = None) -> JsonlAppender:
        """Open that file for appending, its torn last line repaired."""
        return JsonlAppender(self.part(worker))

    def gather(self, *, retry_errors: bool, invalid: Sequence[Record] = ()) -> dict[str, dict[str, Any]]:
        """Put the rows of every earlier start into one partial file and give them by id.

        Rows whose failure was not their own are left out, with `retry_errors` all failed rows, so that they
        are asked again. `invalid`: rows that are known to fail, done from the beginning.
        """
        for part in self._parts():
            JsonlAppender(part).close()  # repairs a torn last line
        outputs = {row["id"]: _output_fields(row) for row in invalid}
        for source in self._sources():
            for _, row in read_jsonl(source):
                error = row.get("error")
                if error is None:  # also of a row that failed in an earlier start
                    outputs[row["id"]] = _output_fields(row)
                elif not (retry_errors or error.get("type") in NOT_THE_ROWS_OWN):
                    outputs.setdefault(row["id"], _output_fields(row))
        write_jsonl_atomic(self.path / PARTIAL, outputs.values())
        for part in self._parts():
            if part.name != PARTIAL:
                part.unlink()
        return outputs

    def read_gathered(self) -> set[str]:
        """Give the ids that `gather` put into the partial file: what was done when this start began."""
        return {row["id"] for _, row in read_jsonl(self.part())}

    def read_done(self) -> dict[str, dict[str, Any]]:
        """Give the rows on disk that the final files do not hold yet, by id."""
        return {row["id"]: row for part in self._parts() for _, row in read_jsonl(part)}

    def finish(self, records: Sequence[Record]) -> tuple[int, Counter[str]]:
        """Write the final files; gives the number of rows with a response, and of errors by their type."""
        merged = merge_by_id(records, self.read_done().values())
        failed = [row for row in merged if row.get("error") is not None]
        write_jsonl_atomic(self.path / "error.jsonl", failed)
        write_jsonl_atomic(self.path / "merged.jsonl", merged)
        write_jsonl_atomic(self.path / "predictions.jsonl", merged)
        for part in self._parts():
            part.unlink()
        return len(merged) - len(failed), Counter(row["error"]["type"] for row in failed)

    def close(self) -> None:
        """Let another run have the folder."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def _output_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in OUTPUT_FIELDS if name in row}


def image_root_of_run(predictions: Path) -> Path | None:
    """The image root that the run of these predictions used, from its run.json; None if there is none."""
    try:
        return Path(read_run(predictions.parent)["identity"]["image_root"])
    except (ValueError, KeyError, TypeError):
        return None
