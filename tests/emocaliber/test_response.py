"""`parse` reads what `render` writes and what the pattern lets through; everything else has a value too."""

import re
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber import response
from emocaliber.prompts import PROMPTS
from emocaliber.response import SECTIONS, parse, parse_distribution, render, response_pattern
from emocaliber.taxonomy import MIKELS_8, WEBEMO_25

STEPS = {
    "element": "A black rabbit on a bed of straw.",
    "human": "There are no people.",
    "context": "An indoor enclosure.",
    "interaction": "The rabbit lies still,\nundisturbed.",
    "analysis": "The most likely emotion is contentment, not fear.",
}
THINK = render(STEPS, "x").removesuffix("<answer>x</answer>")
REASONS = {"no_answer", "ambiguous", "not_a_candidate"}
CONFIDENCE_REASONS = {
    *("missing", "not_a_number", "out_of_range"),
    *("unknown_label", "duplicate_label", "sum_not_one"),
}
FLAGS = {
    *("truncated", "fallback", "rescaled", "synonym", "malformed_reasoning"),
    *("from_distribution", "renormalised"),
}


def read(text, candidates=MIKELS_8):
    """Label or its reason, confidence or its reason, flags in order."""
    parsed = parse(text, candidates)
    return parsed.label or parsed.label_reason, parsed.confidence_reason, " ".join(sorted(parsed.flags))


def read_answer(text, candidates=MIKELS_8):
    parsed = parse(THINK + text, candidates)
    assert (parsed.label is None) == (parsed.label_reason is not None)
    return parsed.label or parsed.label_reason, " ".join(sorted(parsed.flags))


def read_confidence(text):
    parsed = parse(f"{THINK}<answer>awe</answer><confidence>{text}</confidence>", MIKELS_8)
    stated = parsed.confidence_reason if parsed.confidence is None else str(parsed.confidence)
    return stated, " ".join(sorted(parsed.flags))


# render


def test_render_to_the_character():
    reasoning = {name: f" {name[0]} \n" for name in reversed(SECTIONS)}
    assert render(reasoning, " awe ", 0.85) == (
        "<think><element>e</element><human>h</human><context>c</context><interaction>i</interaction>"
        "<analysis>a</analysis></think><answer>awe</answer><confidence>0.85</confidence>"
    )
    assert render(reasoning, "awe").endswith("</think><answer>awe</answer>")


@pytest.mark.parametrize(
    ("confidence", "written"),
    [(0, "0.00"), (1, "1.00"), (0.305, "0.31"), (Decimal("0.295"), "0.30"), (1e-9, "0.00"), (0.7, "0.70")],
)
def test_render_writes_two_decimals_rounding_half_up(confidence, written):
    assert render(STEPS, "awe", confidence).endswith(f"<confidence>{written}</confidence>")


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), float("inf"), Decimal("sNaN")])
def test_render_refuses_a_confidence_outside_0_1(confidence):
    with pytest.raises(ValueError, match="confidence must lie in"):
        render(STEPS, "awe", confidence)


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ({name: "x" for name in SECTIONS[:-1]}, "awe"),
        ({**STEPS, "mood": "x"}, "awe"),
        ({**STEPS, "human": "  "}, "awe"),
        ({**STEPS, "human": "</THINK>"}, "awe"),
        (STEPS, ""),
        (STEPS, "<answer>awe"),
    ],
)
def test_render_refuses_what_could_not_be_read_back(reasoning, answer):
    with pytest.raises(ValueError, match="must"):
        render(reasoning, answer)


# what parse reads


def test_parse_reads_everything():
    parsed = parse(render(STEPS, "contentment", 0.85), MIKELS_8)
    assert parsed.label == "contentment"
    assert parsed.label_reason is None
    assert parsed.confidence == Decimal("0.85")
    assert parsed.confidence_reason is None
    assert parsed.flags == frozenset()
    assert parsed.reasoning == STEPS


