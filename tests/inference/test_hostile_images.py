"""Files that are no images, no files or too much: each is a row error, none is opened that waits or runs."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from inference.backends.prepare import RowError, load_image, locate

sys.path.append(str(Path(__file__).parent))

import hostile_images


def test_a_link_in_the_root_may_lead_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "set").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "a.png")
    (tmp_path / "root" / "set").symlink_to(tmp_path / "set")
    assert load_image(locate(tmp_path / "root", "set/a.png")).size == (8, 8)
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
    assert load_image(tmp_path / f"a.{suffix}").size == (40, 30)


def test_every_hostile_image_is_decoded_or_a_row_error(tmp_path: Path) -> None:
    ends = {}
    for name in hostile_images.save_images(tmp_path):
        try:
            ends[name] = "x".join(map(str, load_image(tmp_path / name).size))
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
