"""The questions, the published ones to the character."""

import pytest

from emocaliber.prompts import PROMPTS, SYSTEM_PROMPT, conversation, prompted, question, user_prompt
from emocaliber.records import RecordError


def test_prompt_without_confidence_to_the_character():
    assert user_prompt(["positive", "negative"], with_confidence=False) == (
        "Which emotion might this image evoke? Choose the most likely one from ['positive', 'negative']. "
        "Think step by step. Respond in the format: "
        "<think>{your reasoning}</think><answer>{your final answer}</answer>"
    )


def test_confidence_is_asked_for_after_the_answer():
    without = user_prompt(("joy",), with_confidence=False)
    assert user_prompt(("joy",)) == without + "<confidence>{your confidence}</confidence>"


def test_braces_in_labels_are_kept():
    assert "['{joy}', \"it's\"]" in user_prompt(["{joy}", "it's"])


@pytest.mark.parametrize("candidates", [[], "joy"])
def test_candidates_must_be_a_list(candidates):
    with pytest.raises(ValueError, match="candidates must be a list"):
        user_prompt(candidates)


def test_conversation_is_one_user_message_image_first():
    assert conversation("images/a.jpg", ["joy", "fear"], with_confidence=False) == [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "images/a.jpg"},
                {"type": "text", "text": user_prompt(["joy", "fear"], with_confidence=False)},
            ],
        }
    ]
    assert conversation("a.jpg", ["joy"])[0]["content"][1]["text"] == user_prompt(["joy"])
    assert SYSTEM_PROMPT == "You are a helpful assistant."


# The variants

RECORD = {
    "images": ["a.jpg", "b.jpg"],
    "candidates": ["{joy}", "fear", "awe", "anger"],
    "conversations": [{"role": "user", "content": "Something else?"}],
}
LISTED = "['{joy}', 'fear', 'awe', 'anger']"
CHOOSE = f"Which emotion might this image evoke? Choose the most likely one from {LISTED}. "
DISTRIBUTION = "<distribution>{emotion}: {probability}, {emotion}: {probability}, ...</distribution>"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("published", user_prompt(RECORD["candidates"])),
        ("without_confidence", user_prompt(RECORD["candidates"], with_confidence=False)),
        (
            "without_reasoning",
            f"{CHOOSE}Respond in the format: "
            "<answer>{your final answer}</answer><confidence>{your confidence}</confidence>",
        ),
        (
            "top_k",
            f"{CHOOSE}Then give the 3 most likely ones, the most likely first, each with the probability "
            "from 0.00 to 1.00 that it is the right one. Respond in the format: "
            f"<answer>{{your final answer}}</answer>{DISTRIBUTION}",
        ),
        (
            "distribution",
            f"{CHOOSE}Think step by step. Then give every emotion of the list, in its order, the probability "
            "from 0.00 to 1.00 that it is the right one; the probabilities sum to 1. Respond in the format: "
            f"<think>{{your reasoning}}</think><answer>{{your final answer}}</answer>{DISTRIBUTION}",
        ),
    ],
)
def test_a_variant_asks_about_the_images_of_a_record_whatever_it_asks_itself(name, text):
    images = [{"type": "image", "image": image} for image in RECORD["images"]]
    assert prompted(RECORD, name) == [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def test_every_variant_says_what_it_asks_for():
    tags = {"confidence": "<confidence>", "top_k": "<distribution>", "distribution": "<distribution>"}
    for name, prompt in PROMPTS.items():
        text = question(name, ["joy", "fear"])
        assert prompt.name == name
        assert prompt.has_reasoning == ("<think>" in text) == ("Think step by step" in text)
        assert [tag for tag in ("<confidence>", "<distribution>") if tag in text] == (
            [tags[prompt.elicits]] if prompt.elicits in tags else []
        )


def test_no_more_emotions_are_asked_for_than_there_are():
    assert "Then give the 2 most likely ones" in question("top_k", ["joy", "fear"])


def test_what_cannot_be_asked():
    with pytest.raises(KeyError):
        prompted(RECORD, "unheard of")
    with pytest.raises(RecordError, match="no candidates"):
        prompted({"image": "a.jpg"}, "published")
    with pytest.raises(RecordError, match="no image"):
        prompted({"candidates": ["joy"], "conversations": []}, "published")
