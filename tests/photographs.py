"""Write real photographs as records in the published format, in every form that image files come in.

    python data/build_photographs.py --output-dir data/photographs

They are the freely licensed samples that scikit-image and scikit-learn ship; nothing is downloaded.
SOURCES.md beside them names authors and licences, from those packages' own notes. `ground_truth` is one
person's opinion and means nothing: these rows show that photographs run, not how well a model reads them.
"""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from emocaliber.command_line import CommandParser
from emocaliber.prompts import conversation
from emocaliber.records import Record, write_jsonl_atomic, write_text_atomic
from emocaliber.taxonomy import TASKS

PACKAGES = {"skimage": ("scikit-image", "data"), "sklearn": ("scikit-learn", "datasets/images")}
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
    import numpy as np

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there"
    )
    folder: Path = parser.parse_args(argv).output_dir
    try:
        sources = {name: locate(name) for name in SOURCES}
        (folder / "images").mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / "SOURCES.md", sources_text())
        write_jsonl_atomic(folder / "test.jsonl", list(build(folder, sources)))
    except (LookupError, OSError) as error:
        print(f"error: {error.args[0] if isinstance(error, LookupError) else error}", file=sys.stderr)
        return 2
    print(f"wrote {folder / 'test.jsonl'}: {len(PHOTOGRAPHS)} photographs")
    return 0


def locate(name: str) -> Path:
    """Find a sample in its package, without importing that. Raises LookupError if it is not there."""
    package, _ = SOURCES[name]
    distribution, folder = PACKAGES[package]
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / folder / name
        if path.is_file():
            return path
    raise LookupError(f"{distribution} with its sample {name} is not installed; source setup_env.sh first")


def build(folder: Path, sources: dict[str, Path]) -> Iterator[Record]:
    """Write every image; yields its record."""
    for photograph in PHOTOGRAPHS:
        relative = f"images/{photograph.name}"
        with Image.open(sources[photograph.source]) as image:
            photograph.write(image, folder / relative)
        candidates = list(TASKS[photograph.task].labels)
        yield {
            "id": f"photograph-{Path(photograph.name).stem}",
            "image": relative,
            "conversations": conversation(relative, candidates),
            "task": photograph.task,
            "ground_truth": photograph.opinion,
            "candidates": candidates,
            "source": f"{photograph.source} of {PACKAGES[SOURCES[photograph.source][0]][0]}",
        }


def sources_text() -> str:
    """Give SOURCES.md: which file comes from where, by whom, under which licence."""
    lines = [
        "# Sources of the photographs",
        "",
        "From the notes of scikit-image (`skimage.data`) and scikit-learn (`datasets/images/README.txt`).",
        "A name that says more than the source's was converted from it.",
        "",
        "| file | from | author and licence |",
        "|---|---|---|",
    ]
    for photograph in PHOTOGRAPHS:
        package, licence = SOURCES[photograph.source]
        lines.append(f"| {photograph.name} | {photograph.source} of {PACKAGES[package][0]} | {licence} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
