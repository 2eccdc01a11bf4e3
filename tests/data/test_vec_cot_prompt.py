"""What the teacher is sent: the image as a viewer sees it, the text with its places filled in, their hash."""

import base64
import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from data.vec_cot.rows import Row
from data.vec_cot.teacher import data_url, prompt_hash, question_text, read_template

ROW = Row("f:1", "r", "Two", "awe", ("awe", "fear"), "a.jpg", pixels="0")


def sent(path: Path, max_pixels: int | None = None) -> tuple[str, bytes]:
    kind, _, content = data_url(path, max_pixels).partition(";base64,")
    return kind, base64.b64decode(content)


def test_images_are_sent_as_a_viewer_sees_them(tmp_path: Path) -> None:
    photo = Image.effect_noise((60, 40), 50).convert("RGB")
    photo.save(tmp_path / "wrong.png", "JPEG")
    assert sent(tmp_path / "wrong.png") == ("data:image/jpeg", (tmp_path / "wrong.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    photo.convert("CMYK").save(tmp_path / "print.jpg")
    for name, size in (("turned.jpg", (40, 60)), ("print.jpg", (60, 40))):
        kind, content = sent(tmp_path / name)
        with Image.open(io.BytesIO(content)) as shown:
            assert (kind, shown.size, shown.mode) == ("data:image/jpeg", size, "RGB")
    with Image.open(io.BytesIO(sent(tmp_path / "wrong.png", 600)[1])) as shown:
        assert shown.size == (30, 20)


def test_a_transparent_colour_of_the_header_is_drawn_on_white(tmp_path: Path) -> None:
    for mode, colour in (("RGB", (200, 0, 0)), ("L", 9)):
        Image.new(mode, (8, 8), colour).save(tmp_path / "clear.png", transparency=colour)
        kind, content = sent(tmp_path / "clear.png")
        with Image.open(io.BytesIO(content)) as shown:
            assert (kind, shown.getpixel((4, 4))) == ("data:image/jpeg", (255, 255, 255))


def test_only_one_who_is_told_reads_the_label() -> None:
    told = question_text(read_template("own", blind=False), ROW, with_confidence=True)
    blind = question_text(
        read_template("own", blind=True), replace(ROW, label="sadness"), with_confidence=False
    )
    assert "Of awe, fear, awe was named most." in told and "<confidence>" in told
    assert "sadness" not in blind and "awe, fear" in blind and "<confidence>" not in blind
    for text in (told, blind):
        assert "<analysis>" in text and "</think><answer>" in text and "{" not in text


def test_the_hash_hangs_on_all_that_is_asked() -> None:
    request = {"model": "m", "temperature": 0.0}
    hashes = [
        prompt_hash(ROW, "text", request, None),
        prompt_hash(ROW, "other", request, None),
        prompt_hash(ROW, "text", request | {"temperature": 0.5}, None),
        prompt_hash(ROW, "text", request, 100),
        prompt_hash(replace(ROW, pixels="1"), "text", request, None),
    ]
    assert len(set(hashes)) == 5
    assert prompt_hash(replace(ROW, image="b.jpg"), "text", request, None) == hashes[0], "the same picture"
