"""The stages' scores over several seeds, their paired differences, and what follows for each claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emocaliber.jsonl import RecordError, read_jsonl
from emocaliber.metrics.intervals import Interval, Resampled, difference, interval
from emocaliber.report.comparison import MismatchError
from emocaliber.reward_log import MOST_OF_ONE_VALUE
from train.stages.scores import (
    STAGE1,
    STAGE2,
    STAGE3,
    Key,
    Scores,
    over_seeds,
    read_run,
    score_runs,
    with_posthoc,
)

YES, NO, WITHIN = "yes", "no", "not told apart"
FALLS, HOLDS, AT_LEAST, VARIES = "falls", "holds", "at least", "varies"


class Claim(NamedTuple):
    """What stage 3 is said to do to a score of stage 2.

    `falls`: yes where the interval of the difference lies below 0, no where it lies above. `holds`: no where
    it lies below 0, else yes. `at least`: yes where the score itself is at least stage 2's, no where the
    interval of the difference lies below 0. `varies`: yes where the interval of the score itself, a
    correlation, lies above 0 and no value makes up more than 80 % of the confidences.
    """

    text: str
    score: str
    kind: str


CLAIMS = (
    Claim("ECE lower", "ece", FALLS),
    Claim("Brier lower", "brier", FALLS),
    Claim("expected Brier lower", "expected_brier", FALLS),
    Claim("no loss of accuracy", "acc", HOLDS),
    Claim("AUROC within tasks at least as high", "auroc", AT_LEAST),
    Claim("nearer to the true posterior, mean square", "rms_distance", FALLS),
    Claim("nearer to the true posterior, mean difference", "distance", FALLS),
    Claim("confidence varies with the image", "correlation", VARIES),
    Claim("scene facts as right as before", "facts", HOLDS),
)


def compare(files: Mapping[Key, Path], scenes: Path | None, n_draws: int, seed: int) -> dict[str, Any]:
    """Everything that is written, as JSON.

    Args:
        files: predictions of each (training seed, run).
        scenes: of the test rows; None leaves the scene facts out.
        n_draws: bootstrap draws over images.
        seed: of the draws.
    Raises:
        RecordError: a file is not as it has to be, or the runs do not hold the same rows.
    """
    known = None if scenes is None else {row.get("id"): row.get("scene") for _, row in read_jsonl(scenes)}
    runs, fell_back = with_posthoc({key: read_run(file, key[1], known) for key, file in files.items()})
    try:
        scores, n_images = score_runs(runs, n_draws, seed)
    except MismatchError as error:
        raise RecordError(str(error)) from None
    return {
        "n_rows": len(next(iter(runs.values())).rows),
        "n_images": n_images,
        "n_draws": n_draws,
        "seed": seed,
        "seeds": list(dict.fromkeys(one for one, _ in files)),
        "files": {"/".join(key): str(file) for key, file in files.items()},
        "fell_back": fell_back,
    } | summarise(scores, seed)


def summarise(scores: Scores, seed: int) -> dict[str, Any]:
    """Everything that the tables and the figure show.

    Args:
        scores: of each (training seed, run) and group, as `score_runs` gives them.
        seed: of the draws of training seeds.
    Returns:
        `runs`: by name, its `seeds` and, per group and score, `value`, `interval` and `by_seed`;
        `differences`: each run less stage 2 on the seeds that both have; `against_main`: the first stage-3
        run less every other and less every post-hoc map; `verdicts`: one a claim, group and stage-3 run.
        Fractions; JSON can hold all of it.
    """
    names = list(dict.fromkeys(name for _, name in scores))
    seeds: dict[str, list[str]] = {name: [one for one, other in scores if other == name] for name in names}
    groups = list(next(iter(scores.values())))
    runs: dict[str, Any] = {
        name: {
            "seeds": seeds[name],
            "groups": {
                group: _values([scores[one, name][group] for one in seeds[name]], seeds[name], seed)
                for group in groups
            },
        }
        for name in names
    }
    differences = {
        name: _difference(scores, STAGE2, name, seeds, groups, seed)
        for name in names
        if name not in (STAGE1, STAGE2) and STAGE2 in names
    }
    of_stage3 = [name for name in names if name.startswith(STAGE3)]
    others = [name for name in names if name.startswith((f"{STAGE2} ", STAGE3)) and name not in of_stage3[:1]]
    return {
        "runs": runs,
        "differences": differences,
        "against_main": {
            name: _difference(scores, name, main, seeds, groups, seed)
            for main in of_stage3[:1]
            for name in others
        },
        "verdicts": [
            verdict(claim, name, group, runs[name]["groups"][group], differences[name]["groups"][group])
            for name in of_stage3
            if name in differences
            for group in groups
            for claim in CLAIMS
        ],
    }


def _values(parts: Sequence[Resampled], seeds: Iterable[str], seed: int) -> dict[str, Any]:
    together = over_seeds(parts, seed)
    return {
        score: {
            "value": together.value(score),
            "interval": together.interval(score),
            "by_seed": {one: part.value(score) for one, part in zip(seeds, parts, strict=True)},
        }
        for score in together.point
    }


def _difference(
    scores: Scores,
    first: str,
    other: str,
    seeds: Mapping[str, Sequence[str]],
    groups: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The other less the first, on the seeds that both have."""
    common = [one for one in seeds[first] if one in seeds[other]]
    found: dict[str, Any] = {"seeds": common, "groups": {group: {} for group in groups}}
    for group in groups if common else ():
        before, after = (
            over_seeds([scores[one, name][group] for one in common], seed) for name in (first, other)
        )
        for score in before.point:
            value, draws = difference(before, after, score)
            found["groups"][group][score] = {"value": value, "interval": interval(value, draws)}
    return found


def verdict(
    claim: Claim,
    name: str,
    group: str,
    values: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Whether a claim holds for a run in a group: `answer` is yes, no, not told apart, or None unmeasured."""
    shown = (values if claim.kind == VARIES else differences).get(claim.score, {})
    value, ends = shown.get("value"), shown.get("interval")
    answer = None if value is None or ends is None else _answer(claim.kind, value, ends)
    commonest = (values.get("commonest") or {}).get("value")
    if answer == YES and claim.kind == VARIES and (commonest is None or commonest > MOST_OF_ONE_VALUE):
        answer = NO
    return {
        "run": name,
        "group": group,
        "claim": claim.text,
        "score": claim.score,
        "value": value,
        "interval": ends,
        "answer": answer,
    }


def _answer(kind: str, value: float, ends: Interval) -> str:
    low, high = ends
    if kind == VARIES:
        return YES if low > 0 else NO
    if kind == FALLS:
        return YES if high < 0 else NO if low > 0 else WITHIN
    if high < 0:
        return NO
    return YES if kind == HOLDS or value >= 0 else WITHIN
