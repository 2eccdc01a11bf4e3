import struct
import zlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emocaliber.images import image_tokens, resized
from inference.backends.backend import EngineError
from inference.backends.prepare import RowError, load_image, locate, to_rgb


def test_resizing_is_that_of_the_image_processor() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    @given(
        height=st.integers(1, 5000),
        width=st.integers(1, 5000),
        factor=st.sampled_from([28, 32]),
        limits=st.tuples(st.integers(784, 600_000), st.integers(784, 600_000)).map(sorted),
    )
    def check(height: int, width: int, factor: int, limits: list[int]) -> None:
        if max(height, width) <= 200 * min(height, width):
            expected = smart_resize(height, width, factor, limits[0], limits[1])
            assert resized(height, width, factor, limits[0], limits[1]) == tuple(expected)

    check()


@pytest.mark.parametrize(
    ("width", "height", "limits", "tokens"),
    [
        (112, 112, (3136, 12544), 16),  # 4 x 4 squares of 28
        (224, 224, (3136, 12544), 16),  # shrunk to 112 x 112
        (1, 1, (3136, 12544), 4),  # grown to 56 x 56
        (224, 112, (3136, 12544), 10),  # shrunk by 1.41 to 158 x 79: 5 x 2 squares
        (4000, 3000, (200_704, 451_584), 540),  # the published limits, at most 576 squares: 756 x 560
        (224, 224, (200_704, 451_584), 256),  # 448 x 448
    ],
)
def test_image_tokens_worked_by_hand(width: int, height: int, limits: tuple[int, int], tokens: int) -> None:
    assert image_tokens(width, height, 28, *limits) == tokens


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


RED = (220, 30, 40)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_colour_modes_keep_their_colour(mode: str, tmp_path: Path) -> None:
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    red = Image.new("RGB", (40, 30), RED)
    path = save(tmp_path / f"image{suffix}", red.quantize(8) if mode == "P" else red.convert(mode))
    image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(image, dtype=int) - RED).max() <= 6


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("L", (4, 4), 90), 90),
        (Image.new("1", (4, 4), 1), 255),
        (Image.fromarray(np.full((4, 4), 90 * 257, np.uint16)), 90),
        (Image.fromarray(np.full((4, 4), 70, np.int32)), 70),
        (Image.fromarray(np.full((4, 4), 90 * 257, np.int32)), 90),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), 127),
        (Image.fromarray(np.full((4, 4), 200.0, np.float32)), 200),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), 0),
    ],
)
def test_grey_of_any_depth_keeps_its_brightness(image: Image.Image, grey: int) -> None:
    assert to_rgb(image).getpixel((1, 1)) == (grey, grey, grey)


def test_a_16_bit_file_is_not_white(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", Image.fromarray(np.full((4, 4), 64 * 257, np.uint16)))
    assert load_image(path).getpixel((0, 0)) == (64, 64, 64)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    assert to_rgb(Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    path = save(tmp_path / "p.png", Image.new("P", (4, 4), 0), transparency=0)
    assert load_image(path).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = Image.new("RGB", (20, 40), "white")
    upright.paste("black", (0, 0, 20, 10))  # the top is black
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "lying.png", upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    image = load_image(path)
    assert image.size == (20, 40)
    assert (image.getpixel((10, 5)), image.getpixel((10, 35))) == ((0, 0, 0), (255, 255, 255))


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_image(path).getpixel((4, 4)) == (255, 0, 0)


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 100) + b"IDAT"  # and then nothing
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data


def photograph_bytes(path: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return save(path, Image.fromarray(noise)).read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "type", "part"),
    [
        ("gone.png", None, "image_missing", "no file"),
        ("empty.png", b"", "image_unreadable", "not an image of a known format"),
        ("text.jpg", b"not an image\n" * 50, "image_unreadable", "not an image of a known format"),
        ("bomb.png", png_header(60_000, 60_000), "image_too_large", "178,956,970"),
        ("narrow.png", png_header(4020, 20), "image_too_narrow", "1 to 200"),
        ("header.png", png_header(64, 64), "image_unreadable", "header.png: "),
    ],
)
def test_a_bad_file_is_a_named_error(
    name: str, content: bytes | None, type: str, part: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RowError) as caught:
        load_image(tmp_path / name)
    assert caught.value.type == type
    assert part in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_cut_off_in_the_middle_is_unreadable(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    content = photograph_bytes(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RowError) as caught:
        load_image(path)
    assert caught.value.type == "image_unreadable"


def test_damaged_bytes_are_never_another_exception(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    content = photograph_bytes(path)
    random = np.random.default_rng(1)
    outcomes = set()
    for _ in range(200):
        damaged = bytearray(content)
        for position in random.integers(8, len(content), 5):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            outcomes.add(load_image(path).mode)
        except RowError as error:
            outcomes.add(error.type)
    assert "image_unreadable" in outcomes


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="is not a file"):
        load_image(tmp_path)


def test_paths_are_relative_to_the_root_and_stay_below_it(tmp_path: Path) -> None:
    assert locate(tmp_path, "images/../a.png") == tmp_path / "a.png"
    assert locate(tmp_path, str(tmp_path / "a.png")) == tmp_path / "a.png"
    escapes = (
        "../a.png",
        "images/../../a.png",
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "https://example.org/a.png",
    )
    urls = (
        "HTTP:a.png",
        "file:///etc/passwd",
        "file:/etc/passwd",
        "data:image/png;base64,iVBOR",
        "s3://b/a.png",
    )
    for name in (*escapes, *urls, "a\0.png"):
        with pytest.raises(RowError) as caught:
            locate(tmp_path, name)
        assert caught.value.type == "image_outside_root"
    assert locate(Path("/"), "/data/a.png") == Path("/data/a.png")


def test_names_that_only_look_strange_are_paths(tmp_path: Path) -> None:
    for name in ("a:b.png", "12:30.png", "~/a.png", "$HOME.png", "..a.png", "datable.png", "\\\\host\\a.png"):
        assert locate(tmp_path, name) == tmp_path / name


def test_too_little_memory_is_no_fault_of_the_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with (
        patch.object(Image, "open", side_effect=MemoryError),
        pytest.raises(EngineError, match=r"a\.png: not enough"),
    ):
        load_image(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == (8, 8)
