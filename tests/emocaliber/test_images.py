"""Image files of every kind that releases contain: facts and pixels of the good, reasons for the bad."""

import builtins
import hashlib
import os
import pickle
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emocaliber import images
from emocaliber.images import IMAGE_FAULTS, ImageFault, inspect_image, open_rgb, to_rgb

RED = (220, 30, 40)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def fault_of(path: Path, *, decode: bool = True) -> ImageFault:
    """The fault of a file, which both functions find."""
    with pytest.raises(ImageFault) as caught:
        inspect_image(path, decode=decode)
    if decode:
        with pytest.raises(ImageFault) as opened:
            open_rgb(path)
        assert (opened.value.reason, opened.value.message) == (caught.value.reason, caught.value.message)
    assert caught.value.reason in IMAGE_FAULTS
    assert str(path) in caught.value.message and "\n" not in caught.value.message
    return caught.value


def test_facts_of_a_plain_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", NOISE)
    facts = inspect_image(path)
    assert (facts.width, facts.height, facts.format, facts.mode, facts.n_frames) == (64, 48, "PNG", "RGB", 1)
    assert not facts.exif_rotated and not facts.wrong_extension
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.pixels_sha256 == hashlib.sha256(b"64 x 48\n" + NOISE.tobytes()).hexdigest()
    assert inspect_image(path, decode=False).pixels_sha256 is None


def test_pixels_are_the_same_in_every_lossless_file(tmp_path: Path) -> None:
    files = [save(tmp_path / name, NOISE) for name in ("a.png", "a.bmp", "a.tiff", "a.ppm")]
    files.append(save(tmp_path / "with_text.png", NOISE, compress_level=1))
    facts = [inspect_image(path) for path in files]
    assert len({fact.pixels_sha256 for fact in facts}) == 1
    assert len({fact.sha256 for fact in facts}) == len(files)


def test_the_same_bytes_in_another_shape_are_other_pixels(tmp_path: Path) -> None:
    wide = save(tmp_path / "wide.png", Image.new("RGB", (20, 10), RED))
    high = save(tmp_path / "high.png", Image.new("RGB", (10, 20), RED))
    assert inspect_image(wide).pixels_sha256 != inspect_image(high).pixels_sha256


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file(suffix: str, kept: float, tmp_path: Path) -> None:
    path = save(tmp_path / f"cut.{suffix}", NOISE)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert fault_of(path).reason == "image_truncated"
    assert inspect_image(path, decode=False).width == 64, "the header is complete"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif"])
def test_a_file_cut_off_in_its_header(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"cut.{suffix}", NOISE)
    path.write_bytes(path.read_bytes()[:9])
    assert fault_of(path).reason == "image_truncated"
    assert fault_of(path, decode=False).reason == "image_truncated"


@pytest.mark.parametrize(
    ("name", "format", "wrong"),
    [
        ("a.jpg", "PNG", True),
        ("a.png", "JPEG", True),
        ("a.JPEG", "JPEG", False),
        ("a.jpg", "JPEG", False),
        ("a.jpg", "WEBP", True),
        ("a.xyz", "JPEG", True),
        ("a", "JPEG", False),
    ],
)
def test_the_format_is_that_of_the_content(name: str, format: str, wrong: bool, tmp_path: Path) -> None:
    facts = inspect_image(save(tmp_path / name, NOISE, format=format))
    assert (facts.format, facts.wrong_extension) == (format, wrong)


