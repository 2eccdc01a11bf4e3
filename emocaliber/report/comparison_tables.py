"""A comparison of runs as text, Markdown and LaTeX: the scores of each run, then the differences."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from emocaliber.report.comparison import (
    COMPARED,
    HIGHER_IS_BETTER,
    SIGNIFICANT,
    Comparison,
    Pair,
    draws_needed,
)
from emocaliber.report.tables import (
    Cell,
    Line,
    Table,
    TaskSet,
    latex_table,
    markdown_table,
    markdown_text,
    of_kind,
    percent,
    printable,
    text_table,
)

SCORE_TITLES = {
    "acc": "Accuracy",
    "f1": "Weighted F1",
    "ece": "ECE",
    "smooth_ece": "Smooth ECE",
    "brier": "Brier score",
    "auroc": "ROC AUC",
    "augrc": "AUGRC",
}

_TEXT_WIDTH = 110

EVOLUTION = (
    ("acc_task_mean", "Acc, task mean"),
    ("acc", "Acc, samples"),
    ("ece", "ECE"),
    ("brier", "Brier"),
    ("auroc", "ROC AUC"),
)
"""The columns of the table of runs, per group: all over the rows of the group, but for the first."""


def comparison_text(comparison: Comparison, files: Mapping[str, str]) -> str:
    """Everything as plain text; `files`: the file of predictions of each run, by name."""
    parts = [_wrapped([*_notes(comparison, files), "*: best of its column"])]
    parts += [text_table(table) for table in _evolution_by_group(comparison)]
    parts += [_wrapped(_method(comparison))]
    parts += [text_table(table) for table in _difference_tables(comparison)]
    return "\n\n".join(parts) + "\n"


def comparison_markdown(comparison: Comparison, files: Mapping[str, str]) -> str:
    """Everything as GitHub's Markdown."""
    parts = ["## Runs compared", _markdown_list(_notes(comparison, files)), "Bold: best of its column."]
    parts += [markdown_table(_evolution(comparison))]
    parts += ["## Differences", _markdown_list(_method(comparison))]
    parts += [markdown_table(table) for table in _difference_tables(comparison)]
    return "\n\n".join(parts) + "\n"


def comparison_latex(comparison: Comparison, files: Mapping[str, str]) -> str:
    """Tables to put into a paper that uses booktabs and graphicx; what they are is told in comments."""
    notes = [
        r"Needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}.",
        *_notes(comparison, files),
        *_method(comparison),
    ]
    parts = ["\n".join(f"% {printable(note)}" for note in notes), latex_table(_evolution(comparison))]
    parts += [latex_table(table) for table in _difference_tables(comparison)]
    return "\n\n".join(parts) + "\n"


def evolution_values(comparison: Comparison, one: TaskSet) -> list[dict[str, float | None]]:
    """The columns of `EVOLUTION` for a group or Overall, a dictionary a run."""
    return [
        {"acc_task_mean": mean["acc"], **{score: values[score] for score, _ in EVOLUTION[1:]}}
        for mean, values in zip(comparison.task_means[one], comparison.values[one], strict=True)
    ]


def best_places(values: Sequence[float | None], score: str) -> set[int]:
    """Where the best value stands, all those that are printed alike; nowhere if no other is worse."""
    shown = {place: round(100 * value, 2) for place, value in enumerate(values) if value is not None}
    higher = score.removesuffix("_task_mean") in HIGHER_IS_BETTER
    if len(set(shown.values())) < 2:
        return set()
    best = (max if higher else min)(shown.values())
    return {place for place, value in shown.items() if value == best}


def _notes(comparison: Comparison, files: Mapping[str, str]) -> list[str]:
    runs = [
        f"{run.name}: {files[run.name]}, {comparison.n_rows} rows = {run.answered} answered + "
        f"{run.unparsed} unparsed + {run.failed} failed; {run.n_with_confidence} state a confidence"
        for run in comparison.runs
    ]
    return [
        *runs,
        f"The same {comparison.n_rows} rows of {comparison.n_images} images in every run; scores in percent",
        "Acc, F1 and AUGRC are over all rows, the others over those that state a confidence in the run; of a "
        "group over its samples, but for the task mean, the plain mean over its tasks",
    ]


