"""What most samples say: votes, ties, shares that keep their bins, and samples that cannot be read."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber.confidences import Majority, Sample, majority, read_samples
from emocaliber.metrics.counts import tenth_of
from emocaliber.prompts import conversation
from emocaliber.records import RecordError
from emocaliber.scoring import score

LABELS = ("awe", "fear", "great fear")


def said(label, confidence=None):
    return Sample(label, None if confidence is None else Decimal(confidence))


def answer(label, confidence="0.5"):
    return f"<answer>{label}</answer><confidence>{confidence}</confidence>"


ANSWER = answer("awe")


def read(samples, response=ANSWER, **fields):
    record = {
        "id": "r1",
        "image": "a.jpg",
        "conversations": conversation("a.jpg", LABELS),
        "task": "Mine-3",
        "ground_truth": "awe",
        "candidates": list(LABELS),
        "response": response,
        "samples": samples,
        **fields,
    }
    return read_samples(record, score(record))


def test_the_label_that_most_name_with_their_share_and_mean_confidence():
    samples = [said("awe", "0.9"), said("fear", "1"), said("awe", "0.8"), said("awe"), said(None, "1")]
    assert majority(samples, LABELS) == Majority("awe", 3, False, Decimal("0.6"), Decimal("0.85"))


def test_a_tie_goes_to_the_higher_confidences_in_sum_then_to_the_first_candidate():
    samples = [said("awe", "0.9"), said("awe"), said("fear", "0.5"), said("fear", "0.41"), said("great fear")]
    assert majority(samples, LABELS) == Majority("fear", 2, True, Decimal("0.4"), Decimal("0.455"))
    assert majority([said("fear", "0.3"), said("awe", "0.30")], LABELS).label == "awe"
    assert majority([said("great fear"), said("fear")], LABELS) == Majority(
        "fear", 1, True, Decimal("0.5"), None
    )


def test_no_label_is_no_majority():
    assert majority([said(None, "0.9"), said(None)], LABELS) == Majority(None, 0, False, None, None)


@pytest.mark.parametrize("k", range(2, 41))
def test_the_share_of_the_samples_is_in_its_bin(k):
    for m in range(1, k + 1):
        share = majority([said("awe")] * m + [said(None)] * (k - m), LABELS).agreement
        assert tenth_of(share) == min(10 * m // k, 9)
        assert float(share) == m / k
    assert majority([said("awe"), *[said(None)] * 2], LABELS).agreement == (
        majority([*[said("awe")] * 2, *[said(None)] * 4], LABELS).agreement
    )


def test_the_mean_confidence_is_in_its_bin():
    three = [said("awe", "0.2"), said("awe", "0.3"), said("awe", "0.4")]
    assert majority(three, LABELS).mean_confidence == Decimal("0.3")
    below = [said("awe", f"0.2{'9' * 60}")] * 3
    assert tenth_of(majority(below, LABELS).mean_confidence) == 2


SAMPLE = st.builds(
    said, st.sampled_from([None, *LABELS]), st.sampled_from([None, "0", "0.1", "0.25", "0.3", "1e-70"])
)


@given(st.lists(SAMPLE, min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(samples, shuffler):
    shuffled = list(samples)
    shuffler.shuffle(shuffled)
    assert majority(samples, LABELS) == majority(shuffled, LABELS)


def test_samples_are_read_like_a_response():
    texts = [answer("Great-Fear", "90%"), "", answer("awe")]
    assert read(texts) == (said("great fear", "0.9"), said(None), said("awe", "0.5"))
    # The response need not be one of them.
    assert read(texts[:2]) == (said("great fear", "0.9"), said(None))


@pytest.mark.parametrize("samples", [None, [], [answer("awe")]])
def test_fewer_than_two_are_none(samples):
    assert read(samples) is None


def test_a_failed_row_has_none():
    assert read([answer("awe")] * 2, error="boom") is None
    assert read([answer("awe")] * 2, response=None, error="boom") is None


def test_without_a_response_the_first_sample_is_it():
    assert read([answer("awe"), answer("fear")], response=None) == (said("awe", "0.5"), said("fear", "0.5"))


@pytest.mark.parametrize("samples", ["ab", {"0": "a"}, ["a", None], ["a", 1], 3])
def test_samples_that_are_not_texts_are_told(samples):
    with pytest.raises(
        RecordError, match=r"^row 'r1': samples is not a list of texts; make it the responses"
    ):
        read(samples)
