"""What is scored for the confidences beyond the stated one, worked by hand with a tokenizer of words."""

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.backends.backend import LIKELIHOOD, P_TRUE, Answer
from inference.backends.prepare import ChatTokenizer, Request
from inference.backends.probes import IS_IT_RIGHT, Probe, askable, probes, with_confidences

Messages = list[dict[str, Any]]


class WordTokenizer:
    """A token is a word, or the longest of `merges` that comes next, or else one character."""

    def __init__(self, *merges: str, trims: bool = False) -> None:
        self.pattern = re.compile("|".join([*map(re.escape, merges), r"\w+", r"(?s:.)"]))
        self.words: list[str] = []
        self.trims = trims

    def encode_text(self, text: str) -> list[int]:
        ids = []
        for word in self.pattern.findall(text):
            if word not in self.words:
                self.words.append(word)
            ids.append(self.words.index(word))
        return ids

    def render(self, messages: Messages) -> str:
        if self.trims:  # a template that leaves out what was said before
            messages = messages[-1:]
        return "".join(f"[{one['role']}]{one['content']}\n" for one in messages) + "[assistant]"

    def text(self, ids: Sequence[int]) -> str:
        return "".join(self.words[number] for number in ids)


def request(*candidates: str) -> Request:
    question = [{"role": "user", "content": "which?"}]
    return Request("r", [1, 2, 3], [], 0, 0, question, candidates)


def asked_of(
    tokenizer: WordTokenizer, response: str, candidates: Sequence[str], *confidences: str
) -> list[Probe]:
    return probes(request(*candidates), response, confidences, cast(ChatTokenizer, tokenizer))


def scored(tokenizer: WordTokenizer, found: Sequence[Probe]) -> dict[str, tuple[str, str]]:
    """Give, by ending, the text before what is scored, and what is scored."""
    return {
        probe.ending: (
            tokenizer.text(probe.token_ids[: len(probe.token_ids) - probe.n_scored]),
            tokenizer.text(probe.token_ids[len(probe.token_ids) - probe.n_scored :]),
        )
        for probe in found
    }


