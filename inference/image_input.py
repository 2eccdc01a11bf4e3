"""Image files as the model takes them: decoded, upright, RGB, and the image tokens that they will cost."""

import math
import os
import re
import stat
from functools import lru_cache
from pathlib import Path

from backend import EngineError
from PIL import Image, ImageOps

from emocaliber.images import MAX_DECODED_PIXELS, to_rgb

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, judged by content. Pillow knows more: EPS, for one, runs a PostScript interpreter."""

MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer ones

Image.MAX_IMAGE_PIXELS = MAX_DECODED_PIXELS // 2  # Pillow refuses twice this

URL = re.compile(r"://|^(data|https?|ftps?|file|s3|gs|blob|javascript):", re.IGNORECASE)
"""What is not the path of a file, in the name of an image."""
_LONGEST_SHOWN = 300


class RowError(Exception):
    """One row cannot be asked; the others can. `type` is the name that the record carries."""

    def __init__(self, type: str, message: str) -> None:
        super().__init__(message)
        self.type = type
        self.message = message


def locate(image_root: Path, name: str) -> Path:
    """Give the path of a row's image, relative to the root. Raises RowError if it leaves the root.

    Only the name is judged: a symbolic link inside the root may lead elsewhere.
    """
    if URL.search(name) or "\0" in name:
        raise RowError(
            "image_outside_root", f"image {name[:200]!r} is not a path; download it below the root"
        )
    root = os.path.abspath(image_root)
    path = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise RowError(
            "image_outside_root",
            f"image {name[:200]!r} is outside {root}; give --image-root a folder above it",
        )
    return Path(path)


def load_image(path: Path) -> Image.Image:
    """Decode an image of any mode: to RGB, upright by its EXIF, first frame, transparency on white.

    Raises RowError: image_missing, image_unreadable, image_too_large, image_too_narrow; EngineError where
    there is not enough memory.
    """
    name = _shown(path)
    _check_file(path, name)
    try:
        with Image.open(path, formats=_known_formats()) as image:
            _check_size(name, *image.size)
            rgb = to_rgb(ImageOps.exif_transpose(image))
    except RowError:
        raise
    except Image.DecompressionBombError:
        raise RowError(
            "image_too_large", f"{name}: more than the {MAX_DECODED_PIXELS:,} pixels that are decoded"
        ) from None
    except MemoryError:  # of this machine, now: another time the row may have its answer
        raise EngineError(f"{name}: not enough memory to decode it; free some, or lower --workers") from None
    except Image.UnidentifiedImageError:
        raise RowError("image_unreadable", f"{name}: not an image of a known format") from None
    except Exception as error:  # a decoder that is fed damaged bytes may raise anything
        reason = " ".join(f"{type(error).__name__}: {str(error)[:200]}".split())
        raise RowError("image_unreadable", f"{name}: {reason}") from None
    return rgb


def _check_file(path: Path, name: str) -> None:
    """Raise RowError for what is no file: opening a pipe would wait for its writer."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise RowError("image_missing", f"no file {name}; check --image-root") from None
    except (OSError, ValueError) as error:  # too long, no permission, a loop of links; not encodable
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise RowError("image_missing", f"no file {name} ({reason}); check --image-root") from None
    if not is_file:
        raise RowError("image_unreadable", f"{name} is not a file")


def _shown(path: Path) -> str:
    """The path on one line, a long one without its middle."""
    text = str(path)
    text = text if text.isprintable() else ascii(text)[1:-1]
    half = _LONGEST_SHOWN // 2
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]}…{text[-half:]}"


@lru_cache(maxsize=1)
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow may be built without some


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_DECODED_PIXELS:
        raise RowError(
            "image_too_large",
            f"{name}: {width} x {height} pixels, more than the {MAX_DECODED_PIXELS:,} that are decoded",
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise RowError(
            "image_too_narrow",
            f"{name}: {width} x {height} pixels; the model takes sides of at most 1 to {MAX_ASPECT_RATIO}",
        )


def resized(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Give (height, width) after Qwen2-VL's `smart_resize`: multiples of `factor` within the limits.

    Written out here, not imported, so that the count of image tokens is checked by a second source.
    """
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def image_tokens(width: int, height: int, factor: int, min_pixels: int, max_pixels: int) -> int:
    """Give the number of image tokens of an image of this size; `factor` is patch size times merge size."""
    new_height, new_width = resized(height, width, factor, min_pixels, max_pixels)
    return (new_height // factor) * (new_width // factor)