def test_stage_1_has_no_confidence():
    assert read(render(STEPS, "awe")) == ("awe", "missing", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>awe</answer>", ("awe", "")),
        ("<ANSWER>Awe.</Answer >", ("awe", "")),
        ("\n<answer>\n  **Awe**\n</answer>\n", ("awe", "")),
        ("<answer>the feeling\nis awe\n</answer>", ("awe", "")),
        ("<answer>\\boxed{awe}</answer>", ("awe", "")),
        ("<answer><b>awe</b></answer>", ("awe", "")),
        ("<answer>sad</answer>", ("sadness", "synonym")),
        ("<answer>I am sad</answer>", ("sadness", "synonym")),
        ("<answer>content</answer>", ("contentment", "synonym")),
        ("<answer>awesome</answer>", ("not_a_candidate", "")),
        ("<answer>happiness</answer>", ("not_a_candidate", "")),
        ("<answer>awe or fear</answer>", ("ambiguous", "")),
        ("<answer></answer>", ("no_answer", "")),
        ("<answer> ... </answer>", ("no_answer", "")),
        ("<answer>awe</answer> or <answer>fear</answer>", ("fear", "")),
        ("<answer><answer>awe</answer></answer>", ("awe", "")),
        ("<answer>awe</answer><answer></answer>", ("no_answer", "")),
        ("<answer>awe<confidence>0.5</confidence>", ("awe", "")),
        ("<answer>a<think>or fear</think>we</answer>", ("not_a_candidate", "malformed_reasoning")),
        ("<answer>awe<think>or fear</think></answer>", ("awe", "malformed_reasoning")),
        ("<answer>awe</answer><think>no: <answer>fear</answer></think>", ("awe", "malformed_reasoning")),
        ("<answer>awe</answer></think>", ("awe", "malformed_reasoning")),
        ("< answer>awe</answer>", ("awe", "fallback")),
        ("", ("no_answer", "")),
    ],
)
def test_answers(text, expected):
    assert read_answer(text) == expected


def test_misspelt_labels_of_the_data_set():
    assert read_answer("<answer>cheerfulness</answer>", WEBEMO_25) == ("cheerfullness", "synonym")
    assert read_answer("<answer>irritability</answer>", WEBEMO_25) == ("irritabilty", "synonym")
    assert read_answer("<answer>irritabilty</answer>", WEBEMO_25) == ("irritabilty", "")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("joy", "joy"),
        ("great joy", "great joy"),
        ("a great joy", "great joy"),
        ("joy; great joy", "ambiguous"),
    ],
)
def test_candidates_of_several_words(answer, expected):
    assert read_answer(f"<answer>{answer}</answer>", ["joy", "great joy"])[0] == expected


def test_without_candidates_nothing_is_one():
    assert read_answer("<answer>awe</answer>", [])[0] == "not_a_candidate"


def test_an_empty_answer_is_not_looked_for_elsewhere():
    assert read_answer("awe <answer></answer> awe")[0] == "no_answer"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I see awe.", ("awe", "fallback malformed_reasoning")),
        ("So sad", ("sadness", "fallback malformed_reasoning synonym")),
        (THINK + "Awe", ("awe", "fallback")),
        (THINK + "awe</answer>", ("awe", "fallback")),
        (THINK + "Awe, perhaps fear", ("ambiguous", "")),
        (THINK + "Hard to say", ("no_answer", "")),
        (THINK + "<confidence>fear 0.8</confidence> awe", ("awe", "fallback")),
        ("fear</think>awe", ("awe", "fallback malformed_reasoning")),
        ("<analysis>fear</analysis>awe", ("awe", "fallback malformed_reasoning")),
        ("<analysis>fear, no, awe", ("no_answer", "malformed_reasoning truncated")),
        ("<think>fear, no, awe", ("no_answer", "malformed_reasoning truncated")),
        ("<think><element>a</element> awe", ("no_answer", "malformed_reasoning truncated")),
        ("<think>fear</think>", ("no_answer", "malformed_reasoning")),
    ],
)
def test_fallback_reads_only_what_follows_the_reasoning(text, expected):
    label, _, flags = read(text)
    assert (label, flags) == expected


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<think><answer>fear</answer></think>", "no_answer"),
        ("<think><answer>fear</answer></think><answer>awe</answer>", "awe"),
        ("<answer>awe</answer><think><answer>fear</answer></think>", "awe"),
        ("<think>a<think>b</think><answer>fear</answer></think>", "no_answer"),
        ("<think>a<think>b</think><answer>awe</answer>", "awe"),
        ("<THINK>a</tHinK><answer>awe</answer>", "awe"),
        ("<think>never closed<answer>awe</answer>", "awe"),
        ("<think>a <answer>fear</answer> b <answer>awe</answer>", "awe"),
    ],
)
def test_answers_inside_the_reasoning_do_not_count(text, label):
    assert read(text)[0] == label


