"""A probability as models write it: `0.85`, `.85`, `85%`, `{0.85}`, `0.85.`"""

import re
from decimal import Context, Decimal
from functools import lru_cache
from typing import TypeAlias

# Quotes, brackets and markup that models put around a number.
_WRAPPING = " \t\r\n{}[]()\"'`*,;:\u2018\u2019\u201c\u201d"
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
"""For `str.translate`: full-width forms of ASCII characters, as in Chinese and Japanese texts, to these."""

_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s?(%?)")
_DECIMAL_DIGIT = re.compile(r"\.[0-9]")
_LONGEST_NUMBER = 64
_EXACT = Context(prec=2 * _LONGEST_NUMBER)

NumberReading: TypeAlias = tuple[Decimal | None, str | None, frozenset[str]]
"""A number in [0, 1], the reason if there is none, and flags."""


def read_number(stated: str, *, is_closed: bool) -> NumberReading:
    """Read a confidence without surrounding white space.

    `is_closed`: nothing more can have followed. The reasons are `missing`, `not_a_number` and
    `out_of_range`, the flag is `rescaled`: a number in (1, 100] without a percent sign.
    """
    # Numbers are short; a longer text is not read at all, so that arithmetic on the result stays cheap.
    if len(stated) > _LONGEST_NUMBER:
        return None, "not_a_number", frozenset()
    return _read_short_number(stated, is_closed)


# Confidences repeat.
@lru_cache(maxsize=4096)
def _read_short_number(stated: str, is_closed: bool) -> NumberReading:
    if not stated:
        return None, "missing", frozenset()
    written = written_number(stated, is_closed=is_closed)
    if written is None:
        return None, "not_a_number", frozenset()
    number, is_percent = written
    is_rescaled = not is_percent and 1 < number <= 100
    if is_percent or is_rescaled:
        number = hundredth(number)
    if not 0 <= number <= 1:
        return None, "out_of_range", frozenset()
    return number, None, frozenset({"rescaled"} if is_rescaled else ())


def written_number(stated: str, *, is_closed: bool) -> tuple[Decimal, bool] | None:
    """Give a number as it is written, and whether a percent sign follows it; None for what is no number."""
    if len(stated) > _LONGEST_NUMBER:
        return None
    bare = stated.translate(FULL_WIDTH).rstrip(_WRAPPING + ".").lstrip(_WRAPPING)
    match = _NUMBER.fullmatch(bare)
    # `0.`, `8` or `1` without a closing tag is the beginning of some number, not that number.
    if not match or not (is_closed or match[2] or _DECIMAL_DIGIT.search(match[1])):
        return None
    number = Decimal(match[1])
    return (number.copy_abs() if number == 0 else number), bool(match[2])


def hundredth(number: Decimal) -> Decimal:
    """Give a hundredth of a number that `written_number` gives, exactly, whatever the decimal context."""
    return number.scaleb(-2, _EXACT)
