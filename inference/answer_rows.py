"""Rows to a backend and their outcomes to whoever writes them, whatever the way of running."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from backend import Answer, Backend, EngineError, Refusal
from progress import Progress
from run_folder import NOT_THE_ROWS_OWN
from stopping import Stopper

from emocaliber.records import Record


def answer_rows(
    backend: Backend,
    records: Iterable[Record],
    write: Callable[[Answer | Refusal], None],
    stopper: Stopper | None = None,
) -> None:
    """Ask every row and write its outcome as it comes, until all are done or the run is stopped.

    A row whose failure was not its own is asked once more at the end.
    """
    unlucky: list[Record] = []
    by_id: dict[str, Record] = {}

    def remembered() -> Iterator[Record]:
        for record in records:
            by_id[record["id"]] = record
            yield record

    for rows, is_last in ((remembered(), False), (unlucky, True)):
        with closing(backend.answers(rows)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Refusal) and outcome.type in NOT_THE_ROWS_OWN and not is_last:
                    unlucky.append(by_id[outcome.id])
                elif outcome is not None:
                    write(outcome)
                if outcome is not None:
                    by_id.pop(outcome.id, None)
                if stopper is not None and stopper.signal is not None:
                    return
        if not unlucky:
            return


def check_failures(progress: Progress, most: int | None) -> None:
    """Raise EngineError if more rows have failed than may."""
    if most is not None and progress.n_failed > most:
        raise EngineError(
            f"{progress.n_failed} rows have an error, more than --max-failures {most}; see the last lines of "
            "partial*.jsonl, mend their cause and continue with --retry-errors"
        )
