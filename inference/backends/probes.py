"""Confidences beyond the stated one: texts whose likelihood the model is asked for after its own response.

A probe is a continuation of a row's prompt, of which the last tokens are scored. Each confidence is made of
a few probes: the response up to `<answer>` with every candidate in turn, or a second question, whether the
answer is right, with "True" and "False".
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from emocaliber.response import parse
from inference.backends.backend import LIKELIHOOD, P_TRUE, Answer
from inference.backends.prepare import ChatTokenizer, Request

IS_IT_RIGHT = 'Is the answer "{label}" right? Reply with True or False only.'
_ANSWER_TAG = re.compile(r"<answer\s{0,8}>", re.IGNORECASE)
_END_OF_REASONING = re.compile(r"</think\s{0,8}>", re.IGNORECASE)


@dataclass(frozen=True)
class Probe:
    """Tokens after the prompt of a row; the log-probabilities of the last `n_scored` are wanted.

    `confidence` is one of `backend.CONFIDENCES`, `ending` the candidate, or "True" or "False".
    """

    confidence: str
    ending: str
    token_ids: list[int]
    n_scored: int


def probes(
    request: Request, response: str, confidences: Sequence[str], tokenizer: ChatTokenizer
) -> list[Probe]:
    """Give what has to be scored for these confidences; nothing for one that the response has no place for.

    Tokens are those of the whole continuation. Scored is what follows the longest beginning that all endings
    have in common, so that a token that spans a border is scored in every ending or in none.
    """
    found: list[Probe] = []
    if LIKELIHOOD in confidences:
        before = _up_to_answer(response)
        if before is not None:
            # Up to where the closing tag begins, so that "joy" is not the beginning of "joyful". Its end
            # would be another token than in a response: "><" with the tag that follows is one.
            texts = {label: f"{before}{label}</" for label in request.candidates}
            found += _probes(LIKELIHOOD, texts, tokenizer)
    if P_TRUE in confidences:
        label = parse(response, request.candidates).label
        if label is not None:
            before = _second_question(request, response, label, tokenizer)
            found += _probes(P_TRUE, {word: before + word for word in ("True", "False")}, tokenizer)
    return found


def askable(asked: Sequence[Probe], room: int, forbidden: Collection[int]) -> list[Probe]:
    """Leave out a confidence of which any probe cannot be asked; a part of its endings would say nothing.

    `room`: tokens that fit after the prompt, one of them for the engine's own. `forbidden`: tokens that stand
    for images and videos; a response or a candidate can spell them.
    """
    left_out = {
        probe.confidence
        for probe in asked
        if len(probe.token_ids) >= room or not set(forbidden).isdisjoint(probe.token_ids)
    }
    return [probe for probe in asked if probe.confidence not in left_out]


def with_confidences(
    answer: Answer, asked: Sequence[Probe], logprobs: Sequence[float], n_prompt: int
) -> Answer:
    """Put the summed log-probabilities (nats) of `asked` into an answer to a prompt of `n_prompt` tokens."""
    sums: dict[str, dict[str, float]] = {}
    tokens: dict[str, int] = {}
    for probe, logprob in zip(asked, logprobs, strict=True):
        # JSON has no infinity; no sum of real logits comes near this.
        sums.setdefault(probe.confidence, {})[probe.ending] = max(logprob, -1e6)
        tokens[probe.confidence] = tokens.get(probe.confidence, 0) + n_prompt + len(probe.token_ids)
    right = sums.get(P_TRUE)
    return replace(
        answer,
        candidate_logprobs=sums.get(LIKELIHOOD),
        p_true=None if right is None else _share(right["True"], right["False"]),
        confidence_tokens=tokens or None,
    )


def _share(true: float, false: float) -> float:
    """Give e^true / (e^true + e^false) without overflow."""
    if true >= false:
        return 1 / (1 + math.exp(false - true))
    odds = math.exp(true - false)
    return odds / (1 + odds)


def _probes(confidence: str, texts: dict[str, str], tokenizer: ChatTokenizer) -> list[Probe]:
    ids = {ending: tokenizer.encode_text(text) for ending, text in texts.items()}
    n_common = sum(
        1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*ids.values(), strict=False))
    )
    # One candidate alone, or one that is the beginning of another, still has its last token scored.
    n_common = min(n_common, *(len(one) - 1 for one in ids.values()))
    return [Probe(confidence, ending, one, len(one) - n_common) for ending, one in ids.items()]


def _up_to_answer(response: str) -> str | None:
    """Give the response up to the end of its last `<answer>`; without one, of its reasoning and that tag."""
    ends = [tag.end() for tag in _ANSWER_TAG.finditer(response)]
    if ends:
        return response[: ends[-1]]
    ends = [tag.end() for tag in _END_OF_REASONING.finditer(response)]
    return f"{response[: ends[-1]]}<answer>" if ends else None


def _second_question(request: Request, response: str, label: str, tokenizer: ChatTokenizer) -> str:
    """Give the text from the end of the prompt to where the model says whether its answer is right."""
    prompt = tokenizer.render(request.messages)
    asked = tokenizer.render(
        [
            *request.messages,
            {"role": "assistant", "content": response},
            {"role": "user", "content": IS_IT_RIGHT.format(label=label)},
        ]
    )
    # A template that rewrites what was said before (trims it, drops its reasoning) still has the question.
    return (
        asked[len(prompt) :]
        if asked.startswith(prompt)
        else f"{response}\n{IS_IT_RIGHT.format(label=label)}\n"
    )
