"""Real photographs as records in the published format, in every form that image files come in.

They are the freely licensed samples that scikit-image and scikit-learn ship; nothing is downloaded.
`ground_truth` is one person's opinion and means nothing: these rows show that photographs run, not how well
a model reads them.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from emocaliber.jsonl import write_jsonl_atomic
from emocaliber.prompts import conversation
from emocaliber.records import Record
from emocaliber.taxonomy import TASKS

FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
SOURCES = {  # file: package, author and licence
    "astronaut.png": (
        "skimage",
        "NASA (Great Images database); no known copyright restrictions, public domain",
    ),
    "camera.png": ("skimage", "Lav Varshney; CC0"),
    "chelsea.png": ("skimage", "Stefan van der Walt; CC0"),
    "coffee.png": ("skimage", "Rachel Michetti; CC0"),
    "coins.png": ("skimage", "Brooklyn Museum (Greek coins from Pompeii); no known copyright restrictions"),
    "hubble_deep_field.jpg": ("skimage", "NASA (Hubble Extreme Deep Field); public domain"),
    "rocket.jpg": ("skimage", "SpaceX (launch of Falcon 9 with DSCOVR); public domain"),
    "china.jpg": ("sklearn", "danielbuechele, flickr.com/photos/danielbuechele/6061409035; CC BY 2.0"),
    "flower.jpg": ("sklearn", "vultilion, flickr.com/photos/vultilion/6056698931; CC BY 2.0"),
}
EXIF_ORIENTATION = 0x0112
TWELVE_MEGAPIXELS = (4000, 3000)


@dataclass(frozen=True)
class Photograph:
    """One row: the file to make, of which source and how, and what is asked about it."""

    name: str
    source: str
    write: Callable[[Image.Image, Path], None]
    task: str
    opinion: str


def as_is(image: Image.Image, path: Path) -> None:
    """Copy the file."""
    shutil.copyfile(image.filename, path)  # type: ignore[attr-defined]


def as_palette(image: Image.Image, path: Path) -> None:
    """Save 256 colours out of a palette, with a transparent one."""
    image.convert("RGB").quantize(256).save(path, transparency=0)


def as_cmyk(image: Image.Image, path: Path) -> None:
    """Save a four-colour JPEG, as printers' files are."""
    image.convert("CMYK").save(path, quality=92)


def as_rotated(image: Image.Image, path: Path) -> None:
    """Save lying pixels and an EXIF entry that says to turn them upright, as telephones do."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # shown after a quarter turn clockwise
    image.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=92)


def as_large(image: Image.Image, path: Path) -> None:
    """Save twelve million pixels."""
    image.convert("RGB").resize(TWELVE_MEGAPIXELS, Image.Resampling.BICUBIC).save(path, quality=85)


def as_transparent(image: Image.Image, path: Path) -> None:
    """Save RGBA that is opaque inside an ellipse only."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, *image.size), fill=255)
    image = image.convert("RGB")
    image.putalpha(mask)
    image.save(path)


def as_wide_grey(image: Image.Image, path: Path) -> None:
    """Save 16 bits of grey."""
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    Image.fromarray(grey).save(path)


def as_bilevel(image: Image.Image, path: Path) -> None:
    """Save black and white only, one bit a pixel."""
    image.convert("1").save(path)


PHOTOGRAPHS = (
    Photograph("cat.png", "chelsea.png", as_is, "EmoSet-8", "contentment"),
    Photograph("coffee.png", "coffee.png", as_is, "FI-2", "positive"),
    Photograph("astronaut.png", "astronaut.png", as_is, "FI-8", "excitement"),
    Photograph("rocket.jpg", "rocket.jpg", as_is, "EmoSet-8", "excitement"),
    Photograph("galaxies.jpg", "hubble_deep_field.jpg", as_is, "Artphoto-8", "awe"),
    Photograph("temple.jpg", "china.jpg", as_is, "WebEmo-25", "enthrallment"),
    Photograph("flower.jpg", "flower.jpg", as_is, "WebEmo-7", "love"),
    Photograph("photographer_grey.png", "camera.png", as_is, "UnbiasedEmo-6", "joy"),
    Photograph("coins_grey.png", "coins.png", as_is, "Abstract-8", "awe"),
    Photograph("coffee_palette.png", "coffee.png", as_palette, "WebEmo-2", "positive"),
    Photograph("flower_cmyk.jpg", "flower.jpg", as_cmyk, "EmoSet-8", "contentment"),
    Photograph("temple_exif_rotated.jpg", "china.jpg", as_rotated, "FI-8", "awe"),
    Photograph("temple_12_megapixels.jpg", "china.jpg", as_large, "EmoSet-8", "awe"),
    Photograph("astronaut_rgba.png", "astronaut.png", as_transparent, "WebEmo-7", "joy"),
    Photograph("photographer_16_bit.png", "camera.png", as_wide_grey, "FI-2", "positive"),
    Photograph("cat_bilevel.tif", "chelsea.png", as_bilevel, "UnbiasedEmo-6", "love"),
)


def write_photographs(folder: Path) -> Path:
    """Make FOLDER/test.jsonl and its images; gives the path of the records."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_jsonl_atomic(folder / "test.jsonl", records(folder))
    return folder / "test.jsonl"


def records(folder: Path) -> Iterator[Record]:
    for photograph in PHOTOGRAPHS:
        relative = f"images/{photograph.name}"
        with Image.open(located(photograph.source)) as image:
            photograph.write(image, folder / relative)
        candidates = list(TASKS[photograph.task].labels)
        yield {
            "id": f"photograph-{Path(photograph.name).stem}",
            "image": relative,
            "conversations": conversation(relative, candidates),
            "task": photograph.task,
            "ground_truth": photograph.opinion,
            "candidates": candidates,
        }


def located(name: str) -> Path:
    """A sample in its package, which is not imported."""
    package, _ = SOURCES[name]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / FOLDERS[package] / name
