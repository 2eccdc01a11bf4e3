"""The grammar of an answer: `render` writes it, `parse` reads whatever a model wrote, and `response_pattern`
gives it as a regular expression, for engines that let a model write nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from emocaliber.prompts import PROMPTS, TOP_K
from emocaliber.stated import NumberReading, StatedDistribution, read_distribution, read_number
from emocaliber.taxonomy import labels_equal_to, labels_named_in, normalise_label

SECTIONS = ("element", "human", "context", "interaction", "analysis")
"""The five steps of the reasoning, in order."""

# What can follow the reasoning.
_OUTER = ("answer", "confidence", "distribution")
_NAMES = ("think", *SECTIONS, *_OUTER)
_TAG = re.compile(rf"<(/?)({'|'.join(_NAMES)})\s{{0,8}}>", re.IGNORECASE | re.ASCII)

_TAGS = tuple(f"<{slash}{name}>" for name in _NAMES for slash in ("", "/"))
_LONGEST_TAG = max(map(len, _TAGS))
_BEGINNINGS_OF_TAGS = frozenset(tag[:length] for tag in _TAGS for length in range(1, len(tag)))
_REASONING_TAGS = ("think", *(f"{slash}{name}" for name in SECTIONS for slash in ("", "/")), "/think")

# What `render` writes, with white space between the elements and any text without a `<` in them. Every repeat
# ends at a character that it cannot hold, so a match or a mismatch is found in linear time.
_AS_RENDERED = re.compile(
    r"\s*<think>\s*"
    + r"\s*".join(rf"<{name}>([^<]*)</{name}>" for name in SECTIONS)
    + r"\s*</think>\s*<answer>([^<]*)</answer>\s*(?:<confidence>([^<]*)</confidence>\s*)?"
)

_LONGEST_REMEMBERED = 64

# A label, the reason if there is none, and flags.
_LabelReading: TypeAlias = tuple[str | None, str | None, frozenset[str]]


class _Piece(NamedTuple):
    """A tag of the grammar (`answer`, `/answer`), or one of the kinds below."""

    kind: str
    text: str = ""


_TEXT = "(text)"
_REASONING = "(closed reasoning)"
_CUT_TAG = "(beginning of a tag)"


def render(reasoning: Mapping[str, str], answer: str, confidence: Decimal | float | None = None) -> str:
    """Write an answer in the grammar, on one line; the confidence, if there is one, with two decimals.

    Raises ValueError for what could not be read back: a missing, empty or unknown section, an empty
    answer, text that holds a tag of the grammar, a confidence outside [0, 1].
    """
    if set(reasoning) != set(SECTIONS):
        raise ValueError(f"reasoning must have exactly the sections {SECTIONS}, not {tuple(reasoning)}")
    parts = {**reasoning, "answer": answer}
    for name, text in parts.items():
        if not text.strip() or _TAG.search(text):
            raise ValueError(f"{name} must be a text without tags of the grammar, not {text!r}")
    sections = "".join(f"<{name}>{reasoning[name].strip()}</{name}>" for name in SECTIONS)
    rendered = f"<think>{sections}</think><answer>{answer.strip()}</answer>"
    if confidence is None:
        return rendered
    exact = Decimal(str(confidence))
    if not (exact.is_finite() and 0 <= exact <= 1):
        raise ValueError(f"confidence must lie in [0, 1], not {confidence}")
    return f"{rendered}<confidence>{exact.quantize(Decimal('0.01'), ROUND_HALF_UP)}</confidence>"


@dataclass(frozen=True)
class ParsedResponse:
    """What a response says; where it does not say a thing, the reason.

    `label` is spelt as in the candidates. `label_reason`: `no_answer` (nothing was answered), `ambiguous`
    (more than one candidate), `not_a_candidate`. `confidence` is the decimal that was written, in [0, 1].
    Without a confidence tag it is the probability of the label in a `<distribution>`, if there is one.
    `confidence_reason`: `missing`, `not_a_number`, `out_of_range`, and for a distribution also the other
    reasons of `StatedDistribution`. `flags`: `truncated` (the text stops inside an element), `fallback` (no
    answer tag, the label was read from the text after the reasoning), `rescaled` (a confidence in (1, 100]
    without a percent sign), `from_distribution` and `renormalised` (the confidence is that of a distribution,
    and its sum was not 1), `synonym` (a synonym or a misspelling of the label), `malformed_reasoning` (not
    the five sections, each once, filled and in order, in one `<think>`). `reasoning` holds the sections that
    were found.
    """

    label: str | None
    label_reason: str | None
    confidence: Decimal | None
    confidence_reason: str | None
    flags: frozenset[str]
    reasoning: dict[str, str]


def parse(text: str, candidates: Sequence[str]) -> ParsedResponse:
    """Read a response. Returns a value for every input, never raises, and takes linear time.

    Only what stands outside `<think>…</think>` is an answer or a confidence; the last of each counts. A
    `<think>` that is never closed ends where an answer or a confidence begins.
    """
    written = text if isinstance(text, str) else ""
    as_rendered = _AS_RENDERED.fullmatch(written)
    if as_rendered is not None and all(map(str.strip, as_rendered.groups()[: len(SECTIONS)])):
        return _read_as_rendered(as_rendered, candidates)
    pieces = _split(written)
    visible = _outside_reasoning(pieces)
    label, label_reason, label_flags = _read_label(visible, candidates)
    confidence, confidence_reason, confidence_flags = _read_confidence(visible, label, candidates)
    reasoning, is_well_formed = _read_reasoning(pieces)
    flags = {*label_flags, *confidence_flags}
    if not is_well_formed:
        flags.add("malformed_reasoning")
    if _is_truncated(pieces, visible):
        flags.add("truncated")
    return ParsedResponse(label, label_reason, confidence, confidence_reason, frozenset(flags), reasoning)


def parse_distribution(text: str, candidates: Sequence[str]) -> StatedDistribution:
    """Read the last `<distribution>` outside the reasoning, `joy: 0.62, fear: 0.21`.

    Returns a value for every input, never raises, and takes linear time.
    """
    written = text if isinstance(text, str) else ""
    return _read_distribution(_outside_reasoning(_split(written)), candidates)


def _read_as_rendered(match: re.Match[str], candidates: Sequence[str]) -> ParsedResponse:
    """Read what follows the grammar to the letter, as most answers do, in a fraction of the time."""
    *sections, answer, confidence = match.groups()
    label, label_reason, flags = _match_label(answer.strip(), candidates, is_fallback=False)
    number, confidence_reason, confidence_flags = read_number((confidence or "").strip(), is_closed=True)
    reasoning = dict(zip(SECTIONS, map(str.strip, sections), strict=True))
    return ParsedResponse(label, label_reason, number, confidence_reason, flags | confidence_flags, reasoning)


def _split(text: str) -> list[_Piece]:
    """Cut a text into tags of the grammar and the text between them.

    The beginning of a tag at the end of a cut-off text becomes a last piece of the kind `_CUT_TAG`.
    """
    body = text.rstrip()
    bracket = body.rfind("<", max(0, len(body) - _LONGEST_TAG))
    tail = body[bracket:].lower() if bracket >= 0 else ""
    is_cut = tail in _BEGINNINGS_OF_TAGS
    if is_cut:
        body = body[:bracket]
    pieces = []
    position = 0
    for match in _TAG.finditer(body):
        if match.start() > position:
            pieces.append(_Piece(_TEXT, body[position : match.start()]))
        pieces.append(_Piece(f"{match[1]}{match[2].lower()}"))
        position = match.end()
    if position < len(body):
        pieces.append(_Piece(_TEXT, body[position:]))
    return [*pieces, _Piece(_CUT_TAG)] if is_cut else pieces


def _outside_reasoning(pieces: list[_Piece]) -> list[_Piece]:
    """Replace every closed `<think>…</think>`, nested ones included, by one piece `_REASONING`."""
    close_of: dict[int, int] = {}
    opened: list[int] = []
    for position, piece in enumerate(pieces):
        if piece.kind == "think":
            opened.append(position)
        elif piece.kind == "/think" and opened:
            close_of[opened.pop()] = position
    visible = []
    position = 0
    while position < len(pieces):
        if position in close_of:
            visible.append(_Piece(_REASONING))
            position = close_of[position]
        else:
            visible.append(pieces[position])
        position += 1
    return visible


def _last_content(visible: list[_Piece], name: str) -> tuple[str, bool] | None:
    """Give the text of the last element of that name, and whether it is closed by a tag; None for none.

    An element that is not closed ends where the next of `_OUTER` begins. One that is cut off right after its
    tag says nothing and is passed over.
    """
    last: tuple[str, bool] | None = None
    inside: list[str] | None = None
    for piece in visible:
        if piece.kind.lstrip("/") in _OUTER:
            if inside is not None:
                last = " ".join(inside), piece.kind == f"/{name}"
            inside = [] if piece.kind == name else None
        elif inside is not None and piece.kind == _TEXT:
            inside.append(piece.text)
    return (" ".join(inside), False) if inside is not None and "".join(inside).strip() else last


def _read_label(visible: list[_Piece], candidates: Sequence[str]) -> _LabelReading:
    answer = _last_content(visible, "answer")
    is_fallback = answer is None and all(piece.kind != "answer" for piece in visible)
    text = _after_reasoning(visible) if is_fallback else answer[0] if answer else ""
    return _match_label(text.strip(), candidates, is_fallback=is_fallback)


def _match_label(text: str, candidates: Sequence[str], *, is_fallback: bool) -> _LabelReading:
    """Give the label that a text without surrounding white space names, the reason if none, and flags."""
    match = _match_remembered if len(text) <= _LONGEST_REMEMBERED else _match_remembered.__wrapped__
    return match(text, tuple(candidates), is_fallback)


@lru_cache(maxsize=4096)  # answers repeat
def _match_remembered(text: str, candidates: tuple[str, ...], is_fallback: bool) -> _LabelReading:
    match = labels_equal_to(text, candidates)
    if not match.labels:
        match = labels_named_in(text, candidates)
    if len(match.labels) == 1:
        flags = {"fallback": is_fallback, "synonym": match.by_synonym}
        return match.labels[0], None, frozenset(flag for flag, is_set in flags.items() if is_set)
    if match.labels:
        return None, "ambiguous", frozenset()
    says_nothing = is_fallback or not normalise_label(text)
    return None, "no_answer" if says_nothing else "not_a_candidate", frozenset()


def _after_reasoning(visible: list[_Piece]) -> str:
    """Give the text after the reasoning without confidences; nothing if the reasoning never ends."""
    after: list[str] = []
    in_think = in_section = in_stated = False
    for kind, text in visible:
        name = kind.lstrip("/")
        if name == "think" or kind == _REASONING:
            in_think, in_section = kind == "think", False
            after.clear()
        elif name in SECTIONS:
            in_section = kind == name
            after.clear()
        elif name in ("confidence", "distribution"):
            in_stated = kind == name
        elif kind == _TEXT and not in_stated:
            after.append(text)
    return "" if in_think or in_section else " ".join(after)


def _read_confidence(visible: list[_Piece], label: str | None, candidates: Sequence[str]) -> NumberReading:
    """Read the confidence; where the response has none, the probability of the label in a distribution."""
    kinds = {piece.kind for piece in visible}
    if "confidence" in kinds or "distribution" not in kinds:
        stated, is_closed = _last_content(visible, "confidence") or ("", True)
        return read_number(stated.strip(), is_closed=is_closed)
    found = _read_distribution(visible, candidates)
    if found.probabilities is None:
        return None, found.reason, frozenset()
    if label is None or label not in found.probabilities:
        return None, "missing", frozenset()
    flags = found.flags & {"renormalised", "rescaled"}
    return found.probabilities[label], None, flags | {"from_distribution"}


def _read_distribution(visible: list[_Piece], candidates: Sequence[str]) -> StatedDistribution:
    text, is_closed = _last_content(visible, "distribution") or ("", True)
    return read_distribution(text, candidates, is_closed=is_closed)


def _read_reasoning(pieces: list[_Piece]) -> tuple[dict[str, str], bool]:
    """Give the filled sections (the last of each name) and whether they are as the grammar asks."""
    sections: dict[str, str] = {}
    for piece, following in pairwise(pieces):
        if piece.kind in SECTIONS and following.kind == _TEXT and following.text.strip():
            sections[piece.kind] = following.text.strip()
    tags = tuple(piece.kind for piece in pieces if piece.kind != _TEXT)
    n_tags = len(_REASONING_TAGS)
    is_ordered = tags[:n_tags] == _REASONING_TAGS and not any(tag in _REASONING_TAGS for tag in tags[n_tags:])
    in_order = {name: sections[name] for name in SECTIONS if name in sections}
    return in_order, is_ordered and len(in_order) == len(SECTIONS)


def _is_truncated(pieces: list[_Piece], visible: list[_Piece]) -> bool:
    """Does the text stop in a tag, in an element, or in a `<think>` that nothing follows?"""
    tags = [piece.kind for piece in pieces if piece.kind != _TEXT]
    if tags and not tags[-1].startswith("/"):
        return True
    in_think = False
    for kind, _ in visible:
        if kind.lstrip("/") not in (*SECTIONS, _TEXT):
            in_think = kind == "think"
    return in_think


# White space by Python's `str.strip`, which engines do not agree on, and invisible characters.
_SPACES = r"\u0000-\u0020\u007f-\u00a0\u00ad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
_BREAKS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_NUMBER = r"(?:0\.[0-9]{2}|1\.00)"
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")


def response_pattern(
    prompt_name: str, candidates: Sequence[str], *, longest_section: int | None = 400
) -> str:
    """Give a regular expression for whole responses to one of `PROMPTS`.

    Built of character classes, bounded repeats and alternatives alone, as xgrammar and outlines take it, and
    not anchored, as they match the whole text anyway. Of every text that matches, `parse` reads the label,
    and the confidence where the prompt elicits one, without repairs: the five sections are filled, hold no
    `<` and no line break; the confidence has two decimals. Two things no such expression can hold: that
    probabilities sum to 1, and that the labels of `top_k` differ. Those the reader of the distribution says.

    Args:
        prompt_name: one of `PROMPTS`.
        candidates: the labels, of which the answer is one, and of which a distribution names all, in order.
        longest_section: characters of a section of the reasoning, at least 1. None sets no bound: a response
            can then be cut off, but xgrammar compiles the expression and fills its masks far faster where the
            vocabulary is large.
    Raises:
        KeyError: an unknown prompt. ValueError: a section without room, or a label that could not be read
            back.
    """
    prompt = PROMPTS[prompt_name]
    if longest_section is not None and longest_section < 1:
        raise ValueError(f"longest_section must be at least 1, not {longest_section}")
    if not candidates or isinstance(candidates, str):
        raise ValueError(f"candidates must be a list of at least one label, not {candidates!r}")
    for label in candidates:
        _check_readable(label, candidates, in_list=prompt.elicits in ("top_k", "distribution"))
    labels = [_SPECIAL.sub(r"\\\g<0>", label) for label in candidates]
    any_label = f"(?:{'|'.join(labels)})"
    stated = {
        "confidence": f"<confidence>{_NUMBER}</confidence>",
        "no_confidence": "",
        "top_k": _distribution_pattern([any_label] * min(TOP_K, len(labels))),
        "distribution": _distribution_pattern(labels),
    }
    think = f"<think>{_sections_pattern(longest_section)}</think>" if prompt.has_reasoning else ""
    return f"{think}<answer>{any_label}</answer>{stated[prompt.elicits]}"


def _sections_pattern(longest_section: int | None) -> str:
    more = "*" if longest_section is None else f"{{0,{longest_section - 1}}}"
    text = f"[^<{_SPACES}][^<{_BREAKS}]{more}"
    return "".join(f"<{name}>{text}</{name}>" for name in SECTIONS)


def _distribution_pattern(labels: Sequence[str]) -> str:
    return f"<distribution>{', '.join(f'{label}: {_NUMBER}' for label in labels)}</distribution>"


def _check_readable(label: str, candidates: Sequence[str], *, in_list: bool) -> None:
    """Refuse a label that `parse`, or the reader of a distribution, would not read as itself."""
    is_read = label == label.strip() and not set(label) & set("<>\n\r")
    is_read = is_read and labels_equal_to(label, candidates).labels == (label,)
    if in_list and is_read:
        others = "" if label == candidates[0] else f"{candidates[0]}: 0.00, "
        found = read_distribution(f"{others}{label}: 1.00", candidates)
        is_read = found.probabilities is not None and found.probabilities.get(label) == 1
    if not is_read:
        raise ValueError(f"candidate {label!r} could not be read back from a response; spell it otherwise")