def test_confidences_inside_the_reasoning_do_not_count():
    assert parse("<think><confidence>0.3</confidence></think>awe", MIKELS_8).confidence_reason == "missing"


# what is cut off


@pytest.mark.parametrize(
    ("text", "label", "confidence"),
    [
        ("<answer>awe</answer><confidence>0.85</confid", "awe", "0.85"),
        ("<answer>awe</answer><confidence>0.8", "awe", "0.8"),
        ("<answer>awe</answer><confidence>0.", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>0", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>1\n", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>8", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>{85", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>5e-1", "awe", "not_a_number"),
        ("<answer>awe</answer><confidence>.8", "awe", "0.8"),
        ("<answer>awe</answer><confidence>{85 %", "awe", "0.85"),
        ("<answer>awe</answer><confidence>", "awe", "missing"),
        ("<answer>awe</answer><conf", "awe", "missing"),
        ("<answer>awe</answer><", "awe", "missing"),
        ("<answer>awe</answer><conf \n", "awe", "missing"),
        ("<answer>awe</an", "awe", "missing"),
        ("<answer>awe", "awe", "missing"),
        ("<answer>aw", "not_a_candidate", "missing"),
        ("<answer>", "no_answer", "missing"),
        ("<answer>awe</answer><confidence>0.7</confidence><answer>", "awe", "0.7"),
        ("<answer>awe</answer><confidence>0.7</confidence><confidence>", "awe", "0.7"),
    ],
)
def test_cut_off_texts_are_read_and_flagged(text, label, confidence):
    parsed = parse(THINK + text, MIKELS_8)
    assert (parsed.label or parsed.label_reason) == label
    assert (parsed.confidence_reason or str(parsed.confidence)) == confidence
    assert parsed.flags == {"truncated"}


def test_every_beginning_of_an_answer_is_flagged_or_ends_with_a_closed_element():
    text = render(STEPS, "awe", 0.85)
    whole = [len(THINK), len(THINK + "<answer>awe</answer>"), len(text)]
    for length in range(1, len(text) + 1):
        assert ("truncated" in parse(text[:length], MIKELS_8).flags) == (length not in whole), text[:length]


@pytest.mark.parametrize(
    "text", ["", "awe", "<answer>awe</answer> a < b", "<b", "<answer>awe<confidence>1</confidence>"]
)
def test_whole_texts_are_not_flagged_truncated(text):
    assert "truncated" not in parse(text, MIKELS_8).flags


# confidence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.85", ("0.85", "")),
        (".85", ("0.85", "")),
        ("85%", ("0.85", "")),
        ("85 %", ("0.85", "")),
        ("{0.85}", ("0.85", "")),
        ("{85%}.", ("0.85", "")),
        ("0.85.", ("0.85", "")),
        (" \n**0.85**\t", ("0.85", "")),
        ("0.850", ("0.850", "")),
        ("+0.5", ("0.5", "")),
        ("0", ("0", "")),
        ("0.", ("0", "")),
        ("-0.0", ("0.0", "")),
        ("1", ("1", "")),
        ("1.0", ("1.0", "")),
        ("100%", ("1.00", "")),
        ("1%", ("0.01", "")),
        ("0.85%", ("0.0085", "")),
        ("5e-1", ("0.5", "")),
        ("\uff10\uff0e\uff18\uff15", ("0.85", "")),
        ("\uff18\uff15\uff05", ("0.85", "")),
        ("85", ("0.85", "rescaled")),
        ("100", ("1.00", "rescaled")),
        ("1.01", ("0.0101", "rescaled")),
        ("100.5", ("out_of_range", "")),
        ("101", ("out_of_range", "")),
        ("150%", ("out_of_range", "")),
        ("-0.5", ("out_of_range", "")),
        ("-5%", ("out_of_range", "")),
        ("1e400", ("out_of_range", "")),
        ("1e99999", ("not_a_number", "")),
        ("NaN", ("not_a_number", "")),
        ("inf", ("not_a_number", "")),
        ("-Infinity", ("not_a_number", "")),
        ("0,85", ("not_a_number", "")),
        ("0.8.5", ("not_a_number", "")),
        ("0.8/1", ("not_a_number", "")),
        ("0.8 0.9", ("not_a_number", "")),
        ("about 0.8", ("not_a_number", "")),
        ("high", ("not_a_number", "")),
        (".", ("not_a_number", "")),
        ("%", ("not_a_number", "")),
        ("1_0", ("not_a_number", "")),
        ("٠.٨", ("not_a_number", "")),
        ("²", ("not_a_number", "")),
        ("0." + "8" * 62, ("0." + "8" * 62, "")),
        ("0." + "8" * 63, ("not_a_number", "")),
        ("", ("missing", "")),
        (" ", ("missing", "")),
    ],
)
def test_confidences(text, expected):
    assert read_confidence(text) == expected


