"""Each confidence is read from where the row holds it; what cannot be read has a reason; samples vote."""

import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.confidences import (
    CONFIDENCES,
    Confidence,
    Majority,
    Sample,
    is_beyond_stated,
    majority,
    read_confidences,
    read_samples,
)
from emocaliber.metrics.counts import tenth_of
from emocaliber.prompts import conversation
from emocaliber.records import RecordError
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


# Samples: votes, ties, shares that keep their bins, and samples that cannot be read

FEARS = ("awe", "fear", "great fear")


def says(label, confidence=None):
    return Sample(label, None if confidence is None else Decimal(confidence))


def answer(label, confidence="0.5"):
    return f"<answer>{label}</answer><confidence>{confidence}</confidence>"


ANSWER = answer("awe")


def voters(samples, response=ANSWER, **fields):
    record = {
        "id": "r1",
        "image": "a.jpg",
        "conversations": conversation("a.jpg", FEARS),
        "task": "Mine-3",
        "ground_truth": "awe",
        "candidates": list(FEARS),
        "response": response,
        "samples": samples,
        **fields,
    }
    return read_samples(record, score(record))


def test_the_label_that_most_name_with_their_share_and_mean_confidence():
    samples = [
        says("awe", "0.9"),
        says("fear", "1"),
        says("awe", "0.8"),
        says("awe"),
        says(None, "1"),
    ]
    assert majority(samples, FEARS) == Majority("awe", 3, False, Decimal("0.6"), Decimal("0.85"))


def test_a_tie_goes_to_the_higher_confidences_in_sum_then_to_the_first_candidate():
    samples = [
        says("awe", "0.9"),
        says("awe"),
        says("fear", "0.5"),
        says("fear", "0.41"),
        says("great fear"),
    ]
    assert majority(samples, FEARS) == Majority("fear", 2, True, Decimal("0.4"), Decimal("0.455"))
    assert majority([says("fear", "0.3"), says("awe", "0.30")], FEARS).label == "awe"
    assert majority([says("great fear"), says("fear")], FEARS) == Majority(
        "fear", 1, True, Decimal("0.5"), None
    )


def test_no_label_is_no_majority():
    assert majority([says(None, "0.9"), says(None)], FEARS) == Majority(None, 0, False, None, None)


@pytest.mark.parametrize("k", range(2, 41))
def test_the_share_of_the_samples_is_in_its_bin(k):
    for m in range(1, k + 1):
        share = majority([says("awe")] * m + [says(None)] * (k - m), FEARS).agreement
        assert tenth_of(share) == min(10 * m // k, 9)
        assert float(share) == m / k
    assert majority([says("awe"), *[says(None)] * 2], FEARS).agreement == (
        majority([*[says("awe")] * 2, *[says(None)] * 4], FEARS).agreement
    )


def test_the_mean_confidence_is_in_its_bin():
    three = [says("awe", "0.2"), says("awe", "0.3"), says("awe", "0.4")]
    assert majority(three, FEARS).mean_confidence == Decimal("0.3")
    below = [says("awe", f"0.2{'9' * 60}")] * 3
    assert tenth_of(majority(below, FEARS).mean_confidence) == 2


SAMPLE = st.builds(
    says, st.sampled_from([None, *FEARS]), st.sampled_from([None, "0", "0.1", "0.25", "0.3", "1e-70"])
)


@given(st.lists(SAMPLE, min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(samples, shuffler):
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    assert majority(samples, FEARS) == majority(shuffled, FEARS)


def test_samples_are_read_like_a_response():
    texts = [answer("Great-Fear", "90%"), "", answer("awe")]
    assert voters(texts) == (says("great fear", "0.9"), says(None), says("awe", "0.5"))
    # The response need not be one of them.
    assert voters(texts[:2]) == (says("great fear", "0.9"), says(None))


@pytest.mark.parametrize("samples", [None, [], [answer("awe")]])
def test_fewer_than_two_are_none(samples):
    assert voters(samples) is None


def test_a_failed_row_has_no_samples():
    assert voters([answer("awe")] * 2, error="boom") is None
    assert voters([answer("awe")] * 2, response=None, error="boom") is None


def test_without_a_response_the_first_sample_is_it():
    assert voters([answer("awe"), answer("fear")], response=None) == (
        says("awe", "0.5"),
        says("fear", "0.5"),
    )


@pytest.mark.parametrize("samples", ["ab", {"0": "a"}, ["a", None], ["a", 1], 3])
def test_samples_that_are_not_texts_are_told(samples):
    with pytest.raises(
        RecordError, match=r"^row 'r1': samples is not a list of texts; make it the responses"
    ):
        voters(samples)
