"""How often an answer is right: accuracy and class-weighted F1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction


def accuracy(correct: Sequence[bool]) -> float | None:
    """Share of right answers, in [0, 1].

    Args:
        correct: n flags, one a row; a row without an answer is wrong.
    Returns:
        n_right / n, or None where there are no rows.
    """
    n = len(correct)
    return sum(map(bool, correct)) / n if n else None


def weighted_f1(truth: Iterable[str], predicted: Iterable[str | None]) -> float | None:
    """F1 of every true label, averaged with the number of its rows as weight, in [0, 1].

    Equal to scikit-learn's `f1_score(average="weighted", zero_division=0)` where a row without an answer is
    predicted as a label that no row truly has (the published evaluator's `unknown`). None never equals a
    label, not even one that is spelt "unknown". Computed as an exact fraction.

    Args:
        truth: n true labels.
        predicted: n predicted labels, None where a row has no answer.
    Returns:
        The weighted F1, or None where there are no rows.
    Raises:
        ValueError: the two do not have the same length.
    """
    pairs = Counter(zip(truth, predicted, strict=True))
    support: Counter[str] = Counter()
    n_predicted: Counter[str | None] = Counter()
    for (true_label, predicted_label), n in pairs.items():
        support[true_label] += n
        n_predicted[predicted_label] += n
    n_rows = sum(support.values())
    if not n_rows:
        return None
    # support * F1 = support * 2 TP / (support + predicted); a label without a true row has weight 0.
    weighted = sum(
        (Fraction(n * 2 * pairs[label, label], n + n_predicted[label]) for label, n in support.items()),
        Fraction(0),
    )
    return float(weighted / n_rows)
