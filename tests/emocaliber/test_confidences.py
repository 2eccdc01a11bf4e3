"""Each confidence is read from where the row holds it; what cannot be read has a reason."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.confidences import CONFIDENCES, Confidence, is_beyond_stated, read_confidences
from emocaliber.scoring import score

LABELS = ["awe", "quiet joy", "sadness"]


def read(response="<answer>awe</answer><confidence>0.8</confidence>", **fields):
    record = {
        "id": "r",
        "task": "Mine-3",
        "ground_truth": "awe",
        "candidates": LABELS,
        "response": response,
        **fields,
    }
    return read_confidences(record, score(record))


def said(label, value):
    return Confidence(label, Decimal(value))


def none(label, reason):
    return Confidence(label, None, reason)


THIRDS = {"awe": math.log(0.1), "quiet joy": math.log(0.4), "sadness": math.log(0.3)}


def test_a_plain_row_has_the_stated_one():
    assert read() == {"stated": said("awe", "0.8")}
    assert read("awe") == {"stated": none("awe", "missing")}
    assert read("?", candidate_logprobs=None, p_true=None) == {"stated": none(None, "missing")}


def test_every_confidence_and_the_answer_that_it_belongs_to():
    found = read(
        "<answer>awe</answer><confidence>0.8</confidence><distribution>awe: 0.6, sadness: 0.3</distribution>",
        candidate_logprobs=THIRDS,  # 0.1, 0.4, 0.3 of 0.8
        p_true=0.65,
        samples=["<answer>sadness</answer><confidence>0.5</confidence>", "sadness", "quiet joy"],
    )
    assert found == {
        "stated": said("awe", "0.8"),
        "likelihood": said("awe", "0.125"),
        "p_true": said("awe", "0.65"),
        "distribution": said("awe", "0.6"),
        "likelihood_best": said("quiet joy", "0.5"),
        "agreement": Confidence("sadness", found["agreement"].value),
        "mean_stated": said("sadness", "0.5"),
    }
    assert float(found["agreement"].value) == 2 / 3
    assert tuple(found) == CONFIDENCES


def test_a_distribution_that_stands_for_the_stated_one_is_not_read_twice():
    found = read("<answer>awe</answer><distribution>awe: 0.6, sadness: 0.3</distribution>")
    assert found == {"distribution": said("awe", "0.6")}


@pytest.mark.parametrize(
    ("stated", "reason"),
    [("sadness: 0.5", "missing"), ("awe: 0.5, bliss: 0.5", "unknown_label"), ("awe: 2x", "not_a_number")],
)
def test_a_distribution_that_says_nothing_of_the_answer_has_a_reason(stated, reason):
    found = read(f"<answer>awe</answer><distribution>{stated}</distribution>")
    assert found == {"stated": none("awe", reason), "distribution": none("awe", reason)}


def test_likelihoods_are_shares_even_of_what_no_float_holds():
    far = {"awe": -1e6, "quiet joy": -1000.0, "sadness": -1000.0}
    found = read(candidate_logprobs=far)
    assert found["likelihood"] == said("awe", "0")
    # Of equals, the first of the candidates, wherever the record has it.
    assert found["likelihood_best"] == said("quiet joy", "0.5")
    turned = read(candidate_logprobs=dict(reversed(far.items())))
    assert turned == found
    even = read("<answer>sad</answer>", candidate_logprobs={"Awe": -2, "quiet-joy": -2, "sad": -2})
    assert even["likelihood"] == said("sadness", "0.333333333333")


@pytest.mark.parametrize(
    ("logprobs", "reason"),
    [
        ([-1.0, -2.0, -3.0], "not_a_number"),
        ({**THIRDS, "awe": "-1"}, "not_a_number"),
        ({**THIRDS, "awe": True}, "not_a_number"),
        ({**THIRDS, "awe": math.nan}, "not_a_number"),
        ({**THIRDS, "awe": -math.inf}, "not_a_number"),
        ({**THIRDS, "awe": -(10**400)}, "not_a_number"),
        ({**THIRDS, "awe": 0.5}, "out_of_range"),
        ({**THIRDS, "bliss": -1.0}, "unknown_label"),
        ({**THIRDS, "Awe": -1.0}, "duplicate_label"),
        ({"awe": -1.0, "sadness": -1.0}, "missing_label"),
        ({}, "missing_label"),
    ],
)
def test_likelihoods_that_cannot_be_read(logprobs, reason):
    found = read(candidate_logprobs=logprobs)
    assert found["likelihood"] == none("awe", reason)
    assert found["likelihood_best"] == none(None, reason)


@pytest.mark.parametrize(
    ("p_true", "reason"),
    [("0.5", "not_a_number"), (True, "not_a_number"), (math.nan, "not_a_number"), (1.01, "out_of_range")],
)
def test_p_true_that_cannot_be_read(p_true, reason):
    assert read(p_true=p_true)["p_true"] == none("awe", reason)


def test_no_answer_no_confidence_in_it():
    found = read("none of these", candidate_logprobs=THIRDS, p_true=0.5)
    assert found["likelihood"] == found["p_true"] == none(None, "missing")
    assert found["likelihood_best"] == said("quiet joy", "0.5")


def test_a_failed_row_has_none():
    assert read(error={"type": "image_missing"}, p_true=0.5) == {}


def test_what_goes_beyond_the_stated_one():
    response = "<answer>awe</answer>"
    assert not is_beyond_stated({"response": response, "p_true": None, "samples": [response, response]})
    assert is_beyond_stated({"response": response, "p_true": 0.0})
    assert is_beyond_stated({"response": response, "candidate_logprobs": {}})
    assert is_beyond_stated({"samples": [f"{response}<DISTRIBUTION>"]})
    assert not is_beyond_stated({"response": None})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LABELS, "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(ANYTHING, ANYTHING, st.text(max_size=9))
def test_total(logprobs, p_true, stated):
    response = f"<answer>awe</answer><distribution>{stated}</distribution>"
    for one in read(response, candidate_logprobs=logprobs, p_true=p_true).values():
        assert (one.value is None) == (one.reason is not None)
        assert one.value is None or (0 <= one.value <= 1 and one.label in LABELS)


@given(st.lists(st.floats(-800, 0), min_size=3, max_size=3))
def test_shares_are_a_softmax(logprobs):
    of_label = dict(zip(LABELS, logprobs, strict=True))
    shares = [
        read(f"<answer>{label}</answer>", candidate_logprobs=json.loads(json.dumps(of_label)))["likelihood"]
        for label in LABELS
    ]
    for label, share in zip(LABELS, shares, strict=True):
        expected = 1 / math.fsum(math.exp(min(other - of_label[label], 700)) for other in logprobs)
        assert abs(float(share.value) - expected) < 1e-12
