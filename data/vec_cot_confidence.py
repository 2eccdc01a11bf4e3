"""The confidence that a stage-2 chain states, by one of three methods, and the chain that states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from build_confidence_targets import majority, target_confidence
from vec_cot_filters import Chain, Dropped, Limits, checked_chain
from vec_cot_rows import Row

from emocaliber.response import parse

AGREEMENT, TEACHER, CONSTANT = METHODS = ("agreement", "teacher", "constant")


def with_confidence(
    method: str,
    row: Row,
    chain: Chain,
    *,
    constant: Decimal,
    samples: Mapping[str, Sequence[str]],
    limits: Limits,
) -> Chain:
    """The stage-2 chain of a row, its confidence set.

    `constant`: the same for all. `teacher`: what the teacher stated. `agreement`: the rule at the head of
    build_confidence_targets.py over the samples of a stage-1 model. Where most of them name the chain's
    label, the chain stays; where they name another one, the row concludes with that, in the words of the
    first sample that names it and is sound: the model's own doubt is what the confidence speaks of.
    Raises Dropped.
    """
    if method == CONSTANT:
        return Chain(chain.reasoning, chain.label, constant)
    if method == TEACHER:
        if chain.confidence is None:
            raise Dropped("no_confidence", "the teacher states no confidence in [0, 1]")
        return chain
    if row.id not in samples:
        raise Dropped("not_sampled", "sample the stage-1 model on stage2_records.jsonl")
    texts = samples[row.id]
    parsed = [parse(text, row.candidates) for text in texts]
    voted = majority([one.label for one in parsed])
    if voted is None:
        raise Dropped("no_sampled_label", f"none of {len(texts)} samples names a label")
    label, agreeing = voted
    reasoning = chain.reasoning if label == chain.label else _own_words(texts, row, label, limits)
    return Chain(reasoning, label, target_confidence(agreeing, len(texts)))


def _own_words(texts: Sequence[str], row: Row, label: str, limits: Limits) -> dict[str, str]:
    why = ""
    for text in texts:
        try:
            return checked_chain(parse(text, row.candidates), text, label, limits).reasoning
        except Dropped as error:
            why = f"{error.reason}: {error}"
    raise Dropped("no_sampled_chain", f"most samples name {label}, none of them is sound; the last, {why}")
