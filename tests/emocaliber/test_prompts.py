"""The question is the published one."""

import pytest

from emocaliber.prompts import SYSTEM_PROMPT, conversation, user_prompt


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
