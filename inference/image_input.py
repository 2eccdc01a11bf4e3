"""Image files as the model takes them: decoded, upright, RGB, and the image tokens that they will cost."""

import math
import os
from pathlib import Path

from PIL import Image, ImageOps

from emocaliber.images import MAX_DECODED_PIXELS, to_rgb

MAX_ASPECT_RATIO = 200  # Qwen2-VL's image processor refuses longer ones

Image.MAX_IMAGE_PIXELS = MAX_DECODED_PIXELS // 2  # Pillow refuses twice this


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
    if "://" in name or "\0" in name:
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

    Raises RowError: image_missing, image_unreadable, image_too_large, image_too_narrow.
    """
    if not path.exists():
        raise RowError("image_missing", f"no file {path}; check --image-root")
    if not path.is_file():
        raise RowError("image_unreadable", f"{path} is not a file")
    try:
        with Image.open(path) as image:
            _check_size(path, image)
            rgb = to_rgb(ImageOps.exif_transpose(image))
    except RowError:
        raise
    except Image.DecompressionBombError:
        raise RowError(
            "image_too_large", f"{path}: more than the {MAX_DECODED_PIXELS:,} pixels that are decoded"
        ) from None
    except Image.UnidentifiedImageError:
        raise RowError("image_unreadable", f"{path}: not an image of a known format") from None
    except Exception as error:  # a decoder that is fed damaged bytes may raise anything
        raise RowError("image_unreadable", f"{path}: {type(error).__name__}: {str(error)[:200]}") from None
    return rgb


def _check_size(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_DECODED_PIXELS:
        raise RowError(
            "image_too_large",
            f"{path}: {width} x {height} pixels, more than the {MAX_DECODED_PIXELS:,} that are decoded",
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise RowError(
            "image_too_narrow",
            f"{path}: {width} x {height} pixels; the model takes sides of at most 1 to {MAX_ASPECT_RATIO}",
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
