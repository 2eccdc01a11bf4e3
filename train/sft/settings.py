"""The yaml of `swift sft`: read, compared with ms-swift's own arguments, and the limits that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from emocaliber.jsonl import RecordError
from train.preflight.variables import number, swift_flags

NEEDED = ("tuner_type", "max_length")
"""What is read from the settings before ms-swift reads them."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one row may cost: tokens in all, image tokens, and the pixels of one image."""

    max_length: int
    max_image_tokens: int
    min_pixels: int
    max_pixels: int
    system: str | None


def read_settings(path: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """The yaml, with the values that flags of the same command give in its place. Raises RecordError."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = {name: yaml.safe_load(value) for name, value in swift_flags(flags).items() if value}
    except (OSError, yaml.YAMLError) as error:
        raise RecordError(f"{path}: not readable as settings ({' '.join(str(error).split())})") from None
    found: dict[str, Any] = settings if isinstance(settings, dict) else {}
    lacking = [name for name in NEEDED if name not in found]
    if lacking:
        raise RecordError(f"{path}: {', '.join(lacking)} missing; see train/settings for complete settings")
    return found | {name: value for name, value in given.items() if name in found}


def check_keys(settings: Mapping[str, Any], path: Path) -> None:
    """Every key is the whole name of an argument of `swift sft`; its parser also takes beginnings of names.

    Raises RecordError.
    """
    from swift.arguments import SftArguments

    known = {field.name for field in dataclasses.fields(SftArguments)} | {"ENV"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise RecordError(f"{path}: {', '.join(unknown)} unknown to `swift sft`; see `swift sft --help`")


def limits_of(settings: Mapping[str, Any]) -> Limits:
    """The limits on tokens and pixels that the run will have."""
    pixels = settings.get("ENV") or {}
    lowest, highest = (
        int(number(name, 0) or pixels.get(name) or default)
        for name, default in (("MIN_PIXELS", 4 * 28**2), ("MAX_PIXELS", 16384 * 28**2))
    )
    longest = int(settings["max_length"])
    images = int(number("MAX_IMAGE_TOKENS", longest // 2))
    return Limits(longest, images, lowest, highest, settings.get("system"))
