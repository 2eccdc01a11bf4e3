"""Records become requests: messages, tokens, seeds; images of any kind are decoded or row errors."""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hostile_images
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emocaliber.images import image_tokens, resized, to_rgb
from emocaliber.prompts import SYSTEM_PROMPT
from inference.backends.backend import Asking, EngineError, Refusal
from inference.backends.prepare import (
    Preparer,
    Request,
    RowError,
    chat_messages,
    load_image,
    locate,
    row_seed,
)

IMAGE, VIDEO, WORD = 7, 8, 1
ITEM = {"type": "image"}


def encode(messages: list[dict[str, Any]]) -> list[int]:
    """One token for each image, one for each word; the words IMAGE and VIDEO are the special tokens."""
    ids = []
    for message in messages:
        content = message["content"]
        for item in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            words = item.get("text", "").split()
            special = {"IMAGE": IMAGE, "VIDEO": VIDEO}
            ids += [IMAGE] if item["type"] == "image" else [special.get(word, WORD) for word in words]
    return ids


def render(request: Request) -> tuple[str, int]:
    if "w9" in request.id:
        raise RowError("request_refused", "not taken")
    return f"rendered {request.id}, {len(request.images)} images", 16


@pytest.fixture
def preparer(tmp_path: Path) -> Preparer:
    Image.new("RGB", (112, 112), "red").save(tmp_path / "a.png")
    Image.new("RGB", (56, 56), "red").save(tmp_path / "b.png")
    asking = Asking(tmp_path, 3136, 12544, temperature=0, top_p=1, max_new_tokens=9, seed=5)
    return Preparer(
        encode,
        asking,
        image_token_id=IMAGE,
        forbidden_token_ids=frozenset([VIDEO]),
        factor=28,
        max_model_len=100,
    )