def likelihoods(response: str, *candidates: str, merges: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    tokenizer = WordTokenizer(*merges)
    return scored(tokenizer, asked_of(tokenizer, response, candidates, LIKELIHOOD))


def test_each_candidate_is_scored_after_the_reasoning_of_the_response() -> None:
    found = likelihoods("<think>a b</think><answer>joy</answer><confidence>0.9", "joy", "fear")
    before = "<think>a b</think><answer>"
    assert found == {"joy": (before, "joy</"), "fear": (before, "fear</")}


def test_a_token_over_the_border_is_scored_in_every_ending() -> None:
    """'>f' is one token: neither its beginning nor the '>' of the others is common to all."""
    found = likelihoods("<answer>joy</answer>", "joy", "fear", merges=[">f"])
    assert found == {"joy": ("<answer", ">joy</"), "fear": ("<answer", ">fear</")}


def test_what_all_candidates_begin_with_is_scored_in_none() -> None:
    found = likelihoods("<answer>", "very glad", "very sad")
    assert found == {"very glad": ("<answer>very ", "glad</"), "very sad": ("<answer>very ", "sad</")}


def test_a_candidate_that_another_begins_with_is_told_apart_by_the_tag() -> None:
    found = likelihoods("<answer>", "joy", "joy of life")
    assert found == {"joy": ("<answer>joy", "</"), "joy of life": ("<answer>joy", " of life</")}


def test_one_candidate_alone_has_its_last_token_scored() -> None:
    assert likelihoods("<answer>", "joy") == {"joy": ("<answer>joy<", "/")}


@pytest.mark.parametrize(
    ("response", "before"),
    [
        ("<ANSWER >fear", "<ANSWER >"),
        ("<answer>fear</answer> or <answer>joy</answer>", "<answer>fear</answer> or <answer>"),
        ("<think>x</think> joy", "<think>x</think><answer>"),
        ("<think>x</THINK ></think>", "<think>x</THINK ></think><answer>"),
        ("<think><answer>x</answer>", "<think><answer>"),
    ],
)
def test_where_the_answer_begins(response: str, before: str) -> None:
    assert likelihoods(response, "joy", "fear")["joy"] == (before, "joy</")


@pytest.mark.parametrize("response", ["", "joy", "<think>x", "<answer", "answer>joy"])
def test_a_response_without_a_place_for_an_answer_has_no_likelihood(response: str) -> None:
    assert likelihoods(response, "joy", "fear") == {}


def test_the_second_question_is_about_the_label_of_the_response() -> None:
    tokenizer = WordTokenizer()
    found = asked_of(tokenizer, "<answer>Joy.</answer>", ["joy", "fear"], P_TRUE)
    before = f"<answer>Joy.</answer>\n[user]{IS_IT_RIGHT.format(label='joy')}\n[assistant]"
    assert scored(tokenizer, found) == {"True": (before, "True"), "False": (before, "False")}


def test_a_template_that_drops_what_was_said_before_still_has_the_second_question() -> None:
    tokenizer = WordTokenizer(trims=True)
    found = asked_of(tokenizer, "<answer>joy</answer>", ["joy", "fear"], P_TRUE)
    before = f"<answer>joy</answer>\n{IS_IT_RIGHT.format(label='joy')}\n"
    assert scored(tokenizer, found) == {"True": (before, "True"), "False": (before, "False")}


@pytest.mark.parametrize("response", ["", "<answer>grief</answer>", "<answer>joy or fear</answer>"])
def test_without_a_label_there_is_no_second_question(response: str) -> None:
    assert asked_of(WordTokenizer(), response, ["joy", "fear"], P_TRUE) == []


def test_only_what_was_asked_for() -> None:
    response, candidates = "<answer>joy</answer>", ["joy", "fear"]
    tokenizer = WordTokenizer()
    assert asked_of(tokenizer, response, candidates) == []
    found = asked_of(tokenizer, response, candidates, LIKELIHOOD, P_TRUE)
    assert [(probe.confidence, probe.ending) for probe in found] == [
        (LIKELIHOOD, "joy"),
        (LIKELIHOOD, "fear"),
        (P_TRUE, "True"),
        (P_TRUE, "False"),
    ]


@given(
    before=st.text("ab<> ", max_size=8),
    candidates=st.lists(st.text("abc ", min_size=1, max_size=6), min_size=1, max_size=5, unique=True),
    merges=st.lists(st.text("abc<>/ ", min_size=2, max_size=4), max_size=6),
)
def test_every_ending_is_whole_and_scored_after_a_common_beginning(
    before: str, candidates: list[str], merges: list[str]
) -> None:
    tokenizer = WordTokenizer(*merges)
    response = f"{before}<answer>x"
    found = asked_of(tokenizer, response, candidates, LIKELIHOOD)
    assert [probe.ending for probe in found] == candidates
    beginnings = set()
    for probe in found:
        assert tokenizer.text(probe.token_ids) == f"{before}<answer>{probe.ending}</"
        assert 1 <= probe.n_scored <= len(probe.token_ids)
        beginnings.add(tuple(probe.token_ids[: -probe.n_scored]))
    assert len(beginnings) == 1
    if len(found) > 1:
        # Nothing that is common to all is scored, but where one ending would be left without a token.
        firsts = {probe.token_ids[-probe.n_scored] for probe in found}
        assert len(firsts) > 1 or min(probe.n_scored for probe in found) == 1


ANSWER = Answer("r", "<answer>joy</answer>", "stop", 4, 10, 5)


def probe(confidence: str, ending: str, n_tokens: int = 3) -> Probe:
    return Probe(confidence, ending, list(range(n_tokens)), 1)


RIGHT = [probe(P_TRUE, "True", 3), probe(P_TRUE, "False", 4)]
LABELS = [probe(LIKELIHOOD, "joy", 2), probe(LIKELIHOOD, "fear", 2)]


def test_log_probabilities_land_under_their_names_with_what_they_took() -> None:
    answer = with_confidences(ANSWER, [*LABELS, *RIGHT], [-0.5, -2.0, math.log(0.3), math.log(0.1)], 10)
    assert answer.candidate_logprobs == {"joy": -0.5, "fear": -2.0}
    assert answer.p_true == pytest.approx(0.75)
    assert answer.confidence_tokens == {LIKELIHOOD: 2 * (10 + 2), P_TRUE: 2 * 10 + 3 + 4}
    assert answer.response == ANSWER.response


def test_what_was_not_asked_is_not_there() -> None:
    assert with_confidences(ANSWER, [], [], 10) == ANSWER
    answer = with_confidences(ANSWER, LABELS, [-1.0, -1.0], 10)
    assert (answer.p_true, answer.confidence_tokens) == (None, {LIKELIHOOD: 24})
    answer = with_confidences(ANSWER, RIGHT, [-1.0, -1.0], 10)
    assert (answer.candidate_logprobs, answer.p_true) == (None, 0.5)


@pytest.mark.parametrize(
    ("true", "false", "expected"),
    [(-800.0, -1.0, 0.0), (-1.0, -800.0, 1.0), (-math.inf, -1.0, 0.0), (-math.inf, -math.inf, 0.5)],
)
def test_extreme_log_probabilities_do_not_overflow(true: float, false: float, expected: float) -> None:
    assert with_confidences(ANSWER, RIGHT, [true, false], 10).p_true == pytest.approx(expected, abs=1e-300)


def test_a_likelihood_of_nothing_is_a_number_that_json_has() -> None:
    assert with_confidences(ANSWER, LABELS, [-math.inf, -1.0], 10).candidate_logprobs == {
        "joy": -1e6,
        "fear": -1.0,
    }


logprobs = st.floats(max_value=0, allow_nan=False)


@given(true=logprobs, false=logprobs)
def test_p_true_is_a_probability_and_that_of_false_is_the_rest(true: float, false: float) -> None:
    one = with_confidences(ANSWER, RIGHT, [true, false], 10).p_true
    other = with_confidences(ANSWER, RIGHT, [false, true], 10).p_true
    assert one is not None
    assert other is not None
    assert 0 <= one <= 1
    assert one + other == pytest.approx(1)
    assert (one >= 0.5) == (true >= false) or one == 0.5


def test_a_confidence_of_which_a_probe_does_not_fit_is_left_out_as_a_whole() -> None:
    asked = [*LABELS, *RIGHT]
    assert askable(asked, 5, ()) == asked
    # "False" and the engine's own token need 5; "True" alone would be no share of anything.
    assert askable(asked, 4, ()) == LABELS
    assert askable(asked, 2, ()) == []


def test_a_confidence_whose_probe_spells_an_image_is_left_out() -> None:
    asked = [*LABELS, *RIGHT]
    assert askable(asked, 5, {7, 99}) == asked
    assert askable(asked, 5, {3}) == LABELS
