"""Checks that EmoCaliber-mini perceives: what its reasoning states against what the scenes hold.

    python train/check_mini.py --predictions infer_results/DIR/predictions.jsonl \\
        --scenes data/VECBench-mini/test_scenes.jsonl

Rewards and answers do not show a reasoning that has gone wrong; this does. Prints the figures of the model
card (in-distribution tasks) and exits with 1 if one of them misses its aim.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emocaliber.command_line import CommandParser
from emocaliber.jsonl import RecordError, read_jsonl
from emocaliber.records import read_records
from emocaliber.scoring import ScoredRow, score
from train.stages.scores import facts_right, mean

# What the committed checkpoint has to reach, decoded greedily.
LEAST_SHARE_OF_BAYES = 0.90
LEAST_FACTS_RIGHT = 0.95
LEAST_PARSE_RATE = 0.99
LEAST_AUROC = 0.60


def main() -> None:
    """Measure, print, and exit with 1 where an aim is missed."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="rows with `response`, by inference")
    parser.add_argument("--scenes", type=Path, required=True, help="test_scenes.jsonl of VECBench-mini")
    args = parser.parse_args()

    try:
        scenes = {row.get("id"): row.get("scene") for _, row in read_jsonl(args.scenes)}
        records = read_records(args.predictions)
        unknown = [record["id"] for record in records if not isinstance(scenes.get(record["id"]), dict)]
        if unknown:
            raise RecordError(
                f"{args.scenes}: no scene of row {unknown[0]!r}; give the scenes of the same build"
            )
        measured = measure(records, scenes)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(json.dumps(measured, indent=1))
    missed = missed_aims(measured)
    print("\n".join(missed) if missed else "every aim is met")
    raise SystemExit(1 if missed else 0)


def measure(records: Sequence[Mapping[str, Any]], scenes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Share of the Bayes accuracy, facts right, parse rate and AUROC over the in-distribution rows.

    Args:
        records: rows with `response` and `posterior`; other groups' rows are left out.
        scenes: scene of each row id, as `Scene.to_json` gives it.

    Returns:
        Shares in [0, 1]; `facts` per attribute, `auroc` per group.
    """
    from emocaliber.metrics.calibration import auroc
    from emocaliber.metrics.counts import level_counts, number

    scored = [(score(dict(record)), record) for record in records]
    inside = [(row, record) for row, record in scored if row.group in ("ID VSA", "ID VER")]
    rows = [row for row, _ in inside]
    facts = facts_right([(record, scenes[row.id]) for row, record in inside])
    confident = [row for row in rows if row.confidence is not None]
    return {
        "rows": len(rows),
        "parse_rate": mean([row.status == "answered" for row in rows]),
        "share_of_bayes": {
            task: share_of_bayes([row for row in rows if row.task == task])
            for task in dict.fromkeys(row.task for row in rows)
        }
        | {"all": share_of_bayes(rows)},
        "facts": facts | {"all": mean(list(facts.values()))},
        "auroc": {
            group: number(
                auroc(
                    level_counts(
                        [row.confidence for row in confident if row.group == group],
                        [row.correct for row in confident if row.group == group],
                    )
                )
            )
            for group in ("ID VSA", "ID VER")
        },
    }


def share_of_bayes(rows: Sequence[ScoredRow]) -> float:
    """Accuracy over the accuracy of always naming the most probable label."""
    bayes = mean([max((row.posterior or {"": 1.0}).values()) for row in rows])
    return mean([row.correct for row in rows]) / bayes if bayes else 0.0


def missed_aims(measured: Mapping[str, Any]) -> list[str]:
    """One line per aim that is missed."""
    aims = [
        ("accuracy over Bayes accuracy", measured["share_of_bayes"]["all"], LEAST_SHARE_OF_BAYES),
        ("scene facts right", measured["facts"]["all"], LEAST_FACTS_RIGHT),
        ("parse rate", measured["parse_rate"], LEAST_PARSE_RATE),
    ]
    aims += [(f"AUROC, {group}", value or 0.0, LEAST_AUROC) for group, value in measured["auroc"].items()]
    return [f"missed: {name} is {value:.3f}, aim {aim}" for name, value, aim in aims if value < aim]


if __name__ == "__main__":
    main()
