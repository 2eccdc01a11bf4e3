"""A stated distribution is read as written, put right where it is nearly one, else a reason is given."""

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.response import parse, parse_distribution
from emocaliber.stated import read_distribution

LABELS = ("awe", "quiet joy", "it's complicated", "sadness")
REASONS = {
    *("missing", "not_a_number", "out_of_range", "unknown_label", "duplicate_label", "sum_not_one"),
}
FLAGS = {"partial", "renormalised", "rescaled", "synonym", "truncated"}


def read(text, candidates=LABELS, **how):
    """Probabilities as texts, or the reason; and the flags."""
    found = read_distribution(text, candidates, **how)
    shown = found.reason
    if found.probabilities is not None:
        shown = " ".join(str(one.normalize()) for one in found.probabilities.values())
    return shown, " ".join(sorted(found.flags))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("awe: 0.62, quiet joy: 0.21, it's complicated: 0.10, sadness: 0.07", ("0.62 0.21 0.1 0.07", "")),
        # In the order of the candidates, whatever the order, the case and the markup of the text.
        (
            '\n{"Sadness": 0.1,\n "QUIET-JOY": .2;\n "its complicated"= {0.3}, \n- **awe**: 0.4.\n}\n',
            ("unknown_label", ""),
        ),
        (
            '\n{"Sadness": 0.1,\n "QUIET-JOY": .2;\n "it’s complicated"= {0.3}, \n- **awe**: 0.4.\n}\n',
            ("0.4 0.2 0.3 0.1", ""),
        ),
        ("sad：０．５，awe：0.5", ("0.5 0.5", "partial synonym")),
        # Percentages, with signs or without.
        ("awe: 60%, sadness: 40%", ("0.6 0.4", "partial")),
        ("awe: 60, quiet joy: 30, it's complicated: 9, sadness: 1", ("0.6 0.3 0.09 0.01", "rescaled")),
        ("awe: 60, quiet joy: 30, it's complicated: 9.5, sadness: .5", ("0.6 0.3 0.095 0.005", "rescaled")),
        ("awe: 60, quiet joy: 20", ("0.6 0.2", "partial rescaled")),
        ("awe: 50", ("0.5", "partial rescaled")),
        ("awe: 49.9", ("out_of_range", "partial")),
        ("awe: 60, sadness: 51", ("out_of_range", "partial")),
        ("awe: 1.2, sadness: 0.1", ("out_of_range", "partial")),
        ("awe: 60%, sadness: 40", ("out_of_range", "partial")),
        ("awe: -0.1, sadness: 1", ("out_of_range", "partial")),
        # What is left out has the rest.
        ("awe: 0.6, sadness: 0.2", ("0.6 0.2", "partial")),
        ("awe: 0", ("0", "partial")),
        ("awe: 0.5, sadness: 0.75", ("sum_not_one", "partial")),
        # Sums: 0.9 and 1.1 are put right, beyond is not.
        ("awe: 0.45, quiet joy: 0.45, it's complicated: 0, sadness: 0", ("0.5 0.5 0 0", "renormalised")),
        ("awe: 0.45, quiet joy: 0.44, it's complicated: 0, sadness: 0", ("sum_not_one", "")),
        ("awe: 0.55, sadness: 0.55", ("0.5 0.5", "partial renormalised")),
        ("awe: 0.55, sadness: 0.56", ("sum_not_one", "partial")),
        ("awe: 0, quiet joy: 0, it's complicated: 0, sadness: 0", ("sum_not_one", "")),
        # Labels and numbers that are none.
        ("", ("missing", "")),
        (" , ...", ("missing", "")),
        ("awe: high, sadness: 0.2", ("not_a_number", "")),
        ("awe: 0.8, sadness", ("not_a_number", "")),
        ("awe: 0.8, happiness: 0.2", ("unknown_label", "")),
        ("awe: 0,62, sadness: 0,38", ("unknown_label", "")),
        ("awe and sadness: 1", ("unknown_label", "")),
        ("awe: 0.5, Awe: 0.5", ("duplicate_label", "")),
        ("awe: 0.8 sadness: 0.2", ("unknown_label", "")),
    ],
)
def test_distributions(text, expected):
    assert read(text) == expected


def test_labels_may_hold_commas_and_colons():
    assert read("oh, no: 0.4, to be: or not: 0.6", ("oh, no", "to be: or not")) == ("0.4 0.6", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("awe: 0.6, sadness: 0.2", ("0.6 0.2", "partial truncated")),
        ("awe: 0.6, sadness: 0.", ("0.6", "partial truncated")),
        ("awe: 0.6, sad", ("0.6", "partial truncated")),
        ("awe: 0", ("missing", "truncated")),
        ("awe: many, sadness: 0.2", ("not_a_number", "truncated")),
    ],
)
def test_what_was_cut_off_leaves_out_what_cannot_be_read(text, expected):
    assert read(text, is_closed=False) == expected


def test_sums_are_exact_whatever_the_decimal_context():
    with localcontext(prec=1):
        assert read("awe: 0.45, quiet joy: 0.45, it's complicated: 0.1, sadness: 0")[1] == ""
        found = read_distribution("awe: 33, quiet joy: 33, it's complicated: 33, sadness: 0", LABELS)
    assert str(found.probabilities["awe"]) == "0." + "3" * 28


