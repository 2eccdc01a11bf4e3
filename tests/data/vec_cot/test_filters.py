"""What passes the filters of a VEC-CoT and the reason why the rest does not."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from data.vec_cot import filters
from emocaliber.jsonl import RecordError
from emocaliber.records import Unusable
from emocaliber.response import SECTIONS, render

LABELS = ("awe", "fear", "sadness")
REASONING = {name: f"A {name} of four words." for name in SECTIONS}
GOOD = render(REASONING, "awe")
LIMITS = filters.Limits(
    blind=False,
    min_words=3,
    max_words=8,
    max_characters=60,
    leak_patterns=filters.read_leak_patterns(None),
)


def reason(answer: dict[str, Any], truth: str = "awe", limits: filters.Limits = LIMITS) -> str:
    with pytest.raises(Unusable) as caught:
        filters.chain_of(answer, truth, LABELS, limits)
    assert str(caught.value), "a reason comes with a message"
    assert caught.value.reason in filters.REASONS
    return caught.value.reason


def changed(**sections: str) -> dict[str, Any]:
    return {"answer": render(REASONING | sections, "awe")}


def test_a_sound_answer_is_a_chain() -> None:
    text = "Here it is:\n" + GOOD.replace("four words", "four\n  words") + "<confidence>0.7</confidence>"
    chain = filters.chain_of({"answer": text, "finish_reason": "stop"}, "awe", LABELS, LIMITS)
    assert (chain.reasoning, chain.label, chain.confidence) == (REASONING, "awe", Decimal("0.7"))
    sad = {"answer": render(REASONING, "Sad.")}
    assert filters.chain_of(sad, "sadness", LABELS, LIMITS).label == "sadness", "in the candidates' spelling"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": {"type": "APITimeoutError", "message": "late"}}, "teacher_error"),
        ({"answer": "I’m sorry, I can't look at people."}, "teacher_refused"),
        ({"answer": None, "refusal": "No."}, "teacher_refused"),
        ({"answer": "", "finish_reason": "content_filter"}, "teacher_refused"),
        ({"answer": GOOD, "finish_reason": "length"}, "answer_cut_off"),
        ({"answer": None}, "malformed"),
        ({"answer": "It is awe."}, "malformed"),
        ({"answer": "<answer>awe</answer>"}, "malformed"),
        ({"answer": GOOD.partition("<answer>")[0] + "awe"}, "malformed"),
        ({"answer": GOOD.replace("A human of four words.", "")}, "malformed"),
        ({"answer": GOOD.replace("human>", "person>")}, "malformed"),
        ({"answer": GOOD.replace("element>", "x>").replace("human>", "element>")}, "malformed"),
        ({"answer": GOOD.replace("<human>", "<human>a b c</human><human>")}, "malformed"),
        ({"answer": GOOD.replace("awe<", "joy<")}, "no_label"),
        ({"answer": GOOD.replace("awe<", "awe or fear<")}, "no_label"),
        ({"answer": GOOD.replace("awe<", "fear<")}, "wrong_label"),
        (changed(human="Two words."), "section_too_short"),
        (changed(human="one two three four five six seven eight nine"), "section_too_long"),
        (changed(human="so " + "o" * 50 + " is long, too"), "section_too_long"),
    ],
)
def test_an_answer_that_does_not_pass(answer: dict[str, Any], expected: str) -> None:
    assert reason(answer) == expected


def test_blind_a_wrong_label_is_a_disagreement() -> None:
    blind = filters.Limits(True, 3, 8, 60, ())
    assert reason({"answer": GOOD}, truth="fear", limits=blind) == "label_disagrees"


@pytest.mark.parametrize(
    "told",
    [
        "The label is given as awe.",
        "As instructed, this is awe.",
        "The provided label is awe.",
        "It fits the Ground-Truth emotion.",
        "We are told it is awe.",
        "The given emotion label fits.",
        "As labeled, it evokes awe.",
        "According to the annotation, awe.",
    ],
)
def test_words_of_one_who_was_told(told: str) -> None:
    assert reason(changed(analysis=told)) == "label_leaked"


@pytest.mark.parametrize(
    "seen",
    [
        "A label on the bottle.",
        "The given light is soft.",
        "As if told a joke.",
        "They give instructions on stage.",
        "The sign holds a message.",
        "A film as given by friends.",
    ],
)
def test_words_that_only_look_like_it(seen: str) -> None:
    assert filters.chain_of(changed(element=seen), "awe", LABELS, LIMITS).reasoning["element"] == seen


def test_leak_patterns_are_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "patterns.txt"
    file.write_text("bottle\n\nspoon\n")
    own = filters.Limits(False, 3, 8, 60, filters.read_leak_patterns(file))
    assert reason(changed(element="A label on the Bottle."), limits=own) == "label_leaked"
    filters.chain_of(changed(analysis="As instructed, it is awe."), "awe", LABELS, own)
    file.write_text("fine\n(\n")
    with pytest.raises(RecordError, match=r"patterns\.txt:2: not a regular expression"):
        filters.read_leak_patterns(file)


def test_a_text_may_be_had_by_so_many_images() -> None:
    repeats = filters.Repeats(max_images_per_text=2)
    chain = filters.Chain(REASONING, "awe", None)
    louder = filters.Chain({name: text.upper() for name, text in REASONING.items()}, "fear", None)
    for pixels in ("a", "b", "a", "b"):
        repeats.check(chain, pixels)
    with pytest.raises(Unusable) as caught:
        repeats.check(louder, "c")
    assert caught.value.reason == "repeated_reasoning"
    repeats.check(filters.Chain(REASONING | {"human": "Nobody is there."}, "awe", None), "c")
