"""A row is answered, unparsed or failed; only a label that was read can be right."""

from decimal import Decimal

import pytest

from emocaliber.prompts import conversation
from emocaliber.records import RecordError
from emocaliber.scoring import score
from emocaliber.taxonomy import MIKELS_8, WEBEMO_25


def row(response=None, **fields):
    return {
        "id": "r1",
        "image": "a.jpg",
        "conversations": conversation("a.jpg", MIKELS_8),
        "task": "FI-8",
        "ground_truth": "awe",
        "candidates": list(MIKELS_8),
        "response": response,
        **fields,
    }


def test_a_right_answer():
    scored = score(row("<think>x</think><answer>Awe</answer><confidence>85%</confidence>"))
    assert (scored.id, scored.task, scored.group) == ("r1", "FI-8", "ID VER")
    assert (scored.truth, scored.label, scored.correct) == ("awe", "awe", True)
    assert (scored.status, scored.confidence) == ("answered", Decimal("0.85"))
    assert (scored.label_reason, scored.confidence_reason) == (None, None)
    assert scored.flags == {"malformed_reasoning"}
    assert scored.candidates == MIKELS_8
    assert scored.posterior is None


@pytest.mark.parametrize(
    ("response", "status", "label", "reason"),
    [
        ("<answer>fear</answer>", "answered", "fear", None),
        ("<answer>joy</answer>", "unparsed", None, "not_a_candidate"),
        ("<answer>awe, fear</answer>", "unparsed", None, "ambiguous"),
        ("awe</think>", "unparsed", None, "no_answer"),
        ("", "unparsed", None, "no_answer"),
        (None, "failed", None, None),
    ],
)
def test_wrong_answers_and_none(response, status, label, reason):
    scored = score(row(response))
    assert (scored.status, scored.label, scored.label_reason, scored.correct) == (
        status,
        label,
        reason,
        False,
    )


def test_an_unparsed_answer_keeps_its_confidence():
    scored = score(row("<answer>joy</answer><confidence>0.4</confidence>"))
    assert (scored.status, scored.confidence, scored.confidence_reason) == ("unparsed", Decimal("0.4"), None)


@pytest.mark.parametrize("error", [{"type": "OSError", "message": "no such image"}, "boom", {}])
def test_an_error_is_a_failed_row_whatever_else_it_holds(error):
    scored = score(row("<answer>awe</answer><confidence>0.4</confidence>", error=error))
    assert (scored.status, scored.label, scored.correct, scored.confidence) == ("failed", None, False, None)
    assert (scored.label_reason, scored.confidence_reason, scored.flags) == (None, None, frozenset())


def test_an_error_that_is_null_is_none():
    assert score(row("<answer>awe</answer>", error=None)).correct


@pytest.mark.parametrize(
    ("truth", "answer", "candidates", "label"),
    [
        ("sad", "sadness", MIKELS_8, "sadness"),
        ("sadness", "sad", MIKELS_8, "sadness"),
        ("Content", "contentment", MIKELS_8, "contentment"),
        ("cheerfullness", "cheerfulness", WEBEMO_25, "cheerfullness"),
        ("irritability", "irritabilty", WEBEMO_25, "irritabilty"),
        ("great joy", "a great joy", ["joy", "great joy"], "great joy"),
    ],
)
def test_spellings_of_the_truth_and_the_answer_are_the_candidates(truth, answer, candidates, label):
    scored = score(row(f"<answer>{answer}</answer>", ground_truth=truth, candidates=list(candidates)))
    assert (scored.truth, scored.label, scored.correct) == (label, label, True)


def test_task_names_are_repaired():
    scored = score(row("x", task="UnbaisedEmo-6"))
    assert (scored.task, scored.group) == ("UnbiasedEmo-6", "OOD VER")
    assert score(row("x", task="Zoo-3")).group is None


def test_posterior_is_over_all_candidates_in_their_spelling():
    scored = score(row("x", candidates=["awe", "sadness", "fear"], posterior={"Sad": 0.25, "awe": 0.75}))
    assert scored.posterior == {"awe": 0.75, "sadness": 0.25, "fear": 0.0}


