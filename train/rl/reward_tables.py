"""The tables and the figure of what every reward pays for, from `train/rl/incentives.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emocaliber.report.figure_style import (
    BLUE,
    GREY,
    VERMILION,
    clean,
    encoded,
    figure_settings,
    legend_below,
    new_figure,
)
from emocaliber.reward import REWARDS, Reward
from train.rl.incentives import TWO_DECIMALS, Incentives, incentives, payoffs
from train.stages.markdown import table

if TYPE_CHECKING:  # matplotlib takes a while, and the tables do without
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

PROPERTIES_HEADER = (
    *("reward", "stating c = p is optimal", "a likelier answer always pays more"),
    *("a deliberate error pays more than an honest answer", "well-formed always beats malformed", "payoffs"),
)
WEBEMO_25_ACCURACY = 0.28
CHANCES = (0.1, WEBEMO_25_ACCURACY, 0.5, 0.7, 0.85, 0.95)


def section() -> str:
    """The Markdown of all rewards: what they pay, what holds for each, and what an answer is worth."""
    found = {name: incentives(reward) for name, reward in REWARDS.items()}
    stated = {name: incentives(reward, TWO_DECIMALS) for name, reward in REWARDS.items()}
    formulas = [
        (f"`{name}`", reward.formula, f"{reward.malformed:g}", reward.source)
        for name, reward in REWARDS.items()
    ]
    parts = [
        table(("reward", "a well-formed response pays", "a malformed one", "source"), formulas),
        "i is 1 for a right answer, else 0; c is the stated confidence; p is the chance that the answer is "
        "right. In\nbrackets: if only 0.01, 0.02 … 0.99 can be stated.\n",
        table(PROPERTIES_HEADER, [property_row(name, found[name], stated[name]) for name in REWARDS]),
        "What an answer pays on average with the confidence at its best: one that is meant to be wrong, and "
        "one that is\nright with chance p (bold: less than the error).\n",
        table(
            ("reward", "deliberate error", *(f"p = {chance:g}" for chance in CHANCES)),
            [value_row(reward, found[name]) for name, reward in REWARDS.items()],
        ),
        published_in_words(found["emocaliber"]),
    ]
    return "\n".join(parts)


def published_in_words(found: Incentives) -> str:
    """What is known about the published reward."""
    guess = payoffs(REWARDS["emocaliber"]).best(WEBEMO_25_ACCURACY)
    return (
        f"The published reward pays for being wrong on purpose: at p = {WEBEMO_25_ACCURACY:g}, the accuracy "
        f"published for WebEmo-25, an honest\nanswer earns {guess:.2f} and a deliberate error with c near 0 "
        f"earns {found.deliberate_error:.2f}. Only above p = {found.error_pays_below:.3f} does honesty earn "
        "more.\n"
    )


def property_row(name: str, found: Incentives, stated: Incentives) -> tuple[str, ...]:
    """What holds for one reward, over all confidences and over those with two decimals."""
    below, above = found.error_pays_below, found.malformed_pays_above
    is_rising = "better_pays_more" in found.properties
    return (
        f"`{name}`",
        f"{'yes' if 'honest' in found.properties else '**no**'}, off by {found.misstatement:.3f} at most",
        "yes" if is_rising else "**no**",
        f"**p < {below:.3f}** (p < {stated.error_pays_below:.3f})" if below else "never",
        "yes" if above is None else f"**no**, not errors at c > {above:.3f}",
        f"{bound(found.least)} to {bound(found.greatest)} ({stated.least:.2f} to {stated.greatest:.2f})",
    )


def bound(payoff: float) -> str:
    """A bound of the payoffs; bold if there is none."""
    return f"{payoff:.2f}" if abs(payoff) < float("inf") else f"**{'-' if payoff < 0 else ''}∞**"


def value_row(reward: Reward, found: Incentives) -> tuple[str, ...]:
    """What a deliberate error and honest answers pay."""
    tabulated, error = payoffs(reward), found.deliberate_error
    best = [tabulated.best(chance) for chance in CHANCES]
    paid = (f"**{value:.2f}**" if value < error else f"{value:.2f}" for value in best)
    return f"`{reward.name}`", f"{error:.2f}", *paid


def draw() -> bytes:
    """The figure as PNG, a column a reward."""
    with figure_settings():
        figure = new_figure(2.5 * len(REWARDS), 5.4, column_gap=0.04)
        columns = figure.subplots(2, len(REWARDS), sharex=True, squeeze=False).T
        for (above, below), reward in zip(columns, REWARDS.values(), strict=True):
            draw_reward(above, below, reward)
        columns[0][0].set_ylabel("Expected payoff")
        columns[0][1].set_ylabel("Confidence that pays best")
        entries: dict[str, Artist] = {}
        for axes in columns.flat:
            handles, labels = axes.get_legend_handles_labels()
            entries |= dict(zip(labels, handles, strict=True))
        legend_below(figure, (list(entries.values()), list(entries)), n_columns=len(entries))
        return encoded(figure)[".png"]


def draw_reward(above: Axes, below: Axes, reward: Reward) -> None:
    """Above: what an honest answer and a deliberate error pay on average. Below: the best confidence."""
    tabulated = payoffs(reward)
    chances = [step / 200 for step in range(201)]
    best = [tabulated.best(chance) for chance in chances]
    error, threshold = tabulated.best(0), incentives(reward).error_pays_below
    above.plot(chances, best, color=BLUE, label="honest answer")
    above.axhline(error, color=VERMILION, linestyle="--", label="deliberate error")
    loses = [chance <= threshold for chance in chances]
    above.fill_between(
        chances, best, error, where=loses, color=VERMILION, alpha=0.2, label="the error pays more"
    )
    above.set_title(reward.name, fontsize=11)
    if threshold:
        above.axvline(threshold, color=GREY, linewidth=0.8, linestyle=":")
        above.text(threshold - 0.02, max(best), f"p = {threshold:.2f}", ha="right", fontsize=8, color=GREY)
    below.plot((0, 1), (0, 1), color=GREY, linewidth=4, alpha=0.4, label="c = p")
    confidences = [tabulated.best_confidence(chance) for chance in chances]
    below.plot(chances, confidences, color=BLUE, linestyle="-.", label="confidence that pays best")
    below.set_xlabel("p, the chance of being right")
    for axes in (above, below):
        clean(axes)
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1))
