"""The grammar of an answer as a regular expression, for engines that let a model write nothing else."""

from collections.abc import Sequence

from emocaliber.distribution import read_distribution
from emocaliber.prompts import PROMPTS, TOP_K
from emocaliber.taxonomy import labels_equal_to

SECTIONS = ("element", "human", "context", "interaction", "analysis")
"""The five steps of the reasoning, in order."""

# White space by Python's `str.strip`, which engines do not agree on, and invisible characters.
_SPACES = r"\u0000-\u0020\u007f-\u00a0\u00ad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
_BREAKS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_NUMBER = r"(?:0\.[0-9]{2}|1\.00)"
_SPECIAL = frozenset(r"\^$.|?*+()[]{}")


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
        _check(label, candidates, in_list=prompt.elicits in ("top_k", "distribution"))
    labels = [_escaped(label) for label in candidates]
    any_label = f"(?:{'|'.join(labels)})"
    stated = {
        "confidence": f"<confidence>{_NUMBER}</confidence>",
        "no_confidence": "",
        "top_k": _distribution([any_label] * min(TOP_K, len(labels))),
        "distribution": _distribution(labels),
    }
    think = f"<think>{_reasoning(longest_section)}</think>" if prompt.has_reasoning else ""
    return f"{think}<answer>{any_label}</answer>{stated[prompt.elicits]}"


def _reasoning(longest_section: int | None) -> str:
    more = "*" if longest_section is None else f"{{0,{longest_section - 1}}}"
    text = f"[^<{_SPACES}][^<{_BREAKS}]{more}"
    return "".join(f"<{name}>{text}</{name}>" for name in SECTIONS)


def _distribution(labels: Sequence[str]) -> str:
    return f"<distribution>{', '.join(f'{label}: {_NUMBER}' for label in labels)}</distribution>"


def _escaped(label: str) -> str:
    return "".join(f"\\{character}" if character in _SPECIAL else character for character in label)


def _check(label: str, candidates: Sequence[str], *, in_list: bool) -> None:
    """Refuse a label that `parse`, or the reader of a distribution, would not read as itself."""
    is_read = label == label.strip() and not set(label) & set("<>\n\r")
    is_read = is_read and labels_equal_to(label, candidates).labels == (label,)
    if in_list and is_read:
        others = "" if label == candidates[0] else f"{candidates[0]}: 0.00, "
        found = read_distribution(f"{others}{label}: 1.00", candidates)
        is_read = found.probabilities is not None and found.probabilities.get(label) == 1
    if not is_read:
        raise ValueError(f"candidate {label!r} could not be read back from a response; spell it otherwise")