def test_the_last_confidence_counts_even_if_it_is_none():
    assert read_confidence("0.3</confidence> <confidence>0.9") == ("0.9", "")
    assert read_confidence("0.3</confidence> <confidence>high") == ("not_a_number", "")


def test_a_confidence_before_the_answer_counts():
    parsed = parse(THINK + "<confidence>0.4</confidence><answer>awe</answer>", MIKELS_8)
    assert (parsed.label, parsed.confidence) == ("awe", Decimal("0.4"))


def test_percent_is_exact_whatever_the_decimal_context():
    digits = "12.3456789012345678901234567890123456789"
    with localcontext() as context:
        context.prec = 3
        assert read_confidence(digits)[0] == "0.123456789012345678901234567890123456789"


# reasoning


@pytest.mark.parametrize(
    "text",
    [
        "<answer>awe</answer>",
        "<think>free thoughts</think><answer>awe</answer>",
        THINK.replace("<think>", "") + "<answer>awe</answer>",
        THINK.replace("</think>", "") + "<answer>awe</answer>",
        THINK.replace("There are no people.", " ") + "<answer>awe</answer>",
        THINK.replace("</human>", "") + "<answer>awe</answer>",
        THINK.replace("human>", "context>") + "<answer>awe</answer>",
        THINK.replace("no people", "<answer>fear</answer>") + "<answer>awe</answer>",
        THINK + THINK + "<answer>awe</answer>",
        THINK + "<answer>awe</answer><human>a man</human>",
    ],
)
def test_malformed_reasoning_is_flagged_and_the_answer_still_read(text):
    assert read(text) == ("awe", "missing", "malformed_reasoning")


def test_sections_out_of_order_are_malformed():
    sections = "".join(f"<{name}>x</{name}>" for name in reversed(SECTIONS))
    parsed = parse(f"<think>{sections}</think><answer>awe</answer>", MIKELS_8)
    assert parsed.flags == {"malformed_reasoning"}
    assert parsed.reasoning == dict.fromkeys(SECTIONS, "x")


