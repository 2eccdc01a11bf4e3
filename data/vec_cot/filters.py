"""Which teacher answers become chains: every other one has a reason by which it is counted and listed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from emocaliber.jsonl import RecordError
from emocaliber.records import Unusable
from emocaliber.response import SECTIONS, ParsedResponse, parse
from emocaliber.taxonomy import normalise_label

REASONS = {
    "teacher_error": "no answer after all retries; the same command asks again",
    "teacher_refused": "the teacher declined, or its provider withheld the answer",
    "answer_cut_off": "the answer reached the limit of tokens",
    "malformed": "not the five sections, each once, filled and in order, then an answer",
    "no_label": "the answer names none of the candidates, or several",
    "wrong_label": "told the label, the teacher concludes with another one",
    "label_disagrees": "asked blind, the teacher concludes with another label than the truth",
    "label_leaked": "the reasoning speaks of a label that was given",
    "section_too_short": "a section of fewer words than the limit",
    "section_too_long": "a section of more words or characters than the limit",
    "repeated_reasoning": "the same text for more images than the limit, of the teacher or of a sample",
    "no_confidence": "stage 2: the teacher states no confidence in [0, 1]",
    "not_sampled": "stage 2: the samples of the stage-1 model lack this row",
    "no_sampled_label": "stage 2: no sample names a label",
    "no_sampled_chain": "stage 2: the samples' label has no sound chain in any sample",
}
"""Why an answer, which is then `Unusable`, is left out."""

WITHOUT_LABEL = ("teacher_refused", "answer_cut_off", "malformed", "no_label")
"""Reasons of answers in which no label is read."""

LEAK_PATTERNS = (
    r"\b(?:given|provided|supplied|assigned|stated|specified|target|correct|expected|true|known)"
    r"\s+(?:emotion\s+)?(?:label|answer|annotation|ground[- ]truth)\b",
    r"\bground[- ]?truth\b",
    r"\b(?:the|its|this) (?:label|answer|annotation) (?:is|was|has been|says|states|being) "
    r"(?:already )?(?:given|provided|known|stated|assigned)\b",
    r"\bas (?:instructed|told|requested|labell?ed|annotated|(?:provided|specified|stated|given)(?! by))\b",
    r"\b(?:i|we) (?:was|were|am|are|have been) (?:told|given|informed|instructed|asked)\b",
    r"\baccording to the (?:label|annotation|instructions?|prompt|answer)\b",
    r"\b(?:the|your|this) (?:prompt|annotators?)\b",
    r"\bwas named most\b",
)
"""Words of somebody who was told the answer. Matched whatever the case, in the reasoning only."""

_REFUSAL = re.compile(
    r"\s*(?:(?:i am|i[’']m) (?:sorry|unable|not able)|sorry,|i apologi[sz]e|i can(?:no|[’'])t)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Limits:
    """Settings of the filters. Words and characters are those of one section."""

    blind: bool
    min_words: int
    max_words: int
    max_characters: int
    leak_patterns: tuple[re.Pattern[str], ...]


@dataclass(frozen=True)
class Chain:
    """A reasoning that passed, its label, and the confidence that was stated with it, if one was."""

    reasoning: dict[str, str]
    label: str
    confidence: Decimal | None


def read_leak_patterns(path: Path | None) -> tuple[re.Pattern[str], ...]:
    """The patterns of a file, one a line, in place of LEAK_PATTERNS. Raises RecordError."""
    if path is None:
        lines: Sequence[str] = LEAK_PATTERNS
    else:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RecordError(f"{path}: cannot be read ({reason}); give one pattern a line") from None
    patterns = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                patterns.append(re.compile(line.strip(), re.IGNORECASE))
            except re.error as error:
                raise RecordError(f"{path}:{number}: not a regular expression ({error}); mend it") from None
    return tuple(patterns)


def chain_of(answer: dict[str, Any], truth: str, candidates: Sequence[str], limits: Limits) -> Chain:
    """The chain in a teacher's answer, as it is kept in the raw answers. Raises Unusable."""
    if "error" in answer:
        raise Unusable("teacher_error", f"{answer['error']['type']}: {answer['error']['message']}")
    text = answer.get("answer") or ""
    parsed = parse(text, candidates)
    refused = answer.get("refusal") or (_REFUSAL.match(text) and not parsed.reasoning)
    if refused or answer.get("finish_reason") == "content_filter":
        raise Unusable("teacher_refused", str(answer.get("refusal") or text)[:200] or "content_filter")
    if answer.get("finish_reason") == "length":
        raise Unusable("answer_cut_off", f"…{text[-80:]}")
    return checked_chain(parsed, text, truth, limits)


def checked_chain(parsed: ParsedResponse, text: str, label: str, limits: Limits) -> Chain:
    """The chain in a text if its form, label, words and lengths are sound. Raises Unusable."""
    bad = parsed.flags & {"malformed_reasoning", "truncated", "fallback"}
    if bad or parsed.label_reason == "no_answer":
        said = ", ".join(sorted(bad)) or "no_answer"
        raise Unusable("malformed", f"{said}: {text[:200]}")
    if parsed.label is None:
        raise Unusable("no_label", f"{parsed.label_reason}: {text.rpartition('<answer>')[2][:100]}")
    if parsed.label != label:
        reason = "label_disagrees" if limits.blind else "wrong_label"
        raise Unusable(reason, f"answered {parsed.label}, not {label}")
    reasoning = {name: " ".join(parsed.reasoning[name].split()) for name in SECTIONS}
    for name, section in reasoning.items():
        _check_words(name, section, limits)
    confidence = None if "rescaled" in parsed.flags else parsed.confidence
    return Chain(reasoning, parsed.label, confidence)


def _check_words(name: str, section: str, limits: Limits) -> None:
    for pattern in limits.leak_patterns:
        found = pattern.search(section)
        if found:
            raise Unusable("label_leaked", f"{name}: “{found[0]}”")
    words = len(section.split())
    if words < limits.min_words:
        raise Unusable(
            "section_too_short", f"{name}: {words} words, at least {limits.min_words} are asked for"
        )
    if words > limits.max_words:
        raise Unusable("section_too_long", f"{name}: {words} words, at most {limits.max_words} are allowed")
    if len(section) > limits.max_characters:
        raise Unusable(
            "section_too_long", f"{name}: {len(section)} characters, at most {limits.max_characters}"
        )


class Repeats:
    """Remembers which images a reasoning was written for, case and punctuation aside."""

    def __init__(self, max_images_per_text: int) -> None:
        self._most = max_images_per_text
        self._images: dict[int, set[str]] = defaultdict(set)

    def check(self, chain: Chain, pixels: str) -> None:
        """Count the chain for the image. Raises Unusable where its text has had as many images as allowed."""
        images = self._images[hash(normalise_label(" ".join(chain.reasoning.values())))]
        if pixels not in images and len(images) >= self._most:
            raise Unusable("repeated_reasoning", f"written for {len(images)} other images before")
        images.add(pixels)