def test_several_jpegs_in_one_file_are_rightly_called_jpg(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", NOISE, format="MPO", save_all=True, append_images=[NOISE])
    facts = inspect_image(path)
    assert (facts.format, facts.n_frames, facts.wrong_extension) == ("MPO", 2, False)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_colour_modes_keep_their_colour(mode: str, tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 30), RED)
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    path = save(tmp_path / f"a{suffix}", red.quantize(8) if mode == "P" else red.convert(mode))
    facts = inspect_image(path)
    assert facts.mode == ("RGB" if mode == "YCbCr" else mode)
    image = open_rgb(path)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(image, dtype=int) - RED).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_rotation(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", NOISE, exif=exif)
    size = (64, 48) if orientation < 5 else (48, 64)
    for decode in (True, False):
        facts = inspect_image(path, decode=decode)
        assert (facts.width, facts.height) == size
        assert facts.exif_rotated == (orientation != 1)
    assert open_rgb(path).size == size


def test_a_lying_image_is_shown_upright(tmp_path: Path) -> None:
    upright = Image.new("RGB", (20, 40), "white")
    upright.paste("black", (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = save(tmp_path / "lying.png", upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    image = open_rgb(lying)
    assert (image.getpixel((10, 5)), image.getpixel((10, 35))) == ((0, 0, 0), (255, 255, 255))
    straight = save(tmp_path / "upright.png", upright)
    assert inspect_image(lying).pixels_sha256 == inspect_image(straight).pixels_sha256


def animation(path: Path) -> Path:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    return save(path, frames[0], save_all=True, append_images=frames[1:])


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    facts = inspect_image(path)
    assert (facts.format, facts.n_frames, facts.wrong_extension) == ("GIF", 3, False)
    assert open_rgb(path).getpixel((4, 4)) == (255, 0, 0)
    still = save(tmp_path / "still.png", Image.new("RGB", (8, 8), "red"))
    assert facts.pixels_sha256 == inspect_image(still).pixels_sha256


def test_an_animation_cut_off_after_its_first_frame_is_shown(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.gif")
    path.write_bytes(path.read_bytes()[:-12])
    assert inspect_image(path).n_frames >= 1
    assert open_rgb(path).getpixel((4, 4)) == (255, 0, 0)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 100) + b"IDAT"  # and then nothing
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.png", None, "image_missing"),
        ("zero.jpg", b"", "image_empty"),
        ("text.jpg", b"not an image\n" * 50, "not_an_image"),
        ("page.jpg", b"<html><body>This photo is no longer available</body></html>", "not_an_image"),
        ("bomb.png", png_header(60_000, 60_000), "image_too_large"),
        ("header.png", png_header(64, 64), "image_truncated"),
    ],
)
def test_each_bad_file_has_its_reason(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert fault_of(tmp_path / name).reason == reason


def test_a_large_photograph_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png_header(12_000, 12_000))  # more than Pillow warns of, less than it refuses
    assert inspect_image(path, decode=False).width == 12_000


def test_what_cannot_be_read_is_missing(tmp_path: Path) -> None:
    assert fault_of(tmp_path).reason == "image_missing"
    with pytest.raises(ImageFault) as caught:
        inspect_image(f"{tmp_path}/a\0.png")
    assert caught.value.reason == "image_missing"
    os.symlink("a.png", tmp_path / "a.png")
    assert fault_of(tmp_path / "a.png").reason == "image_missing"


def test_a_pipe_is_no_file_whatever_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons: list[str] = []
    # A thread, as the reader of a pipe without a writer waits for ever.
    reading = threading.Thread(
        target=lambda: reasons.append(fault_of(tmp_path / "pipe.jpg").reason), daemon=True
    )
    reading.start()
    reading.join(timeout=10)
    assert reasons == ["image_missing"]


def no_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("place", "name"),
    [(Image, "open"), (images, "as_shown"), (builtins, "open")],
    ids=["header", "pixels", "file"],
)
def test_too_little_memory_is_not_the_fault_of_the_file(
    place: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", NOISE)
    monkeypatch.setattr(place, name, no_memory)
    for read in (inspect_image, open_rgb):
        with pytest.raises(MemoryError, match=r"a\.png: not enough memory"):
            read(path)


def test_too_little_memory_for_frames_is_not_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.gif", NOISE, save_all=True, append_images=[NOISE.rotate(90)])
    monkeypatch.setattr(type(Image.open(path)), "n_frames", property(no_memory))
    with pytest.raises(MemoryError):
        inspect_image(path)


def test_damaged_bytes_are_never_another_exception(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    outcomes = set()
    for suffix in ("png", "jpg", "gif", "tiff"):
        path = save(tmp_path / f"damaged.{suffix}", NOISE)
        content = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(content)
            for position in random.integers(8, len(content), 5):
                damaged[position] = random.integers(256)
            path.write_bytes(damaged)
            try:
                outcomes.add(inspect_image(path).mode)
            except ImageFault as fault:
                outcomes.add(fault.reason)
    assert "image_truncated" in outcomes and "RGB" in outcomes


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("L", (4, 4), 90), 90),
        (Image.new("1", (4, 4), 1), 255),
        (Image.fromarray(np.full((4, 4), 90 * 257, np.uint16)), 90),
        (Image.fromarray(np.full((4, 4), 70, np.int32)), 70),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), 127),
    ],
)
def test_grey_of_any_depth_keeps_its_brightness(image: Image.Image, grey: int) -> None:
    assert to_rgb(image).getpixel((1, 1)) == (grey, grey, grey)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    clear = save(tmp_path / "clear.png", Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert open_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = save(tmp_path / "palette.png", Image.new("P", (4, 4), 0), transparency=0)
    assert open_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    one_colour = save(tmp_path / "one.png", Image.new("RGB", (4, 4), RED), transparency=RED)
    assert open_rgb(one_colour).getpixel((0, 0)) == (255, 255, 255)
    facts = [inspect_image(path, decode=False).has_transparency for path in (clear, palette, one_colour)]
    assert facts == [True, True, True]
    assert not inspect_image(save(tmp_path / "a.png", NOISE)).has_transparency


def test_a_fault_passes_between_processes() -> None:
    fault = pickle.loads(pickle.dumps(ImageFault("image_empty", "a.png: no bytes")))
    assert (fault.reason, fault.message, str(fault)) == ("image_empty", "a.png: no bytes", "a.png: no bytes")
