"""What the model is asked: the published prompt and its variants, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from emocaliber.records import record_candidates, record_images

SYSTEM_PROMPT = "You are a helpful assistant."

TOP_K = 3
"""How many emotions `top_k` asks for; all of them where there are fewer."""

_QUESTION = "Which emotion might this image evoke? Choose the most likely one from {candidates}. "
_STEPS = "Think step by step. "
_THINK = "<think>{{your reasoning}}</think>"
_ANSWER = "<answer>{{your final answer}}</answer>"
_DISTRIBUTION = "<distribution>{{emotion}}: {{probability}}, {{emotion}}: {{probability}}, ...</distribution>"
_AFTER_THE_ANSWER = {
    "confidence": "<confidence>{{your confidence}}</confidence>",
    "no_confidence": "",
    "top_k": _DISTRIBUTION,
    "distribution": _DISTRIBUTION,
}
_TOP_K = (
    "Then give the {k} most likely ones, the most likely first, each with the probability from 0.00 to 1.00 "
    "that it is the right one. "
)
_ALL = (
    "Then give every emotion of the list, in its order, the probability from 0.00 to 1.00 that it is the "
    "right one; the probabilities sum to 1. "
)
_Elicited: TypeAlias = Literal["confidence", "no_confidence", "top_k", "distribution"]


@dataclass(frozen=True)
class Prompt:
    """A question about an image.

    `elicits`: what follows the label in the answer: a `confidence`, nothing (`no_confidence`), or a
    `<distribution>` over the `top_k` emotions or over all of them (`distribution`). `has_reasoning`: it asks
    for reasoning before the answer. `then`: what is asked for besides, before the format.
    """

    name: str
    elicits: _Elicited
    has_reasoning: bool
    then: str = ""

    @property
    def question(self) -> str:
        """Its text, a format string with `candidates` and, in `top_k`, `k`; braces to be seen are doubled."""
        steps, think = (_STEPS, _THINK) if self.has_reasoning else ("", "")
        respond = f"Respond in the format: {think}{_ANSWER}{_AFTER_THE_ANSWER[self.elicits]}"
        return f"{_QUESTION}{steps}{self.then}{respond}"


PROMPTS: Mapping[str, Prompt] = MappingProxyType(
    {
        prompt.name: prompt
        for prompt in (
            Prompt("published", "confidence", has_reasoning=True),
            Prompt("without_confidence", "no_confidence", has_reasoning=True),
            Prompt("without_reasoning", "confidence", has_reasoning=False),
            Prompt("top_k", "top_k", has_reasoning=False, then=_TOP_K),
            Prompt("distribution", "distribution", has_reasoning=True, then=_ALL),
        )
    }
)
"""The variants by name. `published` and `without_confidence` are the published prompts of inference and of
stage 1. `top_k` follows Tian et al. 2023 (arXiv 2305.14975), whose top-k prompts ask for guesses with
probabilities and no reasoning; a distribution over all labels is that of arXiv 2511.14275.
"""


def question(name: str, candidates: Sequence[str]) -> str:
    """Give the text of one of `PROMPTS`, with the candidates listed as in the published prompt: `['a', 'b']`.

    Raises KeyError for an unknown name, ValueError for candidates that are no list of labels.
    """
    if not candidates or isinstance(candidates, str):
        raise ValueError(f"candidates must be a list of at least one label, not {candidates!r}")
    labels = [str(candidate) for candidate in candidates]
    return PROMPTS[name].question.format(candidates=labels, k=min(TOP_K, len(labels)))


def user_prompt(candidates: Sequence[str], *, with_confidence: bool = True) -> str:
    """Give the text of the published question.

    Stage 1 asks without a confidence, later stages and inference with one.
    """
    return question("published" if with_confidence else "without_confidence", candidates)


def prompted(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Give `conversations` that ask one of `PROMPTS` about the images of a record, whatever its own ask.

    Raises RecordError for a record without images or candidates.
    """
    return _asked(record_images(record), question(name, record_candidates(record)))


def conversation(
    image: str, candidates: Sequence[str], *, with_confidence: bool = True
) -> list[dict[str, Any]]:
    """Give the `conversations` value of a record: one user message with an image, then the question.

    `image` is a path relative to the data root. The system prompt is not part of it: whoever renders the
    messages puts `SYSTEM_PROMPT` in front.
    """
    return _asked([image], user_prompt(candidates, with_confidence=with_confidence))


def _asked(images: Sequence[str], text: str) -> list[dict[str, Any]]:
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def training_chat(image: str, question: str, answer: str) -> dict[str, Any]:
    """Give one row of supervised fine-tuning as ms-swift reads it: `messages` and `images`."""
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": f"<image>{question}"},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages, "images": [image]}
