"""Stage-2 confidences: the stated rule, the label that most samples name, and each of the methods."""

from decimal import Decimal

import pytest

from data.vec_cot import confidence, filters
from data.vec_cot.rows import Row
from emocaliber.records import Unusable
from emocaliber.response import SECTIONS, render

LABELS = ("awe", "fear", "sadness")
REASONING = {name: f"A {name} of four words." for name in SECTIONS}
LIMITS = filters.Limits(
    blind=False,
    min_words=3,
    max_words=8,
    max_characters=60,
    leak_patterns=filters.read_leak_patterns(None),
)
ROW = Row("a.jsonl:1", "r", "T", "awe", LABELS, "a.jpg", stage="stage2")


def test_more_agreement_gives_more_confidence_within_the_bounds() -> None:
    values = [confidence.target_confidence(agreeing, 16) for agreeing in range(17)]
    assert values == sorted(set(values))
    # By hand: 0.5 + 0.5 * 0.5 / 17 = 0.5147, 0.5 + 0.5 * 8.5 / 17 = 0.75, 0.5 + 0.5 * 16.5 / 17 = 0.9853.
    assert [str(values[agreeing]) for agreeing in (0, 8, 16)] == ["0.51", "0.75", "0.99"]


def test_of_labels_named_equally_often_the_first_named_counts() -> None:
    sure, unsure = "<answer>awe</answer><confidence>0.9</confidence>", "<answer>fear</answer>"
    for texts, label in (([unsure, sure], "fear"), ([sure, unsure], "awe"), (["no", sure, unsure], "awe")):
        voted = confidence.most_named(texts, LABELS)
        assert (voted.label, voted.n, voted.is_tie) == (label, 1, True)
    assert confidence.most_named(["nothing", ""], LABELS).label is None


def stage2(
    method: str, samples: dict[str, list[str]] | None = None, stated: str | None = None
) -> filters.Chain:
    chain = filters.Chain(REASONING, "awe", None if stated is None else Decimal(stated))
    return confidence.with_confidence(
        method, ROW, chain, constant=Decimal("0.8"), samples=samples or {}, limits=LIMITS
    )


def test_constant_and_stated_confidence() -> None:
    assert stage2("constant", stated="0.3").confidence == Decimal("0.8")
    assert stage2("teacher", stated="0.3").confidence == Decimal("0.3")
    with pytest.raises(Unusable) as caught:
        stage2("teacher")
    assert caught.value.reason == "no_confidence"


def test_agreement_follows_the_rule_of_the_confidence_targets() -> None:
    """By hand, k = 4: 0.5 + 0.5 * (m + 0.5) / 5 is 0.85 for m = 3."""
    fear = {name: f"Something dark as {name}." for name in SECTIONS}
    yes, no = render(REASONING, "awe"), render(fear, "fear")
    same = stage2("agreement", {"r": [yes, yes, no, yes]})
    assert (same.label, same.confidence, same.reasoning) == ("awe", Decimal("0.85"), REASONING)
    # Most name another label: the row concludes with that, in the words of the first sound sample of it.
    other = stage2("agreement", {"r": ["<answer>fear</answer>", no, yes, no]})
    assert (other.label, other.confidence, other.reasoning) == ("fear", Decimal("0.85"), fear)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ({}, "not_sampled"),
        ({"r": ["nothing", ""]}, "no_sampled_label"),
        ({"r": ["<answer>fear</answer>"] * 3}, "no_sampled_chain"),
    ],
)
def test_rows_that_samples_do_not_serve(samples: dict[str, list[str]], expected: str) -> None:
    with pytest.raises(Unusable) as caught:
        stage2("agreement", samples)
    assert caught.value.reason == expected
