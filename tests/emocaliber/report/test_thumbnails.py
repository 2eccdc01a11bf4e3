"""Thumbnails: one a file, small and upright, none from outside the root or for what cannot be read."""

import base64
import io
import os

import numpy as np
from PIL import Image

from emocaliber.report.page import thumbnails_of


def save_image(path, color="red", size=(300, 150), mode="RGB", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **more)


def thumbnails_for(tmp_path, *images):
    pictures, places = thumbnails_of(images, tmp_path / "root")
    return places, pictures


def test_rows_with_one_image_share_a_small_copy_of_it(tmp_path):
    save_image(tmp_path / "root" / "a.png")
    save_image(tmp_path / "root" / "b.jpg", "blue", (40, 20))
    places, thumbnails = thumbnails_for(tmp_path, "a.png", "b.jpg", "./a.png", "x/../a.png", "b.jpg")
    assert places == [0, 1, 0, 0, 1]
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in thumbnails]
    assert [(image.format, image.size) for image in images] == [("JPEG", (96, 48)), ("JPEG", (40, 20))]


def test_wide_grey_is_shown_as_the_model_sees_it(tmp_path):
    (tmp_path / "root").mkdir()
    values = np.full((40, 40), 32768, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "root" / "wide.png")
    _, [text] = thumbnails_for(tmp_path, "wide.png")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=int)
    assert abs(shown - 127).max() <= 2  # a JPEG is not exact


def test_an_image_outside_the_root_is_not_read(tmp_path):
    save_image(tmp_path / "secret.png")
    save_image(tmp_path / "root_of_another" / "b.png")
    save_image(tmp_path / "root" / "a.png")
    os.symlink(tmp_path / "secret.png", tmp_path / "root" / "link.png")
    outside = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "../root_of_another/b.png"]
    assert thumbnails_for(tmp_path, *outside) == ([None] * 4, [])
    assert thumbnails_for(tmp_path, "link.png", str(tmp_path / "root" / "a.png"))[0] == [None, 0]


def test_an_image_that_cannot_be_read_costs_its_thumbnail_only(tmp_path):
    root = tmp_path / "root"
    save_image(root / "good.png")
    (root / "text.png").write_text("no image", encoding="utf-8")
    (root / "cut.png").write_bytes((root / "good.png").read_bytes()[:60])
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    names = [
        "text.png",
        "cut.png",
        "folder.png",
        "pipe.png",
        "no.png",
        "a\0b",
        "\ud800",
        "x" * 5000,
        "",
        None,
    ]
    places, thumbnails = thumbnails_for(tmp_path, *names, "good.png")
    assert places == [*[None] * len(names), 0]
    assert len(thumbnails) == 1


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, recwarn):
    save_image(tmp_path / "root" / "large.png", 1, (10_000, 9_000), "1")
    save_image(tmp_path / "root" / "long.png", 1, (50_000, 1_000), "1")  # exactly as many as may be
    assert thumbnails_for(tmp_path, "large.png", "long.png")[0] == [None, 0]
    assert not recwarn.list


def test_a_thumbnail_is_upright_and_its_paper_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    save_image(tmp_path / "root" / "turned.jpg", exif=exif)
    save_image(tmp_path / "root" / "clear.png", (0, 0, 0, 0), mode="RGBA")
    _, thumbnails = thumbnails_for(tmp_path, "turned.jpg", "clear.png")
    turned, clear = (Image.open(io.BytesIO(base64.b64decode(text))) for text in thumbnails)
    assert turned.size == (48, 96)
    assert clear.getpixel((5, 5)) == (255, 255, 255)