def _parts(total, cuts):
    """Whole numbers that sum to a total."""
    edges = [0, *sorted(min(cut, total) for cut in cuts), total]
    return [high - low for low, high in pairwise(edges)]


CUTS = st.lists(st.integers(0, 110), min_size=3, max_size=3)
NUMBERS = st.builds(_parts, st.integers(90, 110), CUTS).filter(lambda some: max(some) <= 100)


@given(NUMBERS, st.permutations(LABELS))
def test_what_was_written_comes_back_divided_by_its_sum(hundredths, order):
    written = dict(zip(LABELS, hundredths, strict=True))
    text = ", ".join(f"{label}: {written[label] / 100:.2f}" for label in order)
    found = read_distribution(text, LABELS)
    assert list(found.probabilities) == list(LABELS)
    for label, value in found.probabilities.items():
        assert abs(Fraction(value) - Fraction(written[label], sum(hundredths))) < Fraction(1, 10**27)
    assert found.flags == ({"renormalised"} if sum(hundredths) != 100 else set())


PIECES = st.lists(
    st.sampled_from(
        [*LABELS, ": ", "=", ", ", ";", "\n", "0.5", "1", "50", "100%", "1e999", "-0", "0.", "{", "</", "é"]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@given(PIECES, st.booleans())
def test_total(text, is_closed):
    found = read_distribution(text, LABELS, is_closed=is_closed)
    assert (found.probabilities is None) == (found.reason is not None)
    assert found.reason in {None, *REASONS}
    assert found.flags <= FLAGS
    assert is_closed == ("truncated" not in found.flags)
    if found.probabilities is not None:
        total = sum(map(Fraction, found.probabilities.values()))
        assert all(0 <= one <= 1 for one in found.probabilities.values())
        is_partial = "partial" in found.flags
        assert is_partial == (len(found.probabilities) < len(LABELS))
        assert total <= 1 + Fraction(1, 10**26)
        assert is_partial or total >= 1 - Fraction(1, 10**26)
    whole = f"<answer>awe</answer><distribution>{text}"
    assert parse(whole, LABELS).label is None or "awe" in parse(whole, LABELS).label


@pytest.mark.parametrize("unit", ["awe: 0.1, ", "a,", ":", "a:", "quiet ", "=,", "0", "awe: ", "\u0301"])
@pytest.mark.usefixtures("in_linear_time")
def test_a_megabyte_takes_linear_time(unit):
    text = f"<distribution>{unit * (1_000_000 // len(unit))}</distribution>"
    assert parse_distribution(text, LABELS).probabilities is None


# In a response

THINK = "<think>awe or sadness <distribution>awe: 1</distribution></think>"


def respond(text):
    parsed = parse(text, LABELS)
    confidence = parsed.confidence_reason if parsed.confidence is None else str(parsed.confidence)
    return parsed.label or parsed.label_reason, confidence, " ".join(sorted(parsed.flags))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<answer>awe</answer><distribution>awe: 0.7, sadness: 0.2</distribution>",
            ("awe", "0.7", "from_distribution malformed_reasoning"),
        ),
        (
            "<Distribution>awe: 0.75, sadness: 0.30</Distribution> <answer>sad</answer>",
            (
                "sadness",
                "0.2857142857142857142857142857",
                "from_distribution malformed_reasoning renormalised synonym",
            ),
        ),
        # A confidence goes before, even if it cannot be read.
        (
            "<answer>awe</answer><confidence>0.3</confidence><distribution>awe: 0.7</distribution>",
            ("awe", "0.3", "malformed_reasoning"),
        ),
        (
            "<answer>awe</answer><confidence>?</confidence><distribution>awe: 0.7</distribution>",
            ("awe", "not_a_number", "malformed_reasoning"),
        ),
        # The answer has no probability, or there is no answer.
        (
            "<answer>awe</answer><distribution>sadness: 0.7</distribution>",
            ("awe", "missing", "malformed_reasoning"),
        ),
        ("<distribution>sadness: 0.7</distribution>", ("no_answer", "missing", "malformed_reasoning")),
        # The last one counts, even if it cannot be read.
        (
            "<answer>awe</answer><distribution>awe: 0.7</distribution><distribution>joy: 1</distribution>",
            ("awe", "unknown_label", "malformed_reasoning"),
        ),
        # The distribution is neither the answer nor its end.
        (
            "</think>awe<distribution>sadness: 0.7, awe: 0.3",
            ("awe", "0.3", "fallback from_distribution malformed_reasoning truncated"),
        ),
        (
            "<answer>awe<distribution>awe: 0.3</distribution>",
            ("awe", "0.3", "from_distribution malformed_reasoning"),
        ),
    ],
)
def test_the_confidence_is_the_probability_of_the_answer(text, expected):
    assert respond(THINK + text) == expected


def test_distributions_inside_the_reasoning_do_not_count():
    assert parse_distribution(THINK, LABELS).reason == "missing"
    assert parse_distribution(f"{THINK}<distribution>awe: 0.5</distribution>", LABELS).probabilities == {
        "awe": Decimal("0.5")
    }


@pytest.mark.parametrize("text", [None, 3, b"<distribution>awe: 1</distribution>"])
def test_what_is_no_text_says_nothing(text):
    assert parse_distribution(text, LABELS).reason == "missing"
