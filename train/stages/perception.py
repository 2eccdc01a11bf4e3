"""How well a model of the mini world perceives: what its reasoning states against what the scenes hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emocaliber.metrics.calibration import auroc
from emocaliber.metrics.counts import level_counts, number
from emocaliber.mini.chains import FACT_SECTIONS, read_facts, true_facts
from emocaliber.mini.scene import Scene
from emocaliber.response import parse
from emocaliber.scoring import ScoredRow, score

INSIDE = ("ID VSA", "ID VER")
# What the committed checkpoint has to reach, decoded greedily.
LEAST_SHARE_OF_BAYES = 0.90
LEAST_FACTS_RIGHT = 0.95
LEAST_PARSE_RATE = 0.99
LEAST_AUROC = 0.60


def measure(records: Sequence[Mapping[str, Any]], scenes: Mapping[Any, Any]) -> dict[str, Any]:
    """Share of the Bayes accuracy, facts right, parse rate and AUROC over the in-distribution rows.

    Args:
        records: rows with `response` and `posterior`; other groups' rows are left out.
        scenes: scene of each row id, as `Scene.to_json` gives it.

    Returns:
        Shares in [0, 1]; `facts` per attribute, `auroc` per group.
    """
    scored = [(score(dict(record)), record) for record in records]
    inside = [(row, record) for row, record in scored if row.group in INSIDE]
    rows = [row for row, _ in inside]
    facts = facts_right([(record, scenes[row.id]) for row, record in inside])
    return {
        "rows": len(rows),
        "parse_rate": mean([row.status == "answered" for row in rows]),
        "share_of_bayes": {
            task: share_of_bayes([row for row in rows if row.task == task])
            for task in dict.fromkeys(row.task for row in rows)
        }
        | {"all": share_of_bayes(rows)},
        "facts": facts | {"all": mean(list(facts.values()))},
        "auroc": {group: auroc_of([row for row in rows if row.group == group]) for group in INSIDE},
    }


def auroc_of(rows: Sequence[ScoredRow]) -> float | None:
    """AUROC of the rows with a confidence; None where it is undefined."""
    return number(auroc(level_counts([row.confidence for row in rows], [row.correct for row in rows])))


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


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 for none, so that an empty measurement misses its aim."""
    return sum(values) / len(values) if values else 0.0


def facts_right(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, float]:
    """Share of rows whose reasoning states each attribute as the scene has it; unstated counts as wrong."""
    right: dict[str, list[bool]] = {attribute: [] for attribute in FACT_SECTIONS}
    for record, scene in rows:
        stated = read_facts(parse(record.get("response") or "", record["candidates"]).reasoning)
        for attribute, truth in true_facts(Scene.from_json(scene)).items():
            right[attribute].append(stated[attribute] == truth)
    return {attribute: mean(values) for attribute, values in right.items()}
