"""Image files judged by their content: what one holds, whether it decodes, its pixels as they are shown."""

import hashlib
import io
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_FAULTS = ("image_missing", "image_empty", "not_an_image", "image_truncated", "image_too_large")
"""Why a file cannot be used: no file, no bytes, no known format, damaged data, more pixels than decoded."""

MAX_DECODED_PIXELS = 2 * 89_478_485
"""A header can promise more pixels than the memory holds; Pillow refuses the same number."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

MAX_ASPECT_RATIO = 200
"""Of the longer side to the shorter: Qwen2-VL's image processor refuses more."""

_ORIENTATION = 0x0112  # EXIF; 1 is upright, 5 to 8 swap the sides
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_SAME_EXTENSIONS = {"MPO": "JPEG"}  # several JPEGs in one file, as telephones write them, named .jpg
_LONGEST_NAME = 300


class ImageFault(ValueError):
    """An image file that cannot be used. `reason` is one of `IMAGE_FAULTS`, `message` is one line."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.message)  # so that a process pool can pass it on


@dataclass(frozen=True)
class ImageFacts:
    """What a file holds.

    width, height: pixels as shown, after the rotation that EXIF asks for. format, mode: by content, in
    Pillow's names, before any conversion. n_frames: frames that can be counted, at least 1.
    wrong_extension: the name's extension is not one of the format; a name without one is not wrong.
    sha256: of the file's bytes. pixels_sha256: of the size and the RGB pixels as shown (equal for files that
    differ in metadata or in a lossless format only), None if they were not decoded. has_transparency: by an
    alpha channel, or by colours that the header calls transparent, in any mode.
    """

    width: int
    height: int
    format: str
    mode: str
    has_transparency: bool
    n_frames: int
    exif_rotated: bool
    wrong_extension: bool
    sha256: str
    pixels_sha256: str | None


def inspect_image(path: str | os.PathLike[str], *, decode: bool = True) -> ImageFacts:
    """Read a file and say what it holds; `decode=True` decodes the first frame to its last pixel.

    Without decoding only the header is judged: a truncated file passes. Raises ImageFault, and MemoryError
    (it names the file) where this machine, not the file, is at fault.
    """
    content = read_content(path)
    with opened_image(path, content) as image:
        has_transparency = image.has_transparency_data
        format_, mode, n_frames = image.format or "", image.mode, _count_frames(image)
        # The base method: that of PNG decodes the pixels to look for what stands after them.
        orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
        width, height = image.size
        pixels_digest = None
        if decode:
            rgb = as_shown(image)
            width, height = rgb.size
            pixels_digest = pixels_sha256(rgb)
        elif orientation in (5, 6, 7, 8):
            width, height = height, width
    return ImageFacts(
        width=width,
        height=height,
        format=format_,
        mode=mode,
        has_transparency=has_transparency,
        n_frames=n_frames,
        exif_rotated=orientation in range(2, 9),
        wrong_extension=_is_wrong_extension(path, format_),
        sha256=hashlib.sha256(content).hexdigest(),
        pixels_sha256=pixels_digest,
    )


def pixels_sha256(rgb: Image.Image) -> str:
    """The sum of an RGB image's size and pixels, as `ImageFacts` has it."""
    digest = hashlib.sha256(b"%d x %d\n" % rgb.size)
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def open_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Decode a file to RGB as the model sees it: first frame, upright by EXIF, transparency on white.

    Raises ImageFault, and MemoryError as `inspect_image` does.
    """
    with opened_image(path, read_content(path)) as image:
        return as_shown(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; 16-bit grey keeps its upper byte, transparent pixels become white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_wide_grey(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")


def _from_wide_grey(image: Image.Image) -> Image.Image:
    import numpy as np

    # Pillow's own conversion cuts values above 255 off, which turns a 16-bit photograph white.
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    scales = [65535.0] if image.mode.startswith("I;") else [1.0, 255.0, 65535.0]
    if image.mode == "I":
        scales.remove(1.0)
    full_scale = next((scale for scale in scales if values.max() <= scale), scales[-1])
    return Image.fromarray(np.clip(values * (255.0 / full_scale), 0, 255).astype(np.uint8))


def as_shown(image: Image.Image) -> Image.Image:
    """Give the RGB pixels of an opened image, upright by its EXIF; turns the image itself upright too."""
    ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image)


def read_content(path: str | os.PathLike[str]) -> bytes:
    """Read a file whole. Raises ImageFault for what is no file or has no bytes, MemoryError naming it."""
    name = _one_line(path)
    try:
        # A pipe or a device may never end, whatever its name.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageFault("image_missing", f"{name} is not a file")
        with open(path, "rb") as file:
            content = file.read()
    except ImageFault:
        raise
    except MemoryError:
        raise _no_memory(name) from None
    except FileNotFoundError:
        raise ImageFault("image_missing", f"no file {name}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ImageFault("image_missing", f"'{name}' cannot be read ({reason})") from None
    if not content:
        raise ImageFault("image_empty", f"{name}: no bytes in the file")
    return content


def _one_line(path: str | os.PathLike[str]) -> str:
    """The path on one line, a long one without its middle."""
    text = os.fspath(path)
    text = text if text.isprintable() else ascii(text)[1:-1]
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}…{text[-half:]}"


@contextmanager
def opened_image(
    path: str | os.PathLike[str], content: bytes, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """Open the image in a file's content, and turn what its decoder raises in the block into an ImageFault.

    `formats`: those that it may have, in Pillow's names; None for all. Raises MemoryError, naming the file.
    """
    name = _one_line(path)
    is_identified = content.startswith(_SIGNATURES)
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            is_identified = True
            if image.width * image.height > MAX_DECODED_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except ImageFault:
        raise
    except MemoryError:  # says nothing about the file
        raise _no_memory(name) from None
    except Image.DecompressionBombError:
        message = f"{name}: more than the {MAX_DECODED_PIXELS:,} pixels that are decoded"
        raise ImageFault("image_too_large", message) from None
    except Exception as error:  # a decoder that is fed damaged bytes may raise anything
        if not is_identified:
            raise ImageFault("not_an_image", f"{name}: not an image of a known format") from None
        detail = " ".join(f"{type(error).__name__}: {str(error)[:200]}".split())
        if isinstance(error, UnidentifiedImageError):
            detail = "the header is not complete"
        raise ImageFault("image_truncated", f"{name}: cut off or damaged ({detail})") from None


def _no_memory(name: str) -> MemoryError:
    return MemoryError(f"{name}: not enough memory to read and decode it")


def _count_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception:  # later frames are damaged; only the first is shown
        return 1


def _is_wrong_extension(path: str | os.PathLike[str], format_: str) -> bool:
    extension = Path(path).suffix.lower()
    named = Image.registered_extensions().get(extension)
    return bool(extension) and named != _SAME_EXTENSIONS.get(format_, format_) and named != format_


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
