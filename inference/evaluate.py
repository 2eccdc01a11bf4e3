"""Measure predictions: how often they are right, and how honest their confidence is.

Writes metric.log, metric_conf.log, metrics.json, merged_conf.jsonl and the figures into a folder, and prints
both tables. The files are moved in one by one once all are finished: an error before that changes none.
"""

import argparse
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from emocaliber.command_line import CommandParser
from emocaliber.records import Record, RecordError, read_records, write_jsonl_atomic, write_text_atomic
from emocaliber.report.as_json import metrics_json
from emocaliber.report.figures import draw_figures, figure_files
from emocaliber.report.logs import confidence_part, metric_conf_log, metric_log, metric_part
from emocaliber.report.summary import Evaluation, evaluate
from emocaliber.scoring import PROTOCOLS, ScoredRow

_LONGEST_REASON = 60


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSON lines with a `response` or an `error` each, plain or gzipped: a predictions.jsonl of "
        "inference/infer.py or a published merged.jsonl; several files count as one",
    )
    parser.add_argument(
        "--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there"
    )
    parser.add_argument(
        "--protocol",
        choices=sorted(PROTOCOLS),
        default="default",
        help="how an answer is read and counted (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parse_arguments(argv)
    try:
        evaluation, written = run(arguments.predictions, arguments.output_dir, arguments.protocol)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(metric_part(evaluation), confidence_part(evaluation), sep="\n\n")
    print(f"\nWritten to {arguments.output_dir}: {', '.join(written)}")
    if not evaluation.overall.n_with_confidence:
        print("No figures: no row states a confidence.")
    return 0


def run(predictions: Sequence[str], output_dir: Path, protocol: str) -> tuple[Evaluation, list[str]]:
    """Evaluate files of predictions and write everything.

    Returns:
        What was measured, and the names of the files that were written.
    Raises:
        RecordError: predictions that cannot be read, or an output folder that cannot be written. Nothing has
            changed then, unless moving the finished files in has failed midway.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise RecordError(f"{output_dir}: not a folder; give --output-dir a folder")
    records = _read(predictions)
    rows = [PROTOCOLS[protocol](record) for record in records]
    pairs = list(zip(records, rows, strict=True))
    failures = {row.id: _failure_of(record) for record, row in pairs if row.status == "failed"}
    evaluation = evaluate(rows, failures, protocol)
    figures = draw_figures(evaluation)
    texts = {
        "metric.log": metric_log(evaluation),
        "metric_conf.log": metric_conf_log(evaluation),
        "metrics.json": metrics_json(evaluation, {"predictions": list(predictions)}),
    }

    def write_into(folder: Path) -> None:
        for name, text in texts.items():
            write_text_atomic(folder / name, text)
        write_jsonl_atomic(folder / "merged_conf.jsonl", (_with_prediction(*pair) for pair in pairs))
        for name, png in figures.items():
            (folder / name).write_bytes(png)

    try:
        _replace_together(output_dir, write_into, outdated=set(figure_files()) - set(figures))
    except OSError as error:
        raise RecordError(
            f"{output_dir}: cannot be written ({error.strerror}); give a folder that can"
        ) from None
    return evaluation, [*texts, "merged_conf.jsonl", *figures]


def _read(predictions: Sequence[str]) -> list[Record]:
    places = [os.path.realpath(path) for path in predictions]
    for path, place in zip(predictions, places, strict=True):
        if places.count(place) > 1:
            raise RecordError(f"{path}: given twice; give every file of predictions once")
    records = read_records(*predictions)
    if not records:
        raise RecordError(f"{' '.join(predictions)}: no rows; give a file with predictions")
    return records


def _failure_of(record: Record) -> str:
    """Name why a row has no response: the type of its error, or the beginning of an error that is a text."""
    error = record.get("error")
    if isinstance(error, dict):
        error = error.get("type") or error.get("message")
    reason = " ".join(str(error).split()) if error else ""
    if not reason:
        return "no_response" if record.get("error") is None else "error"
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


def _with_prediction(record: Record, row: ScoredRow) -> Record:
    confidence = None if row.confidence is None else float(row.confidence)
    return {**record, "prediction": row.label, "confidence": confidence}


def _replace_together(output_dir: Path, write_into: Callable[[Path], None], outdated: Iterable[str]) -> None:
    """Fill a folder inside the output first and move its files up at the end, one by one.

    An error before the first move changes nothing; one among the moves leaves new files beside old ones.
    `outdated` are files of an earlier evaluation that this one does not have: they would contradict it.
    """
    was_there = output_dir.exists()
    output_dir.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".evaluation-", dir=output_dir))
    try:
        write_into(staging)
        files = sorted(staging.iterdir())
        for file in files:
            if (output_dir / file.name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{file.name} in it is a folder")
        for file in files:
            os.replace(file, output_dir / file.name)
        for name in outdated:
            (output_dir / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not was_there and not any(output_dir.iterdir()):
            output_dir.rmdir()


if __name__ == "__main__":
    sys.exit(main())
