"""`metrics.json` and `comparison.json`: every number, unrounded; a number that is undefined is null."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from emocaliber.metrics.scores import BIASED_UPWARD
from emocaliber.report.comparison import COMPARED, HIGHER_IS_BETTER, Comparison, Pair
from emocaliber.report.comparison_tables import EVOLUTION, best_places, evolution_values
from emocaliber.report.confidences import ConfidenceReport, SampleReport
from emocaliber.report.confidences_section import confidences_content, samples_content
from emocaliber.report.summary import (
    Evaluation,
    Summary,
    TaskMean,
    pooling_warnings,
)
from emocaliber.report.tables import OVERALL, TaskSet

UNIT = "scores are fractions in [0, 1]"


def metrics_json(content: Mapping[str, Any]) -> str:
    """The text of `metrics.json` or `comparison.json`, ASCII only, so that any name can be written."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def metrics_content(
    evaluation: Evaluation,
    provenance: Mapping[str, Any],
    samples: SampleReport | None = None,
    confidences: ConfidenceReport | None = None,
) -> dict[str, Any]:
    """What `metrics.json` holds by the default protocol.

    Args:
        evaluation: what was measured.
        provenance: what it was measured on; its keys come first.
        samples: the rows with several samples, if there are any.
        confidences: the rows with several confidences, if there are any.
    Returns:
        `provenance`, then `protocol`, `unit`, `intervals`, `n_images`, `warnings`, `overall`, `groups`,
        `tasks`. A task is the summary of its rows; a group and `overall` hold the summary of their rows as
        `samples`, the mean over their tasks as `task_mean`, and the names of their `tasks`. `null_ece` is the
        ECE of a perfectly calibrated model with the same confidences. Where they are given, `samples` and
        `confidences` come last, as `samples_content` and `confidences_content` give them.
    """
    names = [task.name for task in evaluation.tasks]
    content: dict[str, Any] = {
        **provenance,
        "protocol": "default",
        "unit": UNIT,
        "intervals": {"level": 0.95, "n_draws": evaluation.n_draws, "seed": evaluation.seed},
        "n_images": evaluation.n_images,
        "warnings": pooling_warnings(evaluation),
        "overall": _pooled(evaluation.overall, evaluation.task_means[OVERALL], names),
        "groups": {
            group.name: _pooled(
                group, evaluation.task_means[group.name], evaluation.tasks_of_group[group.name]
            )
            for group in evaluation.groups
        },
        "tasks": {task.name: _summary(task) for task in evaluation.tasks},
    }
    if samples is not None:
        content["samples"] = samples_content(samples)
    if confidences is not None:
        content["confidences"] = confidences_content(confidences)
    return content


def _pooled(summary: Summary, task_mean: TaskMean, tasks: Sequence[str]) -> dict[str, Any]:
    means = asdict(task_mean)
    return {
        "tasks": list(tasks),
        "samples": _summary(summary),
        "task_mean": {**means.pop("scores"), **means},
    }


_ACCOUNT = (
    *("n", "answered", "unparsed", "failed", "unparsed_reasons", "failed_reasons", "flags"),
    *("n_with_confidence", "n_unparsed_with_confidence", "no_confidence_reasons"),
)


def _summary(summary: Summary) -> dict[str, Any]:
    chance = summary.by_chance
    return {
        **{name: getattr(summary, name) for name in _ACCOUNT},
        **summary.scores,
        "intervals": summary.intervals,
        "null_ece": chance and {"mean": chance.mean, "p95": chance.p95},
        "truth": summary.truth and asdict(summary.truth),
        "thresholds": [
            {"threshold": float(row.threshold), "n": row.n, **row.scores, "intervals": row.intervals}
            for row in summary.thresholds
        ],
        "reliability_bins": [
            {
                **{name: getattr(one, name) for name in ("low", "high", "n", "n_correct", "mean_confidence")},
                "acc": one.accuracy,
                "null_low": one.null_low,
                "null_high": one.null_high,
            }
            for one in summary.bins
        ],
        "risk_coverage": [
            {"threshold": point.threshold, "coverage": point.coverage, "risk": 1 - point.accuracy}
            for point in summary.curve
        ],
        "confusion": _confusion(summary.confusion),
    }


def _confusion(counts: Mapping[tuple[str, str | None], int]) -> dict[str, Any] | None:
    """Rows by true label (row) and answer (column); the last column has no answer."""
    if not counts:
        return None
    labels = sorted({label for pair in counts for label in pair if label is not None})
    answers = [*labels, None]
    return {
        "labels": labels,
        "counts": [[counts.get((true, given), 0) for given in answers] for true in labels],
    }


def comparison_content(comparison: Comparison, files: Mapping[str, str]) -> dict[str, Any]:
    """What `comparison.json` holds; `files`: the file of predictions of each run, by name.

    Returns:
        `runs` in the order given; `sets` of rows with the scores of each run by its name (a group and Overall
        also as `task_mean`); `differences` from the first run, one a run; `evolution`, the table of runs.
    """
    first = comparison.runs[0].name
    return {
        "unit": "scores and differences are fractions",
        "higher_is_better": {score: score in HIGHER_IS_BETTER for score in COMPARED},
        "n_rows": comparison.n_rows,
        "n_images": comparison.n_images,
        "intervals": {
            "level": 0.95,
            "method": "percentiles of paired differences, bootstrap over images",
            "reflected_at_the_difference": [score for score in COMPARED if score in BIASED_UPWARD],
            "n_draws": comparison.n_draws,
            "seed": comparison.seed,
        },
        "runs": [{"name": run.name, "file": files[run.name], **asdict(run)} for run in comparison.runs],
        "sets": [_set(comparison, one) for one in comparison.sets],
        "differences": [_pair(pair, first) for pair in comparison.pairs],
        "evolution": [_evolution(comparison, one) for one in comparison.pooled],
    }


def _set(comparison: Comparison, one: TaskSet) -> dict[str, Any]:
    names = [run.name for run in comparison.runs]
    content: dict[str, Any] = {
        **asdict(one),
        "n": comparison.n_of[one],
        "scores": dict(zip(names, comparison.values[one], strict=True)),
    }
    if one in comparison.task_means:
        content["task_mean"] = dict(zip(names, comparison.task_means[one], strict=True))
    return content


def _pair(pair: Pair, first: str) -> dict[str, Any]:
    return {
        "run": pair.run.name,
        "minus": first,
        "correction": {
            "method": "Holm",
            "family": "every defined score of every task, group and Overall of this pair, same rows once",
            "n_tests": pair.n_tests,
            "n_significant": pair.n_significant,
        },
        "sets": [
            {
                "kind": one.kind,
                "name": one.name,
                "scores": {score: asdict(test) for score, test in tests.items()},
                "mcnemar": asdict(pair.mcnemar[one]),
            }
            for one, tests in pair.differences.items()
        ],
    }


def _evolution(comparison: Comparison, one: TaskSet) -> dict[str, Any]:
    names = [run.name for run in comparison.runs]
    values = evolution_values(comparison, one)
    best = {
        score: [names[place] for place in sorted(best_places([run[score] for run in values], score))]
        for score, _ in EVOLUTION
    }
    return {"group": one.name, "runs": dict(zip(names, values, strict=True)), "best": best}
