"""What the model is asked: the published prompt, with and without a stated confidence."""

from collections.abc import Sequence
from typing import Any

SYSTEM_PROMPT = "You are a helpful assistant."

_QUESTION = "Which emotion might this image evoke? Choose the most likely one from {candidates}."
_FORMAT = (
    "Think step by step. Respond in the format: "
    "<think>{{your reasoning}}</think><answer>{{your final answer}}</answer>{confidence}"
)
_CONFIDENCE_FORMAT = "<confidence>{your confidence}</confidence>"


def user_prompt(candidates: Sequence[str], *, with_confidence: bool = True) -> str:
    """Give the text of the question, with the candidates listed as in the published prompt: `['a', 'b']`.

    Stage 1 asks without a confidence, later stages and inference with one.
    """
    if not candidates or isinstance(candidates, str):
        raise ValueError(f"candidates must be a list of at least one label, not {candidates!r}")
    question = _QUESTION.format(candidates=[str(candidate) for candidate in candidates])
    return f"{question} {_FORMAT.format(confidence=_CONFIDENCE_FORMAT if with_confidence else '')}"


def conversation(
    image: str, candidates: Sequence[str], *, with_confidence: bool = True
) -> list[dict[str, Any]]:
    """Give the `conversations` value of a record: one user message with an image, then the question.

    `image` is a path relative to the data root. The system prompt is not part of it: whoever renders the
    messages puts `SYSTEM_PROMPT` in front.
    """
    content = [
        {"type": "image", "image": image},
        {"type": "text", "text": user_prompt(candidates, with_confidence=with_confidence)},
    ]
    return [{"role": "user", "content": content}]


def training_chat(image: str, question: str, answer: str) -> dict[str, Any]:
    """Give one row of supervised fine-tuning as ms-swift reads it: `messages` and `images`."""
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": f"<image>{question}"},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages, "images": [image]}
