"""Small copies of the images that rows were asked about, as text that a page can hold."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

LONGEST_SIDE_PIXELS = 96
_JPEG_QUALITY = 60
_MOST_THREADS = 8
_MOST_PIXELS = 50_000_000  # of an image: decoded, as many take 200 MB in each thread


def thumbnails_of(
    images: Sequence[Any], root: Path, longest_side: int = LONGEST_SIDE_PIXELS
) -> tuple[list[str], list[int | None]]:
    """Make one thumbnail a file.

    Args:
        images: paths relative to `root`; anything but a text stands for no image.
        root: nothing outside it is read, wherever a path or a link leads.
        longest_side: of a thumbnail, in pixels.
    Returns:
        The thumbnails as base64 JPEG, and for every image its place among them: None where there is no image,
        it is not a file below `root`, it cannot be read, or it has more than 50 million pixels.
    """
    inside = root.resolve()
    files = [_file_below(inside, image) for image in images]
    distinct = list(dict.fromkeys(file for file in files if file is not None))
    with warnings.catch_warnings(), ThreadPoolExecutor(_MOST_THREADS) as pool:
        warnings.simplefilter("ignore")  # of Pillow, of a size that is refused here
        made = dict(zip(distinct, pool.map(partial(_thumbnail, longest_side), distinct), strict=True))
    places = {file: number for number, file in enumerate(file for file in distinct if made[file] is not None)}
    pictures = [text for file in distinct if (text := made[file]) is not None]
    return pictures, [None if file is None else places.get(file) for file in files]


def _file_below(root: Path, image: Any) -> Path | None:
    if not isinstance(image, str) or not image:
        return None
    try:
        file = (root / image).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL or a lone surrogate in it, a loop of links
        return None


def _thumbnail(longest_side: int, file: Path) -> str | None:
    from PIL import Image, ImageOps

    from emocaliber.images import to_rgb

    size = (longest_side, longest_side)
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.draft("RGB", size)  # a large JPEG is decoded at a fraction of its size
            small = to_rgb(ImageOps.exif_transpose(image))
            small.thumbnail(size)
            buffer = io.BytesIO()
            small.save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    except Exception:  # a decoder that is fed damaged bytes may raise anything
        return None
    return base64.b64encode(buffer.getvalue()).decode("ascii")
