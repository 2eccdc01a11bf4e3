"""The files of an evaluation, under both protocols: each function fills the folder that it is given."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.records import write_text_atomic

if TYPE_CHECKING:
    from emocaliber.report.confidences import ConfidenceReport
    from emocaliber.report.paper import PaperProtocol
    from emocaliber.report.results import Evaluation
    from emocaliber.report.samples import SampleReport


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
    from emocaliber.report.sections import pooling_warnings

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
    from emocaliber.report.paper_difference import protocol_difference

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


def image_root_of_run(predictions: Path) -> Path | None:
    """The image root that the run of these predictions used, from its run.json; None if there is none."""
    try:
        run = json.loads((predictions.parent / "run.json").read_text(encoding="utf-8"))
        return Path(run["identity"]["image_root"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
