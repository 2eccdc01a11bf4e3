"""Measure predictions: how often they are right, how honest their confidence is, and how sure that is.

Writes metric.log, metric_conf.log, metrics.json, merged_conf.jsonl, the figures and report.html into a
folder, and prints both tables. The files are moved in one by one once all are finished: an error before that
changes none. merged_conf.jsonl holds the rows as given, but for the fields `prediction` and `confidence`:
they are what was read from the response, whatever the input says there.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.records import JsonlAppender, Record, RecordError, iterate_with_places, write_text_atomic
from emocaliber.report.paper import PaperProtocol, protocol_difference
from emocaliber.scoring import ScoredRow, score
from inference.outputs.log_to import add_option, log_to_each, require_installed
from inference.outputs.staging import replace_together
from inference.runs.run_folder import image_root_of_run

if TYPE_CHECKING:
    from emocaliber.report.confidences import (
        ConfidenceCollector,
        ConfidenceReport,
        SampleCollector,
        SampleReport,
    )
    from emocaliber.report.page import PageRow
    from emocaliber.report.summary import Evaluation


def write_default(
    folder: Path,
    evaluation: "Evaluation",
    samples: "SampleReport | None",
    confidences: "ConfidenceReport | None",
    predictions: Sequence[str],
    paper: "PaperProtocol | None",
) -> tuple[dict[str, Any], list[str]]:
    """Write the logs and metrics.json; with `paper`, its logs and what differs beside them.

    Returns:
        The content of metrics.json, and the lines to print.
    """
    from emocaliber.report.as_json import metrics_content
    from emocaliber.report.confidences_section import best_lines
    from emocaliber.report.logs import confidence_part, metric_conf_log, metric_log, metric_part
    from emocaliber.report.summary import pooling_warnings

    content = metrics_content(evaluation, {"predictions": list(predictions)}, samples, confidences)
    difference = "" if paper is None else _write_paper_beside(folder, paper, content)
    write_text_atomic(folder / "metric.log", metric_log(evaluation))
    write_text_atomic(
        folder / "metric_conf.log", metric_conf_log(evaluation, samples, confidences) + difference
    )
    _write_metrics(folder, content)
    printed = [metric_part(evaluation), "", confidence_part(evaluation), *pooling_warnings(evaluation)]
    if confidences is not None:
        printed += ["", *best_lines(confidences)]
    if difference:
        printed.append(difference.rstrip("\n"))
    return content, printed


def write_figures(folder: Path, evaluation: "Evaluation") -> list[str]:
    """Write the figures; gives the lines to print."""
    from emocaliber.report.figures import draw_figures

    figures = draw_figures(evaluation)
    for name, picture in figures.items():
        (folder / name).write_bytes(picture)
    return [] if figures else ["No figures: no row states a confidence."]


def write_paper(folder: Path, paper: "PaperProtocol", predictions: Sequence[str]) -> list[str]:
    """Write the logs and metrics.json of the paper protocol alone; gives the lines to print."""
    logs = {"metric.log": paper.metric_log(), "metric_conf.log": paper.metric_conf_log()}
    for name, log in logs.items():
        write_text_atomic(folder / name, log)
    _write_metrics(
        folder,
        {
            "predictions": list(predictions),
            "protocol": "paper",
            "unit": "scores are fractions in [0, 1]",
            **paper.scores(),
        },
    )
    return [log.split("\n\n")[0] + "\n" for log in logs.values()]


def _write_paper_beside(folder: Path, paper: "PaperProtocol", content: dict[str, Any]) -> str:

    write_text_atomic(folder / "metric_paper.log", paper.metric_log())
    write_text_atomic(folder / "metric_conf_paper.log", paper.metric_conf_log())
    text, moved = protocol_difference(paper.scores(), content)
    content["paper"] = paper.scores()
    content["protocol_difference"] = moved
    return f"\n{text}\n"


def _write_metrics(folder: Path, content: dict[str, Any]) -> None:
    write_text_atomic(folder / "metrics.json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def outdated(written: set[str]) -> set[str]:
    """The files of an earlier evaluation that this one does not have: they would contradict it."""
    from emocaliber.report.figures import figure_files

    return {*figure_files(), "report.html", "metric_paper.log", "metric_conf_paper.log"} - written


_LONGEST_REASON = 60
OUTPUTS = frozenset({"response", "samples", "error"})
"""One of these makes a row of data one of predictions."""

# A browser holds this many responses well; a page of more would be hundreds of MB.
_MOST_PAGE_ROWS = 20_000


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSON lines with a `response` (or `samples`) or an `error` each, plain or gzipped: a "
        "predictions.jsonl of inference/infer.py or a published merged.jsonl; several files count as one",
    )
    parser.add_argument(
        "--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there"
    )
    parser.add_argument(
        "--protocol",
        choices=("default", "paper", "both"),
        default="default",
        help="default: the correct numbers; paper: the published evaluator's, faults included, as metric.log "
        "and metric_conf.log; both: also metric_paper.log and metric_conf_paper.log, and what differs",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=2000,
        metavar="N",
        help="bootstrap draws for the 95 %% intervals, 0 for none, else at least 100 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--no-page", action="store_true", help="do not write report.html")
    parser.add_argument("--no-figures", action="store_true", help="do not draw the figures")
    parser.add_argument(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="what the image paths are relative to, for the thumbnails of the page (default: as in the "
        "run.json beside the predictions, else no thumbnails)",
    )
    parser.add_argument(
        "--clusters",
        type=Path,
        metavar="FILE",
        help="the clusters.json of data/check_leakage.py: its groups of images that are the same are drawn "
        "together for the intervals (default: an image is its path)",
    )
    add_option(parser)
    arguments = parser.parse_args(argv)
    require_installed(parser, arguments.log_to)
    if arguments.draws != 0 and arguments.draws < 100:
        parser.error("--draws must be 0 or at least 100")
    if arguments.seed < 0:
        parser.error("--seed must be 0 or above")
    if arguments.image_root is not None and not arguments.image_root.is_dir():
        parser.error(f"--image-root {arguments.image_root} is no folder")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: _run(parse_arguments(argv)))


def _run(arguments: argparse.Namespace) -> int:
    try:
        lines = Run(arguments).run()
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return log_to_each(arguments.log_to, arguments.output_dir)


class Run:
    """One evaluation, from the files of predictions to the files of results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._failures: dict[str, str] = {}
        self._page_rows: list[PageRow] = []
        self._n_rows = 0
        self._has_outputs = False
        self._paper: PaperProtocol | None = None
        self._samples: SampleCollector | None = None
        self._confidences: ConfidenceCollector | None = None
        self._clusters = _read_clusters(arguments.clusters)
        self._n_clustered = 0

    def run(self) -> list[str]:
        """Evaluate and write everything.

        Returns:
            The lines to print.
        Raises:
            RecordError: predictions that cannot be read, or an output folder that cannot be written. Nothing
                has changed then, unless moving the finished files in has failed midway.
        """
        output_dir: Path = self._arguments.output_dir
        printed: list[str] = []
        written = replace_together(output_dir, lambda folder: printed.extend(self._write(folder)), outdated)
        if self._clusters:
            together = f"{self._n_clustered} of {self._n_rows} rows show an image that others show as well"
            printed += ["", f"Drawn together for the intervals: {together} ({self._arguments.clusters})"]
        return [*printed, "", f"Written to {output_dir}: {', '.join(written)}"]

    def _write(self, folder: Path) -> list[str]:
        """Fill a folder with all results; gives what is to be printed."""
        arguments = self._arguments
        if arguments.protocol != "default":
            self._paper = PaperProtocol()
        with JsonlAppender(folder / "merged_conf.jsonl") as merged:
            rows = self._scored(merged.write)
            if arguments.protocol == "paper" and self._paper is not None:
                for _ in rows:  # each is added to the protocol on its way
                    pass
                return write_paper(folder, self._paper, arguments.predictions)
            return self._write_default(folder, rows)

    def _write_default(self, folder: Path, rows: Iterator["ScoredRow"]) -> list[str]:
        from emocaliber.report.confidences import ConfidenceCollector, SampleCollector
        from emocaliber.report.summary import evaluate

        arguments = self._arguments
        self._samples, self._confidences = SampleCollector(), ConfidenceCollector()
        evaluation = evaluate(rows, self._failures, "default", arguments.draws, arguments.seed)
        samples = self._samples.report(arguments.draws, arguments.seed)
        confidences = self._confidences.report(arguments.draws, arguments.seed)
        content, printed = write_default(
            folder, evaluation, samples, confidences, arguments.predictions, self._paper
        )
        if not arguments.no_figures:
            printed += write_figures(folder, evaluation)
        if self._has_page():
            from emocaliber.report.page import write_page

            title = arguments.output_dir.resolve().name
            image_root = arguments.image_root or image_root_of_run(Path(arguments.predictions[0]))
            write_page(folder / "report.html", content, self._page_rows, title=title, image_root=image_root)
        elif self._n_rows > _MOST_PAGE_ROWS and not arguments.no_page:
            printed.append(f"No page: {self._n_rows} rows, more than the {_MOST_PAGE_ROWS} that it holds.")
        return printed

    def _scored(self, write: Callable[[Record], None]) -> Iterator["ScoredRow"]:
        """Score row after row; each goes to merged_conf.jsonl at once, so that none has to be kept."""
        from emocaliber.report.page import page_row

        for place, record in _records(self._arguments.predictions):
            try:
                row = score(record)
                cluster = self._clusters.get(row.image_key or "")
                drawn = row if cluster is None else replace(row, image_key=cluster)
                for collector in (self._samples, self._confidences):
                    if collector is not None:
                        collector.add(record, drawn)
            except RecordError as error:
                raise RecordError(f"{place}: {error}") from None
            if row.status == "failed":
                self._failures[row.id] = _failure_of(record)
            confidence = None if row.confidence is None else float(row.confidence)
            write({**record, "prediction": row.label, "confidence": confidence})
            self._n_rows += 1
            self._has_outputs |= not OUTPUTS.isdisjoint(record)
            if self._paper is not None:
                self._paper.add(record, row)
            if self._has_page():
                # Of the row, not of its cluster: the page takes the image's path from the key.
                image = (row.image_key or "").split("\n")[0] or None
                self._page_rows.append(page_row(row, record, image))
            else:
                self._page_rows.clear()
            self._n_clustered += cluster is not None
            yield drawn
        if not self._has_outputs:
            raise RecordError(
                f"{' '.join(self._arguments.predictions)}: no row has one of {', '.join(sorted(OUTPUTS))}; "
                "give the predictions.jsonl of inference/infer.py, not the data that it reads"
            )
        if self._clusters and not self._n_clustered:
            raise RecordError(
                f"{self._arguments.clusters}: none of its images occurs in the predictions; make it from the "
                "records that were predicted, whose image paths are spelt alike"
            )

    def _has_page(self) -> bool:
        wanted = not self._arguments.no_page and self._arguments.protocol != "paper"
        return wanted and self._n_rows <= _MOST_PAGE_ROWS


def _read_clusters(path: Path | None) -> dict[str, str]:
    """The group of each image that is the same as another one; empty without a file."""
    if path is None:
        return {}
    try:
        groups = json.loads(path.read_bytes())["images"]
        if all(isinstance(group, str) for group in groups.values()):
            return dict(groups)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise RecordError(f"{path}: no clusters.json with `images`; write one by data/check_leakage.py")


def _records(predictions: Sequence[str]) -> Iterator[tuple[str, Record]]:
    places = [os.path.realpath(path) for path in predictions]
    for path, place in zip(predictions, places, strict=True):
        if places.count(place) > 1:
            raise RecordError(f"{path}: given twice; give every file of predictions once")
    n_rows = 0
    for placed in iterate_with_places(*predictions):
        n_rows += 1
        yield placed
    if not n_rows:
        raise RecordError(f"{' '.join(predictions)}: no rows; give a file with predictions")


def _failure_of(record: Record) -> str:
    """Name why a row has no response: the type of its error, or the beginning of an error that is a text."""
    error = record.get("error")
    if isinstance(error, dict):
        error = error.get("type") or error.get("message")
    reason = " ".join(str(error).split()) if error else ""
    if not reason:
        return "no_response" if record.get("error") is None else "error"
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
