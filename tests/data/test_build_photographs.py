import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from emocaliber.records import read_records, record_images

SCRIPT = Path(__file__).resolve().parents[2] / "data" / "build_photographs.py"


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--output-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    run = build(folder)
    assert (run.returncode, run.stderr) == (0, "")
    return folder


def test_the_records_are_in_the_published_format(photographs: Path) -> None:
    records = read_records(photographs / "test.jsonl")
    assert len(records) == 16
    for record in records:
        (image,) = record_images(record)
        assert (photographs / image).is_file()
        assert record["ground_truth"] in record["candidates"]
        assert record["conversations"][0]["content"][0] == {"type": "image", "image": image}
        assert record["source"].endswith(("of scikit-image", "of scikit-learn"))


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
def test_every_form_of_file_is_there(name: str, format: str, mode: str, photographs: Path) -> None:
    with Image.open(photographs / "images" / name) as image:
        assert (image.format, image.mode) == (format, mode)


def test_a_telephone_and_a_large_photograph_are_there(photographs: Path) -> None:
    with Image.open(photographs / "images" / "temple.jpg") as image:
        upright = image.size
    with Image.open(photographs / "images" / "temple_exif_rotated.jpg") as image:
        assert image.size == upright[::-1]
        assert image.getexif()[0x0112] == 6
    with Image.open(photographs / "images" / "temple_12_megapixels.jpg") as image:
        assert image.size[0] * image.size[1] == 12_000_000


def test_sources_name_author_and_licence_of_every_file(photographs: Path) -> None:
    lines = (photographs / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    table = [
        line.split(" | ") for line in lines if line.startswith("| ") and "author and licence" not in line
    ]
    assert {cells[0].removeprefix("| ") for cells in table} == {
        path.name for path in (photographs / "images").iterdir()
    }
    for cells in table:
        assert any(
            licence in cells[2] for licence in ("CC0", "CC BY 2.0", "public domain", "no known copyright")
        )


def test_it_builds_the_same_files_again(photographs: Path, tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    for path in photographs.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(photographs)).read_bytes() == path.read_bytes()


def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("build_photographs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_photographs", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert module.main(["--output-dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "error: scikit-image with its sample astronaut.png is not installed; source setup_env.sh first\n"
    )
    assert not (tmp_path / "out").exists()
