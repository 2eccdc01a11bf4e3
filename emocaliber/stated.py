"""Probabilities as a model writes them: one (`0.85`, `.85`, `85%`, `{0.85}`), or one for each label
(`joy: 0.62, fear: 0.21`).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import TypeAlias

from emocaliber.taxonomy import labels_equal_to, normalise_label

# Quotes, brackets and markup that models put around a number.
_WRAPPING = " \t\r\n{}[]()\"'`*,;:\u2018\u2019\u201c\u201d"
# For `str.translate`: full-width forms of ASCII characters, as in Chinese and Japanese texts, to these.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s?(%?)")
_DECIMAL_DIGIT = re.compile(r"\.[0-9]")
_LONGEST_NUMBER = 64
# Numbers have up to 64 digits and exponents up to 999: sums are rounded, but never in what is printed.
_EXACT = Context(prec=200)

NumberReading: TypeAlias = tuple[Decimal | None, str | None, frozenset[str]]
"""A number in [0, 1], the reason if there is none, and flags."""


def read_number(stated: str, *, is_closed: bool) -> NumberReading:
    """Read a confidence without surrounding white space.

    `is_closed`: nothing more can have followed. The reasons are `missing`, `not_a_number` and
    `out_of_range`, the flag is `rescaled`: a number in (1, 100] without a percent sign.
    """
    if len(stated) > _LONGEST_NUMBER:
        return None, "not_a_number", frozenset()
    return _read_short_number(stated, is_closed)


@lru_cache(maxsize=4096)  # confidences repeat
def _read_short_number(stated: str, is_closed: bool) -> NumberReading:
    if not stated:
        return None, "missing", frozenset()
    written = _written_number(stated, is_closed=is_closed)
    if written is None:
        return None, "not_a_number", frozenset()
    number, is_percent = written
    is_rescaled = not is_percent and 1 < number <= 100
    if is_percent or is_rescaled:
        number = _hundredth(number)
    if not 0 <= number <= 1:
        return None, "out_of_range", frozenset()
    return number, None, frozenset({"rescaled"} if is_rescaled else ())


def _written_number(stated: str, *, is_closed: bool) -> tuple[Decimal, bool] | None:
    """Give a number as it is written, and whether a percent sign follows it; None for what is no number."""
    # Numbers are short; a longer text is not read at all, so that arithmetic on the result stays cheap.
    if len(stated) > _LONGEST_NUMBER:
        return None
    bare = stated.translate(_FULL_WIDTH).rstrip(_WRAPPING + ".").lstrip(_WRAPPING)
    match = _NUMBER.fullmatch(bare)
    # `0.`, `8` or `1` without a closing tag is the beginning of some number, not that number.
    if not match or not (is_closed or match[2] or _DECIMAL_DIGIT.search(match[1])):
        return None
    number = Decimal(match[1])
    return (number.copy_abs() if number == 0 else number), bool(match[2])


def _hundredth(number: Decimal) -> Decimal:
    """Exactly, whatever the decimal context."""
    return number.scaleb(-2, _EXACT)


LEAST_SUM, MOST_SUM = Decimal("0.9"), Decimal("1.1")
"""Sums between these are put right: probabilities of two decimals are rounded one by one."""

# The few most likely of many labels have less than all; less than half is a slip rather than percentages.
_LEAST_PERCENT = Decimal("0.5")

_SHARE = Context(prec=28)
_SEPARATOR = re.compile(r"[,;\n\r\u3001]")


@dataclass(frozen=True)
class StatedDistribution:
    """What a stated distribution says; where it does not say one, the reason.

    `probabilities`: of the candidates that it names, in the order and spelling of the candidates, in [0, 1].
    They sum to 1 within rounding, unless candidates are left out, which then have the rest together.
    `reason`: `missing`, `not_a_number`, `out_of_range`, `unknown_label` (no candidate, or several that are
    written alike), `duplicate_label`, `sum_not_one` (outside `LEAST_SUM` to `MOST_SUM`; where candidates are
    left out, above it). `flags`: `partial` (candidates are left out), `renormalised` (divided by a sum
    that is not 1), `rescaled` (percentages without a sign), `synonym` (a label in another spelling),
    `truncated` (the text stops inside it).
    """

    probabilities: dict[str, Decimal] | None
    reason: str | None
    flags: frozenset[str]


def read_distribution(text: str, candidates: Sequence[str], *, is_closed: bool = True) -> StatedDistribution:
    """Read what stands inside `<distribution>`. Never raises, and takes linear time.

    Entries are parted by commas, semicolons or line breaks, in any order, and hold a label, a colon and a
    number, in markup and quotes or not; percent signs are understood. A list with a number above 1 and no
    percent sign is one of percentages if it sums to 50 to 110.
    `is_closed=False`: the text was cut off; an entry at its end that cannot be read is left out.
    """
    flags = set() if is_closed else {"truncated"}
    numbers: dict[str, tuple[Decimal, bool]] = {}
    for label, stated, is_last in _entries(text):
        is_whole = is_closed or not is_last
        number = _written_number(stated.strip(), is_closed=is_whole)
        if number is None and not is_whole:
            break
        if number is None:
            return _without("not_a_number", flags)
        found = labels_equal_to(label.strip(), candidates)
        if len(found.labels) != 1:
            return _without("unknown_label", flags)
        if found.labels[0] in numbers:
            return _without("duplicate_label", flags)
        numbers[found.labels[0]] = number
        flags |= {"synonym"} if found.by_synonym else set()
    if not numbers:
        return _without("missing", flags)
    named = {label: numbers[label] for label in candidates if label in numbers}
    return _as_probabilities(named, len(named) < len(set(candidates)), flags)


def _without(reason: str, flags: set[str]) -> StatedDistribution:
    return StatedDistribution(None, reason, frozenset(flags))


def _entries(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the text of each label and each number, and whether nothing follows.

    What has no colon belongs to the next label, which may hold a comma; at the end it has no number.
    """
    pieces = _SEPARATOR.split(text.translate(_FULL_WIDTH))
    while pieces and not normalise_label(pieces[-1]):
        pieces.pop()
    waiting: list[str] = []
    for place, piece in enumerate(pieces):
        colon = max(piece.rfind(":"), piece.rfind("="))  # the last one: a label may hold some
        is_last = place == len(pieces) - 1
        if colon >= 0:
            yield ",".join([*waiting, piece[:colon]]), piece[colon + 1 :], is_last
            waiting = []
        elif is_last:
            yield ",".join([*waiting, piece]), "", True
        elif waiting or normalise_label(piece):
            waiting.append(piece)


