"""The stages' results as Markdown, as lines of text and as a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emocaliber.report.figure_style import LINES, clean, encoded, figure_settings, legend_below, new_figure
from train.stages.markdown import table
from train.stages.results import CLAIMS, VARIES
from train.stages.scores import BOTH_LOW, OPTIMUM, STAGE1, STAGE2, STAGE3

if TYPE_CHECKING:  # matplotlib takes a while, and the tables do without
    from matplotlib.axes import Axes


# Column titles by score; all figures are in percent.
MAIN = {
    "acc": "Acc",
    "ece": "ECE",
    "brier": "Brier",
    "auroc": "AUROC in tasks",
    "distance": "distance to p",
}
CONFIDENCES = {
    "expected_brier": "expected Brier",
    "rms_distance": "RMS distance to p",
    "smooth_ece": "smooth ECE",
    "auroc_pooled": "AUROC pooled",
    "std": "std of c",
    "commonest": "commonest c",
    "correlation": "r(c, p) in tasks",
    "deliberate_errors": "deliberate errors",
    "facts": "scene facts",
    "parse_rate": "parsed",
}
UNSIGNED = {claim.score for claim in CLAIMS if claim.kind == VARIES}
NOTHING = "–"
NUMBERS = "---:"


def run_title(name: str) -> str:
    """What a run is called in the tables."""
    if name.startswith(STAGE3):
        return f"stage 3, `{name.removeprefix(STAGE3)}`"
    return {STAGE1: "stage 1", STAGE2: "stage 2", OPTIMUM: "the best possible"}.get(
        name, name.replace(STAGE2, "stage 2").replace("platt", "Platt")
    )


def figure_of(found: Mapping[str, Any] | None, *, signed: bool = False, with_interval: bool = True) -> str:
    """A score in percent with its interval, "12.3 [11.0, 13.5]"; a dash where it is not defined."""
    if not found or found["value"] is None:
        return NOTHING
    sign = "+" if signed else ""
    value = f"{100 * found['value']:{sign}.1f}"
    if with_interval and found["interval"] is not None:
        low, high = found["interval"]
        value += f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
    # A difference that rounds to nothing has no sign.
    return value.replace("-0.0", "0.0").replace("+0.0", "0.0").replace("-", "−")


def markdown(results: Mapping[str, Any]) -> str:
    """The whole section under its heading."""
    parts = [_preface(results)]
    for group in _groups(results):
        parts += [f"### {group}", ""]
        for scores, with_interval in ((MAIN, True), (CONFIDENCES, False)):
            rows = [
                [
                    run_title(name),
                    NOTHING if name == OPTIMUM else str(len(run["seeds"])),
                    *(
                        figure_of(run["groups"][group].get(score), with_interval=with_interval)
                        for score in scores
                    ),
                ]
                for name, run in results["runs"].items()
            ]
            parts += [table(["model", "seeds", *scores.values()], rows, NUMBERS)]
    parts += _verdict_tables(results)
    parts += _against_main(results)
    return "\n".join(parts).rstrip("\n") + "\n"


def _groups(results: Mapping[str, Any]) -> list[str]:
    return list(next(iter(results["runs"].values()))["groups"])


def _preface(results: Mapping[str, Any]) -> str:
    seeds = results["seeds"]
    drawn = f"{results['n_draws']} bootstrap draws of images"
    if len(seeds) > 1:
        drawn += ", the same in each draw for every model, and Student's t for how so few seeds differ"
    told = f"""
        Written by `train/compare_stages.py`: {results["n_rows"]} test rows on {results["n_images"]} images,
        training seeds {", ".join(seeds)}. A figure is the mean over the seeds of its row, in percent; its 95
        % interval is of that mean, from {drawn}. c is the stated confidence, p the true probability of
        the answer given the image. *Distance to p*: mean |c − p|; *RMS distance*: the root of the mean (c −
        p)². *Expected Brier*: mean p (1 − c)² + (1 − p) c², the Brier score without the chance of which label
        was drawn for each image, so that differences of models show in fewer rows. *r(c, p) in tasks*: the
        mean of the tasks' correlations, 0 where c is constant. *Commonest c*: the share of the confidences
        with the commonest value. *Deliberate errors*: rows that name another label than the most probable
        one, with p < {BOTH_LOW}, and state c ≤ {BOTH_LOW}. *Scene facts*: the share of the scene's attributes
        that the reasoning states right. *The best possible* names the most probable label and states its
        probability; what ECE it has is chance. Temperature, Platt and isotonic are maps of stage 2's
        confidences, fitted on its answers to the training prompts of stage 3, which it has not seen; *per
        task* where a task has such rows, else pooled ({", ".join(results["fell_back"]) or "no task"})."""
    return textwrap.fill(" ".join(told.split()), 118, break_long_words=False, break_on_hyphens=False) + "\n"


def _verdict_tables(results: Mapping[str, Any]) -> list[str]:
    groups = _groups(results)
    found = {(one["run"], one["claim"], one["group"]): one for one in results["verdicts"]}
    parts = []
    for name in dict.fromkeys(one["run"] for one in results["verdicts"]):
        rows = []
        for claim in CLAIMS:
            ones = [found[name, claim.text, group] for group in groups]
            signed = claim.score not in UNSIGNED
            rows.append(
                [
                    claim.text,
                    *(f"{one['answer'] or NOTHING}: {figure_of(one, signed=signed)}" for one in ones),
                ]
            )
        parts += [f"### {run_title(name)[0].upper()}{run_title(name)[1:]} against stage 2", ""]
        parts += ["Stage 3 less stage 2 on the same rows (the correlation: of stage 3 itself).", ""]
        parts += [table(["claim", *groups], rows, NUMBERS)]
    return parts


def _against_main(results: Mapping[str, Any]) -> list[str]:
    against = {name: one for name, one in results["against_main"].items() if one["seeds"]}
    if not against:
        return []
    main = next(name for name in results["runs"] if name.startswith(STAGE3))
    rows = [
        [
            f"{run_title(name)}; {group}",
            str(len(one["seeds"])),
            *(figure_of(one["groups"][group].get(score), signed=True) for score in MAIN),
        ]
        for name, one in against.items()
        for group in _groups(results)
    ]
    title = run_title(main)
    lines = [f"### {title[0].upper()}{title[1:]} less the alternatives", ""]
    lines += [
        "Below 0, ECE, Brier and distance are better than the alternative's; above 0, Acc and AUROC are.",
        "",
    ]
    return [*lines, table(["alternative; group", "seeds", *MAIN.values()], rows, NUMBERS)]


def verdict_lines(results: Mapping[str, Any]) -> list[str]:
    """One line a verdict: "stage 3, `brier`, ID VSA: ECE lower: −3.1 [−4.0, −2.2]: yes"."""
    lines = []
    for one in results["verdicts"]:
        shown = figure_of(one, signed=one["score"] not in UNSIGNED)
        where = f"{run_title(one['run'])}, {one['group']}"
        lines.append(f"{where}: {one['claim']}: {shown}: {one['answer'] or NOTHING}")
    return lines


PANELS = {
    "acc": "Accuracy (%)",
    "ece": "ECE (%)",
    "brier": "Brier score (%)",
    "auroc": "AUROC within tasks (%)",
    "distance": "Distance to the true posterior (%)",
    "facts": "Scene facts right in the reasoning (%)",
}


def png(results: Mapping[str, Any]) -> bytes:
    """Draw the figure; returns the content of a PNG file."""
    names = [name for name in results["runs"] if name != OPTIMUM]
    with figure_settings():
        figure = new_figure(13, 8, column_gap=0.05)
        panels = figure.subplots(2, 3, sharex=True)
        for axes, (score, title) in zip(panels.flat, PANELS.items(), strict=True):
            _draw(axes, results["runs"], names, score)
            axes.set_title(title, fontsize=10)
            clean(axes)
        for axes in panels[-1]:
            titles = [run_title(name).replace("`", "") for name in names]
            axes.set_xticks(range(len(names)), titles, rotation=60, ha="right", fontsize=8)
        legend_below(figure, panels[0, 0].get_legend_handles_labels(), 3)
        return encoded(figure)[".png"]


def _draw(axes: Axes, runs: Mapping[str, Any], names: list[str], score: str) -> None:
    """One panel, with 95 % intervals; the groups side by side at each place."""
    for shift, group in zip((-0.15, 0.0, 0.15), LINES, strict=False):
        colour, marker, _ = LINES[group]
        found = [runs[name]["groups"].get(group, {}).get(score) for name in names]
        placed = [(place + shift, one) for place, one in enumerate(found) if one and one["value"] is not None]
        if not placed:
            continue
        values = 100 * np.array([one["value"] for _, one in placed])
        low, high = 100 * np.array([one["interval"] or 2 * (one["value"],) for _, one in placed]).T
        # A basic interval can leave its score outside by rounding.
        bars = np.maximum(0, [values - low, high - values])
        style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none", "label": group}
        axes.errorbar([place for place, _ in placed], values, yerr=bars, capsize=2, markersize=5, **style)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
