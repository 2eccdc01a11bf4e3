"""`comparison.json`: every number of a comparison, unrounded; a number that is undefined is null."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from emocaliber.metrics.scores import BIASED_UPWARD
from emocaliber.report.comparison_results import COMPARED, HIGHER_IS_BETTER, Comparison, Pair, RowSet
from emocaliber.report.comparison_tables import EVOLUTION, best_places, evolution_values


def comparison_json(comparison: Comparison, files: Mapping[str, str]) -> str:
    """The text of `comparison.json`, ASCII only, so that any name can be written.

    `files`: the file of predictions of each run, by name.
    """
    return json.dumps(comparison_content(comparison, files), indent=2, allow_nan=False) + "\n"


def comparison_content(comparison: Comparison, files: Mapping[str, str]) -> dict[str, Any]:
    """What `comparison.json` holds.

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
        "runs": [
            {
                "name": run.name,
                "file": files[run.name],
                "answered": run.answered,
                "unparsed": run.unparsed,
                "failed": run.failed,
                "n_with_confidence": run.n_with_confidence,
            }
            for run in comparison.runs
        ],
        "sets": [_set(comparison, one) for one in comparison.sets],
        "differences": [_pair(pair, first) for pair in comparison.pairs],
        "evolution": [_evolution(comparison, one) for one in comparison.pooled],
    }


def _set(comparison: Comparison, one: RowSet) -> dict[str, Any]:
    names = [run.name for run in comparison.runs]
    content: dict[str, Any] = {
        "kind": one.kind,
        "name": one.name,
        "tasks": list(one.tasks),
        "n": one.n,
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
                "scores": {
                    score: {
                        "difference": test.value,
                        "interval": test.interval,
                        "p": test.p,
                        "p_holm": test.p_holm,
                    }
                    for score, test in tests.items()
                },
                "mcnemar": {
                    "only_first_right": pair.mcnemar[one].only_first,
                    "only_other_right": pair.mcnemar[one].only_other,
                    "p": pair.mcnemar[one].p,
                },
            }
            for one, tests in pair.differences.items()
        ],
    }


def _evolution(comparison: Comparison, one: RowSet) -> dict[str, Any]:
    names = [run.name for run in comparison.runs]
    values = evolution_values(comparison, one)
    best = {
        score: [names[place] for place in sorted(best_places([run[score] for run in values], score))]
        for score, _ in EVOLUTION
    }
    return {"group": one.name, "runs": dict(zip(names, values, strict=True)), "best": best}