def _as_probabilities(
    numbers: dict[str, tuple[Decimal, bool]], is_partial: bool, flags: set[str]
) -> StatedDistribution:
    flags = flags | ({"partial"} if is_partial else set())
    if _are_percentages(numbers.values()):
        flags.add("rescaled")
    probabilities = {
        label: _hundredth(number) if is_percent or "rescaled" in flags else number
        for label, (number, is_percent) in numbers.items()
    }
    if not all(0 <= probability <= 1 for probability in probabilities.values()):
        return _without("out_of_range", flags)
    total = exact_sum(probabilities.values())
    if total > MOST_SUM or (total < LEAST_SUM and not is_partial):
        return _without("sum_not_one", flags)
    if total > 1 or (total < 1 and not is_partial):
        flags.add("renormalised")
        probabilities = {label: _SHARE.divide(one, total) for label, one in probabilities.items()}
    return StatedDistribution(probabilities, None, frozenset(flags))


def _are_percentages(written: Collection[tuple[Decimal, bool]]) -> bool:
    if any(has_sign for _, has_sign in written) or all(number <= 1 for number, _ in written):
        return False
    return _LEAST_PERCENT <= _hundredth(exact_sum(number for number, _ in written)) <= MOST_SUM


def exact_sum(numbers: Iterable[Decimal]) -> Decimal:
    """Add up in an order of their own, so that what is rounded, if anything is, does not depend on theirs."""
    total = Decimal(0)
    for number in sorted(numbers):
        total = _EXACT.add(total, number)
    return total
