"""Whatever matches a pattern is read without repairs, and the engine takes the pattern."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emocaliber.prompts import PROMPTS
from emocaliber.response import SECTIONS, parse, parse_distribution, render, response_pattern
from emocaliber.taxonomy import MIKELS_8, WEBEMO_25

ODD = ("quiet joy", "it's (not) complicated", "a+b|c", "喜び", "naïve", "sad", "oh, no", "great quiet joy")
LABEL_SETS = [("positive", "negative"), MIKELS_8, (*WEBEMO_25, "喜び", "it's [2]"), ODD, ("awe",)]
THINK = render({name: "A dog, asleep." for name in SECTIONS}, "x").removesuffix("<answer>x</answer>")


def example(name, labels, stated="0.00"):
    """A response of the prompt, to the letter."""
    prompt = PROMPTS[name]
    named = labels[:3] if prompt.elicits == "top_k" else labels
    tails = {
        "confidence": f"<confidence>{stated}</confidence>",
        "no_confidence": "",
        **dict.fromkeys(
            ("top_k", "distribution"),
            f"<distribution>{', '.join(f'{label}: {stated}' for label in named)}</distribution>",
        ),
    }
    return f"{THINK if prompt.has_reasoning else ''}<answer>{labels[-1]}</answer>{tails[prompt.elicits]}"


@pytest.mark.parametrize("labels", LABEL_SETS)
@pytest.mark.parametrize("name", PROMPTS)
def test_the_grammar_matches_and_nothing_near_it(name, labels):
    pattern = re.compile(response_pattern(name, labels))
    whole = example(name, labels)
    assert pattern.fullmatch(whole)
    broken = [
        *(whole + "x", whole[:-1], " " + whole, whole.replace("<answer>", "<answer>x")),
        whole.replace(": 0.00", ": 0.0").replace(">0.00<", ">1.01<") + "x" * (": 0" not in whole),
        whole.replace("A dog", " A dog").replace("A", "<", 1) + "x" * (not PROMPTS[name].has_reasoning),
    ]
    for text in broken:
        assert not pattern.fullmatch(text), text


def test_sections_are_filled_bounded_and_on_one_line():
    pattern = re.compile(response_pattern("published", ("awe",), longest_section=5))
    for text, matches in {
        **{"x": True, "xxxxx": True, "x y z": True, "é喜び": True, "xxxxxx": False, "": False},
        **{" ": False, "\u00a0": False, "\u200b": False, "\u3000x": False, "x\ny": False, "x\u2028": False},
        **{"x<y": False, "x>y": True, "\x1cx": False},
    }.items():
        response = THINK.replace("A dog, asleep.", text) + "<answer>awe</answer><confidence>1.00</confidence>"
        assert bool(pattern.fullmatch(response)) == matches, text


def test_sections_need_not_be_bounded():
    pattern = re.compile(response_pattern("without_confidence", ("awe",), longest_section=None))
    for text, matches in {"x": True, "x" * 9999: True, "": False, "x\ny": False}.items():
        response = THINK.replace("A dog, asleep.", text) + "<answer>awe</answer>"
        assert bool(pattern.fullmatch(response)) == matches, text


@pytest.mark.parametrize("labels", [("positive", "negative"), ODD])
@pytest.mark.parametrize("name", PROMPTS)
@given(data=st.data())
@settings(max_examples=40)
def test_every_match_is_read_without_repairs(name, labels, data):
    text = data.draw(st.from_regex(response_pattern(name, labels, longest_section=8), fullmatch=True))
    parsed, prompt = parse(text, labels), PROMPTS[name]
    assert f"<answer>{parsed.label}</answer>" in text
    assert list(parsed.reasoning) == (list(SECTIONS) if prompt.has_reasoning else [])
    repairs = parsed.flags - ({"malformed_reasoning"} if not prompt.has_reasoning else set())
    if prompt.elicits == "confidence":
        assert f"<confidence>{parsed.confidence}</confidence>" in text
        assert not repairs
    elif prompt.elicits == "no_confidence":
        assert (parsed.confidence_reason, repairs) == ("missing", set())
    else:
        found = parse_distribution(text, labels)
        allowed = {"sum_not_one"} if prompt.elicits == "distribution" else {"sum_not_one", "duplicate_label"}
        assert found.reason in {None, *allowed}
        assert found.flags <= {"partial", "renormalised"}
        assert repairs <= {"from_distribution", "renormalised"}
        assert ("from_distribution" in repairs) == (parsed.confidence is not None)


@pytest.mark.parametrize("label", ["a<b", "<b>", " awe", "awe ", "a\nb", "a: 1, b"])
def test_a_label_that_could_not_be_read_back_is_refused(label):
    with pytest.raises(ValueError, match="could not be read back"):
        response_pattern("distribution", ["fear", label])


def test_labels_that_a_distribution_cannot_tell_apart_are_refused():
    response_pattern("published", ["awe!", "awe！"])
    with pytest.raises(ValueError, match="could not be read back"):
        response_pattern("distribution", ["awe!", "awe！"])


def test_what_makes_no_pattern():
    with pytest.raises(KeyError):
        response_pattern("unheard of", ["awe"])
    with pytest.raises(ValueError, match="longest_section"):
        response_pattern("published", ["awe"], longest_section=0)
    for candidates in ([], "awe"):
        with pytest.raises(ValueError, match="candidates"):
            response_pattern("published", candidates)


@pytest.mark.parametrize("labels", LABEL_SETS)
@pytest.mark.parametrize("name", PROMPTS)
def test_the_engine_takes_it(name, labels):
    """xgrammar, which vLLM uses unless told otherwise, with a vocabulary of single bytes."""
    import xgrammar

    vocabulary = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    compiler = xgrammar.GrammarCompiler(
        xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[256]), max_threads=1
    )
    compiled = compiler.compile_regex(response_pattern(name, labels))
    whole = example(name, labels, "1.00")
    for text, is_accepted in ((whole, True), (whole.replace("<answer>", "<answer>x"), False)):
        assert xgrammar.GrammarMatcher(compiled).accept_string(text) == is_accepted
    matcher = xgrammar.GrammarMatcher(compiled)
    matcher.accept_string(whole)
    assert matcher.is_completed()
    matcher = xgrammar.GrammarMatcher(compiled)
    assert matcher.accept_string(whole[:-3])
    assert not matcher.is_completed()
