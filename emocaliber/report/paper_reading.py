"""How the published evaluator reads a response, faults included; see `paper` for what is known of it."""

from __future__ import annotations

import math
from collections.abc import Sequence


def tag_content(response: str, name: str) -> str | None:
    """What `re.search(f"<{name}>(.*?)</{name}>", response)` finds, in linear time; None if nothing."""
    for line in response.split("\n"):
        content, closing_tag, _ = line.partition(f"<{name}>")[2].partition(f"</{name}>")
        if closing_tag:
            return content
    return None


def first_candidate(text: str, candidates: Sequence[str]) -> str | None:
    """The first candidate, in list order, that is a substring of the lower-cased text."""
    lowered = text.lower()
    return next((candidate for candidate in candidates if candidate.lower() in lowered), None)


def read_confidence(response: str) -> tuple[float | None, bool]:
    """The confidence in [0, 1], None if it does not parse, and whether it was outside and is clipped."""
    try:
        stated = float(tag_content(response, "confidence") or "nan")
    except ValueError:
        return None, False
    if math.isnan(stated):
        return None, False
    clipped = min(max(stated, 0.0), 1.0)
    return clipped, clipped != stated
