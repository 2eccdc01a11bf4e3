"""`metrics.json`: every number of an evaluation, unrounded; a number that is undefined is null."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emocaliber.metrics import ReliabilityBin, ThresholdRow
from emocaliber.report.summary import OVERALL, SCORES, Evaluation, Summary, TaskMean


def metrics_json(evaluation: Evaluation, provenance: Mapping[str, Any]) -> str:
    """The text of `metrics.json`.

    Args:
        evaluation: what was measured.
        provenance: what it was measured on; its keys come first.
    Returns:
        `provenance`, then `protocol`, `unit`, `overall`, `groups`, `tasks`. A task is the summary of its
        rows; a group and `overall` hold the summary of their rows as `samples`, the mean over their tasks as
        `task_mean`, and the names of their `tasks`. ASCII only, so that any name can be written.
    """
    names = [task.name for task in evaluation.tasks]
    content = {
        **provenance,
        "protocol": evaluation.protocol,
        "unit": "scores are fractions in [0, 1]",
        "overall": _pooled(evaluation.overall, evaluation.task_means[OVERALL], names),
        "groups": {
            group.name: _pooled(
                group, evaluation.task_means[group.name], evaluation.tasks_of_group[group.name]
            )
            for group in evaluation.groups
        },
        "tasks": {task.name: _summary(task) for task in evaluation.tasks},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _pooled(summary: Summary, task_mean: TaskMean, tasks: Sequence[str]) -> dict[str, Any]:
    return {
        "tasks": list(tasks),
        "samples": _summary(summary),
        "task_mean": {**task_mean.scores, "n_tasks": task_mean.n_tasks},
    }


def _summary(summary: Summary) -> dict[str, Any]:
    truth = summary.truth
    return {
        "n": summary.n,
        "answered": summary.answered,
        "unparsed": summary.unparsed,
        "failed": summary.failed,
        "unparsed_reasons": summary.unparsed_reasons,
        "failed_reasons": summary.failed_reasons,
        "flags": summary.flags,
        "n_with_confidence": summary.n_with_confidence,
        "n_unparsed_with_confidence": summary.n_unparsed_with_confidence,
        "no_confidence_reasons": summary.no_confidence_reasons,
        **{score: getattr(summary, score) for score in SCORES},
        "truth": truth
        and {
            "n": truth.n,
            "n_with_confidence": truth.n_with_confidence,
            "acc": truth.acc,
            "bayes_acc": truth.bayes_acc,
            "mean_abs_confidence_minus_posterior": truth.gap,
        },
        "thresholds": [_threshold(row) for row in summary.thresholds],
        "reliability_bins": [_bin(one) for one in summary.bins],
    }


def _threshold(row: ThresholdRow) -> dict[str, Any]:
    return {
        "threshold": float(row.threshold),
        "n": row.n,
        "coverage": row.coverage,
        "acc": row.accuracy,
        "f1": row.f1,
    }


def _bin(one: ReliabilityBin) -> dict[str, Any]:
    return {
        "low": float(one.low),
        "high": float(one.high),
        "n": one.n,
        "n_correct": one.n_correct,
        "mean_confidence": one.mean_confidence,
        "acc": one.accuracy,
    }