def test_an_empty_posterior_is_none_known():
    assert score(row("x", posterior={})).posterior is None


@pytest.mark.parametrize(
    ("votes", "truth"),
    [({"fear": 3, "Sad": 1}, "fear"), ({"sadness": 2, "fear": 2, "awe": 1}, "fear"), ({"Sad": 1}, "sadness")],
)
def test_without_ground_truth_the_most_probable_label_is_the_truth(votes, truth):
    scored = score(row(f"<answer>{truth}</answer>", ground_truth=None, votes=votes))
    assert (scored.truth, scored.correct) == (truth, True)
    assert scored.posterior[truth] == max(scored.posterior.values())


def test_a_ground_truth_goes_before_the_most_probable_label():
    assert score(row("x", ground_truth="awe", votes={"fear": 3})).truth == "awe"


@pytest.mark.parametrize(
    "rounded", [{"awe": 1}, {"awe": 0.5, "fear": 0.4991}, dict.fromkeys(("awe", "fear", "anger"), 0.333)]
)
def test_a_posterior_may_be_rounded(rounded):
    assert score(row("x", posterior=rounded)).posterior == dict.fromkeys(MIKELS_8, 0.0) | rounded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ground_truth": "joy"}, "row 'r1': ground_truth 'joy' is not among the candidates"),
        ({"ground_truth": None}, "row 'r1': ground_truth None is not among the candidates"),
        ({"candidates": []}, r"row 'r1': candidates is \[\]"),
        ({"posterior": [1]}, "row 'r1': posterior is not an object"),
        ({"posterior": {"joy": 0.5}}, "row 'r1': posterior gives 'joy' the probability 0.5"),
        ({"posterior": {"awe": 1.5}}, "row 'r1': posterior gives 'awe' the probability 1.5"),
        ({"posterior": {"awe": "1"}}, "row 'r1': posterior gives 'awe' the probability '1'"),
        ({"posterior": {"awe": 1, "fear": -0.1}}, "row 'r1': posterior gives 'fear' the probability -0.1"),
        (
            {"posterior": {"sad": 0.5, "awe": 0.25, "Sadness": 0.25}},
            "^row 'r1': posterior gives 'sadness' twice, once as 'Sadness'; name each label once$",
        ),
        (
            {"posterior": {"awe": 0.5, "fear": 0.4989}},
            "^row 'r1': posterior sums to 0.9989, not 1; correct it, or leave it out$",
        ),
        ({"posterior": {"awe": 0.9, "fear": 0.9}}, "row 'r1': posterior sums to 1.8, not 1; correct it"),
        ({"posterior": {"awe": 0}}, "row 'r1': posterior sums to 0, not 1; correct it"),
        ({"votes": {"awe": -1}}, "row 'r1': votes give 'awe' -1; use candidates"),
        ({"votes": {"awe": 1}, "posterior": {"awe": 1}}, "row 'r1': posterior and votes are both there"),
    ],
)
def test_rows_that_are_not_valid_are_named(fields, message):
    with pytest.raises(RecordError, match=message):
        score(row("x", **fields))


def test_rows_of_one_image_have_one_key_and_a_row_without_image_has_none():
    one, other = (score(row("x", image="a.jpg", id=name)) for name in ("1", "2"))
    assert one.image_key == other.image_key == "a.jpg"
    assert score(row("x", images=["b.jpg", "a.jpg"])).image_key == "b.jpg\na.jpg"


def test_without_a_response_the_first_sample_is_it():
    samples = ["<answer>awe</answer><confidence>0.7</confidence>", "<answer>fear</answer>"]
    assert (score(row(samples=samples)).label, score(row(samples=samples)).confidence) == (
        "awe",
        Decimal("0.7"),
    )
    assert score(row("<answer>fear</answer>", samples=samples)).label == "fear"
    for failed in (row(samples=samples, error={"type": "OSError"}), row(samples=[]), row(samples=[1])):
        assert score(failed).status == "failed"