def _method(comparison: Comparison) -> list[str]:
    first = comparison.runs[0].name
    lines = [f"Differences: a run minus {first}, in percentage points, paired by row id"]
    if not comparison.n_draws:
        return [*lines, "No intervals and p-values: 0 draws were asked for"]
    lines += [
        f"95 % intervals: percentiles of the paired differences under a bootstrap over {comparison.n_images} "
        f"images ({comparison.n_draws} draws, seed {comparison.seed}), rows of one image drawn together; "
        "for ECE and smooth ECE, whose noise does not cancel, reflected at the difference",
        f"p: two-sided, from the same draws, not below {2 / (1 + comparison.n_draws):.2g}",
        "p, Holm: corrected over all tests of that run against the first: every score of every task, group "
        "and Overall that is defined in both runs; the same rows count once",
        "McNemar: exact, on the rows that only one of the two has right; takes rows as independent, even "
        "those that share an image, and is not corrected",
        *(
            f"{pair.run.name} minus {first}: {pair.n_significant} of {pair.n_tests} tests are below "
            f"{SIGNIFICANT} after Holm's correction (marked)"
            for pair in comparison.pairs
        ),
    ]
    most = max(pair.n_tests for pair in comparison.pairs)
    if comparison.n_draws < draws_needed(most):
        lines.append(
            f"warning: {comparison.n_draws} draws are too few for {most} tests: none can come out below "
            f"{SIGNIFICANT} after Holm's correction; give --draws {draws_needed(most)} or more"
        )
    return lines


def _evolution(comparison: Comparison) -> Table:
    parts = [_evolution_lines(comparison, one) for one in comparison.pooled]
    lines = [(some[0][0], [cell for _, cells in some for cell in cells]) for some in zip(*parts, strict=True)]
    titles = [title for _ in comparison.pooled for _, title in EVOLUTION]
    return Table(
        title="Scores of each run (%)",
        columns=("Run", *titles),
        blocks=(tuple(lines),),
        spans=tuple((one.name, len(EVOLUTION)) for one in comparison.pooled),
    )


def _evolution_by_group(comparison: Comparison) -> list[Table]:
    """The same in the width of a terminal."""

    def title(one: TaskSet) -> str:
        n_tasks = len(one.tasks)
        return f"{one.name} ({n_tasks} task{'' if n_tasks == 1 else 's'}, {comparison.n_of[one]} rows)"

    return [
        Table(
            title=title(one),
            columns=("Run", *(title for _, title in EVOLUTION)),
            blocks=(tuple(_evolution_lines(comparison, one)),),
        )
        for one in comparison.pooled
    ]


def _evolution_lines(comparison: Comparison, one: TaskSet) -> list[Line]:
    """A line a run, its name first."""
    values = evolution_values(comparison, one)
    best = {score: best_places([run[score] for run in values], score) for score, _ in EVOLUTION}
    return [
        (
            comparison.runs[place].name,
            [Cell(percent(run[score]), place in best[score]) for score, _ in EVOLUTION],
        )
        for place, run in enumerate(values)
    ]


def _difference_tables(comparison: Comparison) -> list[Table]:
    return [
        _difference_table(comparison, place, pair, score)
        for place, pair in enumerate(comparison.pairs, start=1)
        for score in COMPARED
    ]


def _difference_table(comparison: Comparison, place: int, pair: Pair, score: str) -> Table:
    first = comparison.runs[0].name

    def line(one: TaskSet) -> Line:
        values, test = comparison.values[one], pair.differences[one][score]
        cells = [
            Cell(percent(values[0][score])),
            Cell(percent(values[place][score])),
            Cell(_signed(test.difference), test.is_significant),
            Cell("N/A" if test.interval is None else "[{}, {}]".format(*map(_signed, test.interval))),
            Cell(_p(test.p)),
            Cell(_p(test.p_holm)),
        ]
        if score == "acc":
            mcnemar = pair.mcnemar[one]
            n_right = (mcnemar.only_first_right, mcnemar.only_other_right)
            cells += [*(Cell(str(n)) for n in n_right), Cell(_p(mcnemar.p))]
        return one.name, cells

    columns = ["Task/Group", first, pair.run.name, "Difference", "95 % interval", "p", "p, Holm"]
    if score == "acc":
        columns += [f"Only {first} right", f"Only {pair.run.name} right", "p, McNemar"]
    better = "higher" if score in HIGHER_IS_BETTER else "lower"
    lines = {one: line(one) for one in comparison.sets}
    blocks = (of_kind(lines, kind) for kind in ("task", "group", "overall"))
    return Table(
        title=f"{SCORE_TITLES[score]}: {pair.run.name} minus {first} ({better} is better)",
        columns=tuple(columns),
        blocks=tuple(block for block in blocks if block),
    )


def _signed(value: float | None) -> str:
    return "N/A" if value is None else f"{100 * value + 0.0:+.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return "N/A"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(
            printable(line),
            _TEXT_WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )


def _markdown_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


RENDERERS: dict[str, Callable[[Comparison, Mapping[str, str]], str]] = {
    "text": comparison_text,
    "markdown": comparison_markdown,
    "latex": comparison_latex,
}
