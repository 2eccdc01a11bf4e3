"""One evaluation: the rows of the predictions read once, then every file of results.

An evaluation of its own is `emocaliber.report`; what is here reads, writes and says.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emocaliber.jsonl import JsonlAppender
from emocaliber.records import Record, RecordError, iterate_with_places, write_text_atomic
from emocaliber.report import paper
from emocaliber.report.as_json import UNIT, metrics_content, metrics_json
from emocaliber.report.collector import Collector
from emocaliber.report.confidences import ConfidenceCollector
from emocaliber.report.confidences_section import best_lines
from emocaliber.report.figure_style import SUFFIXES
from emocaliber.report.figures import Drawing, drawing_process, figure_files
from emocaliber.report.logs import confidence_part, metric_conf_log, metric_log, metric_part
from emocaliber.report.page import MOST_ROWS, PageRow, page_row, write_page
from emocaliber.report.summary import pooling_warnings, summarise
from emocaliber.scoring import ScoredRow, score
from inference.outputs.staging import replace_together
from inference.runs.run_folder import image_root_of_run

OUTPUTS = frozenset({"response", "samples", "error"})
"""One of these makes a row of data one of predictions."""

_LONGEST_REASON = 60


@dataclass
class Scored:
    """What one pass over the predictions gives; `page_rows` is empty if there is to be no page."""

    rows: Collector = field(default_factory=Collector)
    confidences: ConfidenceCollector = field(default_factory=ConfidenceCollector)
    by_paper: paper.PaperProtocol = field(default_factory=paper.PaperProtocol)
    page_rows: list[PageRow] = field(default_factory=list)
    n_rows: int = 0
    n_clustered: int = 0


def evaluate_files(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Evaluate and write everything.

    Args:
        arguments: as `inference/evaluate.py` reads them.
    Returns:
        The lines to print, and the names of the files that were written.
    Raises:
        RecordError: predictions that cannot be read, or an output folder that cannot be written. Nothing has
            changed then, unless moving the finished files in has failed midway.
    """
    clusters = _read_clusters(arguments.clusters)
    lines: list[str] = []

    def write_into(folder: Path) -> None:
        has_figures = arguments.protocol != "paper" and not arguments.no_figures
        with drawing_process(SUFFIXES[: 1 + arguments.pdf] if has_figures else ()) as draw:
            with JsonlAppender(folder / "merged_conf.jsonl") as merged:
                scored = _read_and_score(arguments, clusters, merged.write)
            if arguments.protocol == "paper":
                lines.extend(_write_paper(folder, scored.by_paper.scores(), arguments.predictions))
            else:
                lines.extend(_write_default(folder, scored, arguments, draw))
        if clusters:
            together = f"{scored.n_clustered} of {scored.n_rows} rows show an image that others show as well"
            lines.extend(["", f"Drawn together for the intervals: {together} ({arguments.clusters})"])

    written = replace_together(arguments.output_dir, write_into, _outdated)
    return [*lines, "", f"Written to {arguments.output_dir}: {', '.join(written)}"], written


def _outdated(written: set[str]) -> set[str]:
    """The files of an earlier evaluation that this one does not have: they would contradict it."""
    return {*figure_files(), "report.html", "metric_paper.log", "metric_conf_paper.log"} - written


def _read_and_score(
    arguments: argparse.Namespace, clusters: Mapping[str, str], write: Callable[[Record], None]
) -> Scored:
    """Score row after row; each goes to merged_conf.jsonl at once, so that none has to be kept."""
    found = Scored()
    has_outputs = False
    by_default, by_paper = arguments.protocol != "paper", arguments.protocol != "default"
    for place, record in _records(arguments.predictions):
        try:
            row, failure = score_with_failure(record)
            cluster = clusters.get(row.image_key or "")
            drawn = row if cluster is None else replace(row, image_key=cluster)
            if by_default:
                found.confidences.add(record, drawn)
        except RecordError as error:
            raise RecordError(f"{place}: {error}") from None
        if by_default:
            found.rows.add(drawn, failure)
        if by_paper:
            found.by_paper.add(record, row)
        if not arguments.no_page and by_default and found.n_rows < MOST_ROWS:
            found.page_rows.append(page_row(row, record))
        else:
            found.page_rows.clear()
        confidence = None if row.confidence is None else float(row.confidence)
        write({**record, "task": row.task, "prediction": row.label, "confidence": confidence})
        has_outputs |= not OUTPUTS.isdisjoint(record)
        found.n_rows += 1
        found.n_clustered += cluster is not None
    if not has_outputs:
        raise RecordError(
            f"{' '.join(arguments.predictions)}: no row has one of {', '.join(sorted(OUTPUTS))}; "
            "give the predictions.jsonl of inference/infer.py, not the data that it reads"
        )
    if clusters and not found.n_clustered:
        raise RecordError(
            f"{arguments.clusters}: none of its images occurs in the predictions; make it from the "
            "records that were predicted, whose image paths are spelt alike"
        )
    return found