def test_white_space_and_case_of_the_reasoning_are_free():
    text = THINK.replace(">", " >\n").replace("<human", "\n <HUMAN")
    assert read(text + "<answer>awe</answer>") == ("awe", "missing", "")


def test_sections_that_were_found_are_given():
    parsed = parse("<think><element>a cat</element><human>nobo", MIKELS_8)
    assert parsed.reasoning == {"element": "a cat", "human": "nobo"}


# properties

FRAGMENTS = [
    f"<{slash}{name}>"
    for name in ("think", "answer", "confidence", "distribution", *SECTIONS)
    for slash in ("", "/")
]
FRAGMENTS += [
    "<distribution>awe: 0.9</distribution>",
    "fear: 0.25, ",
    ": 1",
    "awe",
    " fear ",
    "sad",
    "0.85",
    "85%",
    "<",
    "</",
    ">",
    "<Answer >",
    "\n",
    "-",
    "\ud800",
    ".",
]
CONFUSING = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=30).map("".join)
# Free text between tags: anything but the tags themselves, with something in it after stripping.
PROSE = st.text(min_size=1).map(str.strip).filter(lambda text: text and "<" not in text)


@given(st.fixed_dictionaries(dict.fromkeys(SECTIONS, PROSE)), st.sampled_from(MIKELS_8), st.integers(0, 100))
def test_round_trip(reasoning, label, percent):
    parsed = parse(render(reasoning, label, Decimal(percent) / 100), MIKELS_8)
    assert (parsed.label, parsed.confidence, parsed.flags) == (label, Decimal(percent) / 100, frozenset())
    assert parsed.reasoning == reasoning


@given(CONFUSING | st.text(), st.lists(st.text(max_size=6) | st.sampled_from(MIKELS_8), max_size=5))
def test_total(text, candidates):
    parsed = parse(text, candidates)
    assert (parsed.label in candidates) if parsed.label_reason is None else parsed.label is None
    assert parsed.label_reason in {None, *REASONS}
    assert (parsed.confidence is None) == (parsed.confidence_reason is not None)
    assert parsed.confidence_reason in {None, *CONFIDENCE_REASONS}
    assert parsed.confidence is None or 0 <= parsed.confidence <= 1
    assert parsed.flags <= FLAGS
    assert all(
        name in SECTIONS and section.strip() == section != "" for name, section in parsed.reasoning.items()
    )
    assert parse(text, candidates) == parsed


@given(CONFUSING)
def test_rendering_what_was_read_changes_nothing(text):
    parsed = parse(text, MIKELS_8)
    if parsed.label is None or parsed.confidence is None or set(parsed.reasoning) != set(SECTIONS):
        return
    again = parse(render(parsed.reasoning, parsed.label, parsed.confidence), MIKELS_8)
    assert (again.label, again.reasoning) == (parsed.label, parsed.reasoning)
    assert not again.flags
    assert abs(again.confidence - parsed.confidence) <= Decimal("0.005")


@given(CONFUSING.filter(lambda text: "</think>" not in text.lower()))
def test_reasoning_never_decides(thoughts):
    """Whatever stands between the think tags, the answer after them is the same."""
    parsed = parse(f"<think>{thoughts}</think><answer>awe</answer><confidence>0.5</confidence>", MIKELS_8)
    assert (parsed.label, parsed.confidence) == ("awe", Decimal("0.5"))


@pytest.mark.parametrize("text", [None, 7, ["awe"], b"<answer>awe</answer>"])
def test_what_is_no_text_says_nothing(text):
    parsed = parse(text, MIKELS_8)
    assert (parsed.label_reason, parsed.confidence_reason) == ("no_answer", "missing")


@pytest.mark.parametrize("text", ["None", "null", "nan", "\x00", "\ud800", "<", ">", "</", "<>", "\u202e"])
def test_odd_texts_say_nothing(text):
    assert read(text)[:2] == ("no_answer", "missing")


