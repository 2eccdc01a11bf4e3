"""Rows to a backend and their outcomes to whoever writes them, whatever the way of running."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from backend import Answer, Backend, EngineError, Refusal, as_output
from progress import Progress
from run_folder import NOT_THE_ROWS_OWN
from seen_images import IMAGE_SUMS, image_sums
from stopping import Stopper

from emocaliber.records import Record


def answer_rows(
    backend: Backend,
    records: Iterable[Record],
    image_root: Path,
    write: Callable[[dict[str, Any]], None],
    stopper: Stopper | None = None,
) -> None:
    """Ask every row and write its outcome as it comes, until all are done or the run is stopped.

    `write` gets the fields that the outcome adds to the record, id and sums of the images included.
    A row whose failure was not its own is asked once more at the end.
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
                        write(_as_row(outcome, record, image_root))
                if stopper is not None and stopper.signal is not None:
                    return
        if not unlucky:
            return


def _as_row(outcome: Answer | Refusal, record: Record, image_root: Path) -> dict[str, Any]:
    row = as_output(outcome)
    sums = image_sums(record, image_root) if isinstance(outcome, Answer) else None
    return row if sums is None else row | {IMAGE_SUMS: sums}


def check_failures(progress: Progress, most: int | None) -> None:
    """Raise EngineError if more rows have failed than may."""
    if most is not None and progress.n_failed > most:
        raise EngineError(
            f"{progress.n_failed} rows have an error, more than --max-failures {most}; see the last lines of "
            "partial*.jsonl, mend their cause and continue with --retry-errors"
        )
