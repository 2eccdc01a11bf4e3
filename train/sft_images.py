"""The images of fine-tuning rows: there, readable, and how many tokens their pixels make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sft_rows import Row

PATCH_MERGED = 28
"""Pixels along one side of what becomes one image token: patches of 14, merged two by two."""

Size = tuple[int, int]


def check_images(rows: Sequence[Row], root: Path, max_decoded: int) -> dict[str, Size]:
    """Reject rows whose images are missing or unreadable, and give (width, height) of every readable path.

    The header of every image is read; at most `max_decoded` of them, evenly spread over the file, are also
    decoded to the last pixel, which is what finds a file that was cut off.
    """
    paths = sorted({path for row in rows for path in row.images if path and "://" not in path})
    step = max(1, -(-len(paths) // max_decoded)) if max_decoded else len(paths) + 1
    decoded = {path for position, path in enumerate(paths, start=1) if position % step == 0}
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        measured = pool.map(lambda path: measure(root / path, path in decoded), paths)
        outcomes = dict(zip(paths, measured, strict=True))
    for row in rows:
        for path in row.images:
            fault = outcomes.get(path)
            if isinstance(fault, str):
                reason = "image_missing" if fault == "no such file" else "image_unreadable"
                row.reject(reason, f"{path}: {fault}")
    return {path: outcome for path, outcome in outcomes.items() if not isinstance(outcome, str)}


def measure(path: Path, decode: bool) -> Size | str:
    """The size of an image in pixels, or what is wrong with it."""
    from PIL import Image

    if not path.is_file():
        return "no such file"
    try:
        with Image.open(path) as image:
            size = image.size
            if decode:
                image.convert("RGB")
        return size
    # Pillow's decoders raise whatever they come upon (ValueError, SyntaxError, struct.error, …).
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(path), path.name)


def image_tokens(size: Size, min_pixels: int, max_pixels: int) -> int:
    """Tokens of an image: its sides brought to multiples of 28 within the limits, one token per 28 x 28.

    Raises ValueError for an image that is more than 200 times as long as wide.
    """
    from qwen_vl_utils.vision_process import smart_resize

    width, height = size
    resized = smart_resize(height, width, factor=PATCH_MERGED, min_pixels=min_pixels, max_pixels=max_pixels)
    return (resized[0] // PATCH_MERGED) * (resized[1] // PATCH_MERGED)
