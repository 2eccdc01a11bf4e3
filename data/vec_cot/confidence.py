"""The confidence that a stage-2 chain states, by one of three methods, and the chain that states it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from data.vec_cot.filters import Chain, Limits, checked_chain
from data.vec_cot.rows import Row
from emocaliber.confidences import Majority, Sample, majority
from emocaliber.jsonl import RecordError
from emocaliber.prompts import training_chat, user_prompt
from emocaliber.records import Unusable, read_records, record_images
from emocaliber.response import parse, render

SQUEEZED = (0.50, 1.00)


def read_samples(path: Path) -> dict[str, list[str]]:
    """The samples of every row in the predictions of a stage-1 model; none of a row that has failed.

    Raises RecordError, also for `samples` that are no list of texts.
    """
    samples: dict[str, list[str]] = {}
    for row in read_records(path):
        written = [] if row.get("samples") is None else row["samples"]
        if not isinstance(written, list) or not all(isinstance(text, str) for text in written):
            raise RecordError(
                f"{path}: row {row['id']!r}: samples is not a list of texts; give the predictions of "
                "inference/infer.py --n-samples"
            )
        samples[row["id"]] = written
    return samples


def target_confidence(n_agreeing: int, n_samples: int) -> Decimal:
    """The squeezed agreement in hundredths; below 1 for less than 50 samples.

    The head of data/build_confidence_targets.py states the rule.
    """
    agreement = (n_agreeing + 0.5) / (n_samples + 1)
    return round(Decimal(SQUEEZED[0] + (SQUEEZED[1] - SQUEEZED[0]) * agreement), 2)


def most_named(texts: Sequence[str], candidates: Sequence[str]) -> Majority:
    """The label that most samples of a row conclude with. Of labels named equally often, the one named first.

    Confidences decide nothing: the stage-1 model, which is sampled, states none.
    """
    labels = [parse(text, candidates).label for text in texts]
    named = list(dict.fromkeys(label for label in labels if label is not None))
    return majority([Sample(label, None) for label in labels], named)


def chat_with_confidence(record: dict[str, Any], samples: Sequence[str]) -> dict[str, Any] | None:
    """The row's chain with the samples' conclusion and its confidence; None if no sample has a label.

    Raises RecordError for a record whose chain does not conclude with its ground truth.
    """
    truth, candidates = record.get("ground_truth"), record["candidates"]
    reasoning = record.get("reasoning")
    if not isinstance(reasoning, dict) or not str(reasoning.get("analysis")).endswith(f" {truth}."):
        raise RecordError(
            f"row {record['id']!r}: no `reasoning` that concludes with {truth!r}; give stage-2 rows"
        )
    voted = most_named(samples, candidates)
    if voted.label is None:
        return None
    concluded = reasoning | {"analysis": f"{reasoning['analysis'].removesuffix(f'{truth}.')}{voted.label}."}
    answer = render(concluded, voted.label, target_confidence(voted.n, len(samples)))
    chat = training_chat(record_images(record)[0], user_prompt(candidates), answer)
    return {key: record[key] for key in ("id", "task", "ground_truth")} | chat


AGREEMENT, TEACHER, CONSTANT = ("agreement", "teacher", "constant")


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
    Raises Unusable.
    """
    if method == CONSTANT:
        return Chain(chain.reasoning, chain.label, constant)
    if method == TEACHER:
        if chain.confidence is None:
            raise Unusable("no_confidence", "the teacher states no confidence in [0, 1]")
        return chain
    if row.id not in samples:
        raise Unusable("not_sampled", "sample the stage-1 model on stage2_records.jsonl")
    texts = samples[row.id]
    voted = most_named(texts, row.candidates)
    if (label := voted.label) is None:
        raise Unusable("no_sampled_label", f"none of {len(texts)} samples names a label")
    reasoning = chain.reasoning if label == chain.label else _own_words(texts, row, label, limits)
    return Chain(reasoning, label, target_confidence(voted.n, len(texts)))


def _own_words(texts: Sequence[str], row: Row, label: str, limits: Limits) -> dict[str, str]:
    why = ""
    for text in texts:
        try:
            return checked_chain(parse(text, row.candidates), text, label, limits).reasoning
        except Unusable as error:
            why = f"{error.reason}: {error}"
    raise Unusable("no_sampled_chain", f"most samples name {label}, none of them is sound; the last, {why}")
