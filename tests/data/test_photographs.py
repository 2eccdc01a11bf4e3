"""The photographs that tests are given are real files of every form, and as records they are valid."""

from pathlib import Path

import pytest
from photographs import write_photographs
from PIL import Image

from emocaliber.images import inspect_image
from emocaliber.records import read_records, record_images


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs")).parent


def test_the_records_are_in_the_published_format(photographs: Path) -> None:
    records = read_records(photographs / "test.jsonl")
    assert len(records) == 16
    for record in records:
        (image,) = record_images(record)
        assert (photographs / image).is_file()
        assert record["conversations"][0]["content"][0] == {"type": "image", "image": image}


@pytest.mark.parametrize(
    ("name", "format", "mode"),
    [
        ("cat.png", "PNG", "RGB"),
        ("photographer_grey.png", "PNG", "L"),
        ("coffee_palette.png", "PNG", "P"),
        ("flower_cmyk.jpg", "JPEG", "CMYK"),
        ("astronaut_rgba.png", "PNG", "RGBA"),
        ("photographer_16_bit.png", "PNG", "I;16"),
        ("cat_bilevel.tif", "TIFF", "1"),
    ],
)
def test_every_form_of_file_is_there_and_decodes(
    name: str, format: str, mode: str, photographs: Path
) -> None:
    with Image.open(photographs / "images" / name) as image:
        assert (image.format, image.mode) == (format, mode)
    assert inspect_image(photographs / "images" / name).pixels_sha256


def test_a_telephone_and_a_large_photograph_are_there(photographs: Path) -> None:
    with Image.open(photographs / "images" / "temple.jpg") as image:
        upright = image.size
    with Image.open(photographs / "images" / "temple_exif_rotated.jpg") as image:
        assert image.size == upright[::-1]
        assert image.getexif()[0x0112] == 6
    with Image.open(photographs / "images" / "temple_12_megapixels.jpg") as image:
        assert image.size[0] * image.size[1] == 12_000_000
