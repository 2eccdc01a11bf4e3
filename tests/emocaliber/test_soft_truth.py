"""A distribution is read from probabilities or from votes; what is neither is told exactly."""

import pytest

from emocaliber.records import RecordError, has_soft_truth, most_probable, soft_truth

LABELS = ("joy", "great joy", "sadness")


def test_votes_become_shares_of_all_candidates_in_their_spelling_and_order():
    read = soft_truth({"votes": {"Sad": 1, "Great-Joy": 2.5, "joy": 0}}, LABELS)
    assert read == {"joy": 0.0, "great joy": 2.5 / 3.5, "sadness": 1 / 3.5}
    assert list(read) == list(LABELS)


def test_one_vote_is_a_sure_truth():
    assert soft_truth({"votes": {"joy": 7}, "posterior": None}, LABELS) == dict.fromkeys(LABELS, 0.0) | {
        "joy": 1
    }


def test_a_posterior_is_taken_as_written():
    assert soft_truth({"posterior": {"sad": 0.3, "joy": 0.6995}, "votes": {}}, LABELS) == {
        "joy": 0.6995,
        "great joy": 0.0,
        "sadness": 0.3,
    }


@pytest.mark.parametrize("record", [{}, {"votes": None}, {"votes": {}, "posterior": None}, {"posterior": {}}])
def test_nothing_written_is_nothing_known(record):
    assert soft_truth(record, LABELS) is None
    assert not has_soft_truth(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"votes": ["joy"]}, "votes is not an object; make it label -> number of raters, or leave it out"),
        ({"votes": 0}, "votes is not an object; make it label -> number of raters, or leave it out"),
        ({"votes": {"awe": 1}}, "votes give 'awe' 1; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": -1}}, "votes give 'joy' -1; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": True}}, "votes give 'joy' True; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": "3"}}, "votes give 'joy' '3'; use candidates and numbers of raters, 0 or more"),
        (
            {"votes": {"joy": 10**400}},
            f"votes give 'joy' 1{'0' * 39}…; use candidates and numbers of raters, 0 or more",
        ),
        (
            {"votes": {"joy": 0, "sad": 0}},
            "votes sum to 0; give at least one rater's vote, or leave them out",
        ),
        (
            {"votes": {"sad": 1, "Sadness": 1}},
            "votes give 'sadness' twice, once as 'Sadness'; name each label once",
        ),
        (
            {"votes": {"joy": 1}, "posterior": {"joy": 1}},
            "posterior and votes are both there; keep the one that is the truth",
        ),
    ],
)
def test_votes_that_cannot_be_read_are_told_exactly(record, message):
    assert has_soft_truth(record)
    with pytest.raises(RecordError) as error:
        soft_truth(record, LABELS)
    assert str(error.value) == message


def test_the_most_probable_of_equals_is_the_first_candidate():
    assert most_probable({"joy": 0.2, "great joy": 0.4, "sadness": 0.4}) == "great joy"
    assert (
        most_probable(soft_truth({"votes": {"sadness": 2, "great joy": 2, "joy": 1}}, LABELS)) == "great joy"
    )