def _records(predictions: Sequence[str]) -> Iterator[tuple[str, Record]]:
    places = [os.path.realpath(path) for path in predictions]
    for path, place in zip(predictions, places, strict=True):
        if places.count(place) > 1:
            raise RecordError(f"{path}: given twice; give every file of predictions once")
    n_rows = 0
    for placed in iterate_with_places(*predictions, keep_tasks=True):
        n_rows += 1
        yield placed
    if not n_rows:
        raise RecordError(f"{' '.join(predictions)}: no rows; give a file with predictions")


def score_with_failure(record: Record) -> tuple[ScoredRow, str]:
    """Score a row, and say why it has no response if it has none: the type of its error, or how it begins."""
    error = record.get("error")
    if isinstance(error, dict):
        error = error.get("type") or error.get("message")
    reason = " ".join(str(error).split()) if error else ""
    if not reason:
        reason = "no_response" if record.get("error") is None else "error"
    if len(reason) > _LONGEST_REASON:
        reason = reason[: _LONGEST_REASON - 1] + "…"
    return score(record), reason


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


def _write_default(folder: Path, scored: Scored, arguments: argparse.Namespace, draw: Drawing) -> list[str]:
    """Write the logs, metrics.json, figures and page; with the paper's protocol, its logs and what differs.

    Returns:
        The lines to print.
    """
    draws = (arguments.draws, arguments.seed)
    evaluation = summarise(scored.rows, *draws)
    drawn = draw(evaluation)
    samples, confidences = scored.confidences.sample_report(*draws), scored.confidences.report(*draws)
    content = metrics_content(evaluation, {"predictions": arguments.predictions}, samples, confidences)
    printed = [metric_part(evaluation), "", confidence_part(evaluation), *pooling_warnings(evaluation)]
    logs = {
        "metric.log": metric_log(evaluation),
        "metric_conf.log": metric_conf_log(evaluation, samples, confidences),
    }
    if confidences is not None:
        printed += ["", *best_lines(confidences)]
    if arguments.protocol == "both":
        by_paper = scored.by_paper.scores()
        logs["metric_paper.log"] = paper.metric_log(by_paper)
        logs["metric_conf_paper.log"] = paper.metric_conf_log(by_paper)
        difference, moved = paper.protocol_difference(by_paper, content)
        content |= {"paper": by_paper, "protocol_difference": moved}
        logs["metric_conf.log"] += f"\n{difference}\n"
        printed.append(f"\n{difference}")
    for name, text in {**logs, "metrics.json": metrics_json(content)}.items():
        write_text_atomic(folder / name, text)
    if not arguments.no_page and scored.n_rows <= MOST_ROWS:
        write_page(
            folder / "report.html",
            content,
            scored.page_rows,
            title=arguments.output_dir.resolve().name,
            image_root=arguments.image_root or image_root_of_run(Path(arguments.predictions[0])),
        )
    figures = drawn()
    for name, picture in figures.items():
        (folder / name).write_bytes(picture)
    if not figures and not arguments.no_figures:
        printed.append("No figures: no row states a confidence.")
    if not arguments.no_page and scored.n_rows > MOST_ROWS:
        printed.append(f"No page: {scored.n_rows} rows, more than the {MOST_ROWS} that it holds.")
    return printed


def _write_paper(folder: Path, scores: Mapping[str, Any], predictions: Sequence[str]) -> list[str]:
    """Write the logs and metrics.json of the paper protocol alone; gives the lines to print."""
    logs = {"metric.log": paper.metric_log(scores), "metric_conf.log": paper.metric_conf_log(scores)}
    content = {"predictions": list(predictions), "protocol": "paper", "unit": UNIT, **scores}
    for name, text in {**logs, "metrics.json": metrics_json(content)}.items():
        write_text_atomic(folder / name, text)
    return [log.split("\n\n")[0] + "\n" for log in logs.values()]
