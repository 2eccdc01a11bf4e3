"""The rewards, number by number, and what counts as well-formed and right by either reading."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber import response
from emocaliber.response import SECTIONS, render
from emocaliber.reward import (
    NO_CONFIDENCE,
    REWARD_KEYS,
    REWARDS,
    brier_reward,
    compute_reward,
    log_clipped_reward,
    log_score,
)
from emocaliber.scoring import score
from emocaliber.taxonomy import UNBIASED_6, WEBEMO_25

PREDICTIONS = Path(__file__).parents[1] / "golden" / "mini_responses.jsonl"
STEPS = {name: f"Something about the {name}." for name in SECTIONS}
JOY = render(STEPS, "joy", 0.8)
LOVE = render(STEPS, "love", 0.8)
THINK = render(STEPS, "x").removesuffix("<answer>x</answer>")
TAGS = [f"<{slash}{name}>" for name in ("think", "answer", "confidence", *SECTIONS) for slash in ("", "/")]
TEXTS = st.lists(
    st.sampled_from([*TAGS, THINK, "joy", "Joy.", "sad", "0.8", "85%", "85", "1", "0", "nan", "1e-999", "<"])
    | st.text(max_size=5),
    max_size=20,
).map("".join)


def reward(text, name="brier", truth="joy", candidates=UNBIASED_6, **options):
    return compute_reward(text, truth, candidates, name, **options)


def says(answer, confidence="0.8"):
    return f"{THINK}<answer>{answer}</answer><confidence>{confidence}</confidence>"


# numbers


@pytest.mark.parametrize(
    ("name", "right", "wrong", "malformed"),
    [
        # ln 0.8 = -0.223144, ln 0.2 = -1.609438
        ("emocaliber", 2 - 2 * 0.223144, 1 - 2 * 1.609438, -5),
        ("brier", 1 + 1 - 0.04, 1 - 0.64, -1),
        ("rlcr", 0.5 + 0.5 + 0.5 * 0.96, 0.5 + 0.5 * 0.36, 0),
        # ln 0.001 = -6.907755, ln 0.999 = -0.001001, their distance 6.906755
        ("rewarding_doubt", 10 * (6.684611 / 6.906755 + 0.25), 10 * 5.298317 / 6.906755, -30),
        # ln 0.01 = -4.605170
        ("log_clipped", 2 - 0.223144 / 4.605170, 1 - 1.609438 / 4.605170, -1),
    ],
)
def test_scores_by_hand(name, right, wrong, malformed):
    assert reward(JOY, name)["score"] == pytest.approx(right, abs=1e-5)
    assert reward(LOVE, name)["score"] == pytest.approx(wrong, abs=1e-5)
    assert reward("joy, 0.8", name)["score"] == malformed


def test_every_reward_is_worked_by_hand():
    assert set(REWARDS) == {"emocaliber", "brier", "rlcr", "rewarding_doubt", "log_clipped"}
    assert all(name == entry.name for name, entry in REWARDS.items())


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("emocaliber", (-5, -5, -5, -5)),
        ("brier", (2, 0, 1, 1)),
        ("rlcr", (1.5, 0.5, 1, 1)),
        ("rewarding_doubt", (12.5, 0, 2.5, 10)),
        ("log_clipped", (1 + 1 - 0.010050 / 4.605170, 0, 1, 1 - 0.010050 / 4.605170)),
    ],
)
@pytest.mark.parametrize("strict", [None, False])
def test_certainty(name, scores, strict):
    texts = [render(STEPS, answer, c) for c in (1, 0) for answer in ("joy", "love")]
    assert [reward(text, name, strict=strict)["score"] for text in texts] == pytest.approx(scores, abs=1e-5)


def test_the_other_keys_by_hand():
    expected = [1.96, 1, 1, 0.8, 0.04, math.log(0.8), 1]
    assert reward(JOY) == pytest.approx(dict(zip(REWARD_KEYS, expected, strict=True)))
    expected = [0.36, 1, 0, 0.8, 0.64, math.log(0.2), 1]
    assert reward(LOVE) == pytest.approx(dict(zip(REWARD_KEYS, expected, strict=True)))
    assert reward(render(STEPS, "love", 1))["log_score"] == pytest.approx(math.log(0.001))


def test_without_a_confidence_the_parts_have_their_worst_values():
    expected = [-1, 0, 1, NO_CONFIDENCE, 1, math.log(0.001), 1]
    assert reward(THINK + "<answer>joy</answer>") == pytest.approx(
        dict(zip(REWARD_KEYS, expected, strict=True))
    )
    assert reward("") == pytest.approx(
        dict(zip(REWARD_KEYS, [-1, 0, 0, NO_CONFIDENCE, 1, math.log(0.001), 0], strict=True))
    )


def test_log_score():
    assert log_score(True, 0.25) == math.log(0.25)
    assert log_score(False, 0.25) == math.log(0.75)
    assert log_score(True, 0, clip=0.01) == math.log(0.01)
    assert log_score(False, 1) == log_score(True, 0) == -math.inf


@given(st.booleans(), st.floats(0, 1))
def test_rlcr_is_brier_on_half_the_scale(correct, confidence):
    rlcr, brier = REWARDS["rlcr"], REWARDS["brier"]
    assert rlcr.payoff(correct, confidence) == pytest.approx(0.5 + 0.5 * brier.payoff(correct, confidence))
    assert rlcr.malformed == 0.5 + 0.5 * brier.malformed


def test_factories():
    assert brier_reward(0.5).payoff(True, 0.8) == pytest.approx(1 + 0.5 * 0.96)
    assert brier_reward(0.5).formula == "i + 0.5 (1 - (i - c)²)"
    assert log_clipped_reward(0.5, 0.1).payoff(False, 0.95) == pytest.approx(0)
    for factory in (brier_reward, log_clipped_reward):
        for weight in (0, 1.1, math.nan):
            with pytest.raises(ValueError, match="weight must lie in"):
                factory(weight)
    with pytest.raises(ValueError, match="clip must lie in"):
        log_clipped_reward(clip=0.5)


# readings: published (strict) and the evaluation's


@pytest.mark.parametrize(
    ("text", "published", "evaluation"),
    [  # each: (well-formed, right)
        (JOY, (1, 1), (1, 1)),
        (LOVE, (1, 0), (1, 0)),
        (says("Joy."), (1, 1), (1, 1)),
        (says("\n**JOY**\n"), (1, 1), (1, 1)),
        (says("joy and love"), (1, 0), (0, 0)),
        (says("the joy"), (1, 0), (1, 1)),
        (says("happiness"), (1, 0), (0, 0)),
        (says(""), (1, 0), (0, 0)),
        (says("joy", "1.0"), (0, 1), (1, 1)),
        (says("joy", "0"), (0, 1), (1, 1)),
        (says("joy", "85%"), (0, 1), (1, 1)),
        (says("joy", "85"), (0, 1), (0, 1)),
        (says("joy", "{0.8}"), (0, 1), (1, 1)),
        (says("joy", "high"), (0, 1), (0, 1)),
        (says("joy", "nan"), (0, 1), (0, 1)),
        (says("joy", "-0.5"), (0, 1), (0, 1)),
        (says("joy", " 0.8\n"), (1, 1), (1, 1)),
        (JOY.replace("</answer>", ""), (0, 0), (1, 1)),
        (JOY.replace("<answer>", ""), (0, 0), (0, 1)),
        (JOY.replace("</confidence>", ""), (0, 1), (0, 1)),
        (JOY.replace("<think>", ""), (0, 1), (0, 1)),
        (JOY.replace("<human>", ""), (0, 1), (0, 1)),
        (JOY.replace("human>", "context>"), (0, 1), (0, 1)),
        (JOY.replace(STEPS["human"], " "), (1, 1), (0, 1)),
        (JOY.replace("human>", "X>").replace("context>", "human>").replace("X>", "context>"), (1, 1), (0, 1)),
        (JOY.replace("<answer>", "<Answer>"), (0, 0), (1, 1)),
        (JOY.replace(STEPS["human"], "A man.\nHe laughs."), (1, 1), (1, 1)),
        (says("joy") + says("love"), (1, 1), (0, 0)),
        (JOY + "<answer>love</answer>", (1, 1), (1, 0)),
        (THINK + "joy <confidence>0.8</confidence>", (0, 0), (0, 1)),
        ("<answer>joy</answer><confidence>0.8</confidence>" + THINK, (1, 1), (0, 1)),
        (THINK + THINK + "<answer>joy</answer><confidence>0.8</confidence>", (1, 1), (0, 1)),
        ("Well: " + JOY + " That is all.", (1, 1), (1, 1)),
        ("", (0, 0), (0, 0)),
        (None, (0, 0), (0, 0)),
    ],
)
def test_both_readings(text, published, evaluation):
    for strict, expected in ((True, published), (False, evaluation)):
        got = reward(text, strict=strict)
        assert (got["format"], got["correct"]) == expected, strict
        assert (got["score"] < 0) == (not expected[0])


def test_a_synonym_is_as_good_as_the_label():
    text = render(STEPS, "sad", 0.8)
    assert reward(text, truth="sadness", strict=False)["correct"] == 1
    assert reward(text, truth="sadness", strict=False)["format"] == 1
    assert reward(text, truth="sadness", strict=True)["correct"] == 0


def test_a_distribution_is_no_confidence_to_be_paid_for():
    text = f"{THINK}<answer>joy</answer><distribution>joy: 0.8, love: 0.2</distribution>"
    assert all(reward(text, name)["format"] == 0 for name in REWARDS)


def test_the_published_reward_alone_is_strict_by_default():
    for name in REWARDS:
        assert reward(says("the joy"), name)["correct"] == (0 if name == "emocaliber" else 1)


def test_by_either_reading_the_published_reward_has_no_score_for_certainty():
    for confidence in ("0", "1", "0." + "9" * 30, "1e-400"):
        for strict in (True, False):
            got = reward(says("joy", confidence), "emocaliber", strict=strict)
            assert (got["format"], got["score"]) == (0, -5)


def test_the_truth_may_be_spelt_otherwise():
    text = render(STEPS, "irritabilty", 0.8)
    assert reward(text, truth="Irritability", candidates=WEBEMO_25)["correct"] == 1
    assert reward(JOY, "emocaliber", truth="Joy")["correct"] == 1


def test_candidates_as_parquet_gives_them():
    assert reward(JOY, candidates=np.array(UNBIASED_6, dtype=object)) == reward(JOY)
    assert reward(JOY, candidates=list(UNBIASED_6)) == reward(JOY)


def test_mistakes_are_told():
    with pytest.raises(
        ValueError, match=r"no reward is called 'briar'; choose one of emocaliber, brier, rlcr"
    ):
        reward(JOY, "briar")
    with pytest.raises(ValueError, match="truth 'awe' is not among the candidates"):
        reward(JOY, truth="awe")
    assert reward(JOY, "emocaliber", truth="awe", candidates=[])["correct"] == 0


# properties


@given(TEXTS, st.sampled_from(sorted(REWARDS)), st.sampled_from([None, True, False]))
def test_keys_never_vary_and_values_are_finite(text, name, strict):
    got = reward(text, name, strict=strict)
    assert tuple(got) == REWARD_KEYS
    assert all(type(value) is float and math.isfinite(value) for value in got.values())
    assert {got["format"], got["correct"], got["answered"]} <= {0, 1}
    assert got["confidence"] == NO_CONFIDENCE or 0 <= got["confidence"] <= 1
    assert 0 <= got["brier"] <= 1 and math.log(0.001) - 1e-9 <= got["log_score"] <= 0
    if not got["format"]:
        assert got["score"] == REWARDS[name].malformed
    else:
        assert got["answered"] or strict is not False
        assert got["score"] == REWARDS[name].payoff(bool(got["correct"]), got["confidence"])


@given(TEXTS)
def test_the_quick_way_through_the_parser_changes_nothing(text):
    by_any_way = [reward(text, strict=False), reward(says(text), strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "_AS_RENDERED", re.compile("(?!)"))
        assert [reward(text, strict=False), reward(says(text), strict=False)] == by_any_way


def test_right_is_what_the_evaluation_calls_right():
    records = [json.loads(line) for line in PREDICTIONS.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 396
    for record in records:
        scored = score(record)
        got = compute_reward(record["response"], record["ground_truth"], record["candidates"])
        assert got["correct"] == scored.correct
        assert got["answered"] == (scored.status == "answered")
        assert got["confidence"] == (NO_CONFIDENCE if scored.confidence is None else float(scored.confidence))


@pytest.mark.parametrize(
    "text", ["<think>", "<answer>joy</answer>", "<confidence>", "<element>", "joy ", "9"]
)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.usefixtures("in_linear_time")
def test_time_is_linear(text, strict):
    reward(THINK + text * (200_000 // len(text)) + "</answer><confidence>" + "9" * 100_000, strict=strict)