@pytest.mark.usefixtures("in_linear_time")
@pytest.mark.parametrize("length", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "<",
            "</",
            "<think>",
            "</think>",
            "<think></think>",
            "<answer>",
            "<answer>awe</answer>",
            "</answer>",
        ),
        *("<element>", "<confidence>", "<confidence>0.8</confidence>", "awe ", "sad, ", "a-", " ", "\n"),
        *("a\u0316\u0301", "\u0316\u0301", "<answer" + " " * 9, "\ud800", "9", "<think><answer>awe"),
    ],
)
@pytest.mark.parametrize(
    "frame",
    [
        *("{}", "<answer>{}</answer>", "<confidence>{}</confidence>"),
        *(f"{THINK}<answer>awe</answer>{{}}", f"{THINK.replace('straw.', '{}')}<answer>awe</answer> more"),
    ],
)
def test_long_texts_take_linear_time(unit, frame, length):
    parse(frame.format(unit * (length // len(unit))), MIKELS_8)


SPACES = st.text(alphabet=" \n\t\u00a0\x1c", max_size=2)
WORDS = st.one_of(
    st.text(alphabet='ab \n>/"&', max_size=6), st.sampled_from(("awe", "fear", "0.85", "85%", "<"))
)


@given(
    spaces=st.lists(SPACES, min_size=10, max_size=10),
    texts=st.lists(WORDS, min_size=7, max_size=7),
    has_confidence=st.booleans(),
    after=st.sampled_from(("", "x", "<", "<|im_end|>", "</think>")),
)
def test_an_answer_to_the_letter_is_read_as_any_other(spaces, texts, has_confidence, after):
    """The short way for answers that follow the grammar gives what the long way gives."""
    gap = iter(spaces)
    sections = next(gap).join(
        f"<{name}>{text}</{name}>" for name, text in zip(SECTIONS, texts[:5], strict=True)
    )
    text = f"{next(gap)}<think>{next(gap)}{sections}{next(gap)}</think>{next(gap)}<answer>{texts[5]}</answer>"
    if has_confidence:
        text += f"{next(gap)}<confidence>{texts[6]}</confidence>"
    text += next(gap) + after
    short = parse(text, ["awe", "fear", "ab"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "_AS_RENDERED", re.compile("(?!)"))
        assert parse(text, ["awe", "fear", "ab"]) == short


# The pattern: whatever matches it is read without repairs, and the engine takes it

ODD = ("quiet joy", "it's (not) complicated", "a+b|c", "喜び", "naïve", "sad", "oh, no", "great quiet joy")
LABEL_SETS = [("positive", "negative"), MIKELS_8, (*WEBEMO_25, "喜び", "it's [2]"), ODD, ("awe",)]
SLEEPS = render({name: "A dog, asleep." for name in SECTIONS}, "x").removesuffix("<answer>x</answer>")


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
    return f"{SLEEPS if prompt.has_reasoning else ''}<answer>{labels[-1]}</answer>{tails[prompt.elicits]}"


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
        response = (
            SLEEPS.replace("A dog, asleep.", text) + "<answer>awe</answer><confidence>1.00</confidence>"
        )
        assert bool(pattern.fullmatch(response)) == matches, text


def test_sections_need_not_be_bounded():
    pattern = re.compile(response_pattern("without_confidence", ("awe",), longest_section=None))
    for text, matches in {"x": True, "x" * 9999: True, "": False, "x\ny": False}.items():
        response = SLEEPS.replace("A dog, asleep.", text) + "<answer>awe</answer>"
        assert bool(pattern.fullmatch(response)) == matches, text


@pytest.mark.parametrize("labels", [("positive", "negative"), ODD])
@pytest.mark.parametrize("name", PROMPTS)
@given(data=st.data())
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


@pytest.mark.slow
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