def test_a_request_holds_what_decides_the_response(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    request = preparer.prepare(make_row("r", "a.png", "one two three"))
    assert isinstance(request, Request)
    n_system_words = len(SYSTEM_PROMPT.split())
    assert request.prompt_token_ids == [WORD] * n_system_words + [IMAGE] + [WORD] * 3
    assert request.n_image_tokens == 16
    assert [image.size for image in request.images] == [(112, 112)]
    assert request.seed == row_seed(5, "r")
    image = preparer.asking.image_root / "a.png"
    assert request.images_sha256 == [hashlib.sha256(image.read_bytes()).hexdigest()]


def test_a_prompt_may_fill_all_but_one_token(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    n_words = 99 - 16 - len(SYSTEM_PROMPT.split())
    assert isinstance(preparer.prepare(make_row("r", "a.png", "w " * n_words)), Request)
    refusal = preparer.prepare(make_row("r", "a.png", "w " * (n_words + 1)))
    assert isinstance(refusal, Refusal)
    assert (refusal.id, refusal.type) == ("r", "prompt_too_long")
    assert refusal.message == (
        "100 tokens (16 of images) and an answer do not fit in 100; "
        "raise --max-model-len or lower --max-pixels"
    )


@pytest.mark.parametrize("word", ["IMAGE", "VIDEO"])
def test_text_cannot_stand_for_an_image(word: str, preparer: Preparer, make_row: Callable[..., Any]) -> None:
    refusal = preparer.prepare(make_row("r", "a.png", f"look at {word}"))
    assert isinstance(refusal, Refusal)
    assert refusal.type == "prompt_invalid"


def test_a_missing_image_is_a_refusal(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    refusal = preparer.prepare(make_row("r", "gone.png"))
    assert isinstance(refusal, Refusal)
    assert refusal.type == "image_missing"


def test_several_images_count_together(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    content = [ITEM, {"type": "text", "text": "or"}, ITEM, {"type": "text", "text": "?"}]
    row = make_row("r", "", conversations=[{"role": "user", "content": content}], images=["a.png", "b.png"])
    request = preparer.prepare(row)
    assert isinstance(request, Request)
    assert request.n_image_tokens == 16 + 4


def test_rows_come_in_order_and_no_more_are_read_than_asked_for(
    preparer: Preparer, make_row: Callable[..., Any]
) -> None:
    read = []

    def rows() -> Any:
        for number in range(50):
            read.append(number)
            yield make_row(str(number), "a.png")

    prepared = preparer.prepare_ahead(rows(), render, threads=3, ahead=6)
    first = [next(prepared) for _ in range(10)]
    assert [row.id for row in first] == [str(number) for number in range(10)]
    assert [row.rendered for row in first if isinstance(row, Request)] == [
        f"rendered {number}, 1 images" for number in range(10)
    ]
    assert not any(row.images for row in first if isinstance(row, Request))  # they would fill the memory
    assert len(read) == 16
    prepared.close()


def test_what_the_engine_refuses_is_a_refusal(preparer: Preparer, make_row: Callable[..., Any]) -> None:
    rows = [make_row(identity, "a.png") for identity in ("w8", "w9", "w10")]
    prepared = list(preparer.prepare_ahead(rows, render, threads=2, ahead=3))
    assert [type(row) for row in prepared] == [Request, Refusal, Request]
    assert prepared[1] == Refusal("w9", "request_refused", "not taken")


def test_another_number_of_image_tokens_than_the_limits_imply_ends_the_run(
    preparer: Preparer, make_row: Callable[..., Any]
) -> None:
    rows = [make_row("r", "b.png")]  # 56 x 56: 4 tokens, and 16 are rendered
    with pytest.raises(EngineError, match="row r: its images have 16 tokens, the limits imply 4"):
        list(preparer.prepare_ahead(rows, render, threads=1, ahead=1))


def messages(*contents: tuple[str, Any], **fields: Any) -> dict[str, Any]:
    conversation = [{"role": role, "content": content} for role, content in contents]
    return {"conversations": conversation, "image": "a.png", **fields}


def test_the_published_form_gets_a_system_message() -> None:
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    assert chat_messages(messages(("user", content))) == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": [ITEM, {"type": "text", "text": "What?"}]},
    ]


@pytest.mark.parametrize("content", ["<image>What?", "What?", [{"type": "text", "text": "What?"}]])
def test_a_row_whose_message_is_a_text_has_its_image_first(content: Any) -> None:
    rendered = chat_messages(messages(("system", "Be brief."), ("user", content), ("assistant", "awe")))
    assert rendered == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [ITEM, {"type": "text", "text": "What?"}]},
    ]


@pytest.mark.parametrize(
    "row",
    [
        messages(("user", [ITEM, ITEM, {"type": "text", "text": "?"}])),
        messages(("user", [{"type": "video"}, {"type": "text", "text": "?"}])),
        messages(("user", [{"type": "text", "text": 3}])),
        messages(("user", None)),
        messages(("assistant", "awe")),
    ],
)
def test_messages_that_cannot_be_asked(row: dict[str, Any]) -> None:
    with pytest.raises(RowError) as caught:
        chat_messages(row)
    assert caught.value.type == "prompt_invalid"


def test_seeds_depend_on_run_and_row_only() -> None:
    assert row_seed(0, "r1") == 1_361_313_819  # sha256 of "0:r1", the first 31 bits
    assert len({row_seed(run, f"r{row}") for run in range(3) for row in range(100)}) == 300
    assert row_seed(0, "\ud800") < 2**31


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
    image, _ = load_image(path)
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
    assert load_image(path)[0].getpixel((0, 0)) == (64, 64, 64)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_white(mode: str) -> None:
    assert to_rgb(Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    path = save(tmp_path / "p.png", Image.new("P", (4, 4), 0), transparency=0)
    assert load_image(path)[0].getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = Image.new("RGB", (20, 40), "white")
    upright.paste("black", (0, 0, 20, 10))  # the top is black
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "lying.png", upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    image, _ = load_image(path)
    assert image.size == (20, 40)
    assert (image.getpixel((10, 5)), image.getpixel((10, 35))) == ((0, 0, 0), (255, 255, 255))


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert load_image(path)[0].getpixel((4, 4)) == (255, 0, 0)


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
        ("empty.png", b"", "image_unreadable", "no bytes in the file"),
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
            outcomes.add(load_image(path)[0].mode)
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
    assert load_image(tmp_path / "a.png")[0].size == (8, 8)


def test_a_link_in_the_root_may_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "a.png")
    (tmp_path / "root" / "set").symlink_to(tmp_path / "set")
    assert load_image(locate(tmp_path / "root", "set/a.png"))[0].size == (8, 8)
    with pytest.raises(RowError, match="outside"):
        locate(tmp_path / "root", "set/../../set/a.png")  # the name leaves, wherever it would arrive


def unreadable(path: Path) -> RowError:
    with pytest.raises(RowError) as caught:
        load_image(path)
    assert caught.value.message.isprintable() and len(caught.value.message) < 600
    return caught.value


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".png", "d/" * 3000 + "a.png", "\ud800.png", "file.png/a.png", "a\n.png"]
)
def test_a_name_that_no_file_has_is_a_missing_image(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(b"x")
    assert unreadable(tmp_path / name).type == "image_missing"


def test_a_loop_of_links_is_a_missing_image(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    error = unreadable(tmp_path / "loop.png")
    assert (error.type, "symbolic links" in error.message) == ("image_missing", True)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for a writer for ever
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "device.png"):
        error = unreadable(tmp_path / name)
        assert (error.type, error.message) == ("image_unreadable", f"{tmp_path / name} is not a file")


def test_a_file_without_permission_is_a_row_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def refuse(*arguments: object, **options: object) -> object:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.png"))

    monkeypatch.setattr("builtins.open", refuse)  # whoever runs the tests as root may read everything
    error = unreadable(tmp_path / "a.png")
    assert (error.type, "Permission denied" in error.message) == ("image_unreadable", True)


def test_only_formats_of_images_are_decoded(tmp_path: Path) -> None:
    """Pillow would start Ghostscript for an EPS, whatever its name says."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert "not an image of a known format" in unreadable(tmp_path / "a.png").message


@pytest.mark.parametrize("suffix", ["avif", "bmp", "gif", "jpg", "jp2", "png", "ppm", "tif", "webp"])
def test_every_format_that_is_named_is_decoded(suffix: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / f"a.{suffix}")
    assert load_image(tmp_path / f"a.{suffix}")[0].size == (40, 30)


def test_every_hostile_image_is_decoded_or_a_row_error(tmp_path: Path) -> None:
    ends = {}
    for name in hostile_images.save_images(tmp_path):
        try:
            ends[name] = "x".join(map(str, load_image(tmp_path / name)[0].size))
        except RowError as error:
            ends[name] = error.type
            assert "\n" not in error.message
    sound = {name: end for name, end in ends.items() if not name.startswith("damaged") and "x" in end}
    assert sound == {
        **dict.fromkeys(["good.png", "good.jpg", "exif_huge.jpg"], "112x112"),
        **dict.fromkeys(["animated.webp", "animated.gif", "animated.png"], "112x112"),
        **{"16_bit.png": "64x64", "grey.tif": "64x64", "one_pixel.png": "1x1", "ratio_200.png": "2800x14"},
        **{"64_megapixels.png": "8000x8000"},
    }
    too_large = {name for name, end in ends.items() if end == "image_too_large"}
    assert {"bomb.png", "bomb_edge.png", "bomb.gif", "bomb.bmp", "bomb.tif"} == too_large
    assert {"dangling.png", "loop.png"} == {name for name, end in ends.items() if end == "image_missing"}
    assert ends["ratio_201.png"] == "image_too_narrow"
