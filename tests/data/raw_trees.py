"""Small folders that imitate the six raw releases behind VECBench, with the oddities that those contain.

Every maker writes below a folder and gives it back. Images are noise, each number another one.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from emocaliber.taxonomy import MIKELS_8, UNBIASED_6

ABSTRACT_LABELS = dict(zip(MIKELS_8, (25, 3, 15, 64, 18, 36, 36, 32), strict=True))
ABSTRACT_TIES = 51
ABSTRACT_HEADER = "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"
ARTPHOTO_LABELS = dict(zip(MIKELS_8, (101, 77, 102, 70, 70, 105, 115, 166), strict=True))


def draw(number: int, size: int = 16) -> Image.Image:
    """Give the noise image of a number."""
    values = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def save(path: Path, number: int, size: int = 16, **options: object) -> None:
    """Save the image of a number as JPEG, whatever the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(number, size).save(path, "JPEG", **options)


def make_emoset(
    root: Path, counts: Mapping[str, int], *, size: int = 16, with_id: bool = False, start: int = 100_000
) -> Path:
    """EmoSet-118K with so many images per emotion and split, names of the release, the three JSON lists."""
    number = start
    for split, count in counts.items():
        rows: list[list[str]] = []
        for label in MIKELS_8:
            for _ in range(count):
                name = f"{label}_{number % 100_000:05d}"
                save(root / f"image/{label}/{name}.jpg", number, size)
                annotation = root / f"annotation/{label}/{name}.json"
                annotation.parent.mkdir(parents=True, exist_ok=True)
                annotation.write_text(json.dumps({"image_id": name, "emotion": label}))
                identity = [name] if with_id else []
                rows.append(
                    [label, *identity, f"image/{label}/{name}.jpg", f"annotation/{label}/{name}.json"]
                )
                number += 1
        (root / f"{split}.json").write_text(json.dumps(rows))
    (root / "info.json").write_text(json.dumps({"dataset": "EmoSet-118K", "label2idx": {}}))
    return root


def add_emoset_oddities(root: Path) -> None:
    """A train image whose content the test holds, a broken row, an unknown emotion, paths to nowhere."""
    rows = json.loads((root / "train.json").read_text())
    label, path = json.loads((root / "test.json").read_text())[0][:2]
    copy = root / "image" / label / f"{label}_99999.jpg"
    copy.write_bytes((root / path).read_bytes())
    rows.append([label, f"image/{label}/{copy.name}", f"annotation/{label}/{copy.stem}.json"])
    rows.append(["awe"])
    rows.append(["boredom", "image/boredom/boredom_00001.jpg", "annotation/boredom/boredom_00001.json"])
    rows.append(["awe", "../../awe.jpg", "annotation/awe/awe_1.json"])
    rows.append(["awe", "image/awe/awe_88888.jpg", "annotation/awe/awe_88888.json"])
    (root / "train.json").write_text(json.dumps(rows))


def make_fi(root: Path, per_label: int, *, size: int = 16, start: int = 200_000) -> Path:
    """FI: emotion_dataset/EMOTION/*.jpg."""
    for place, label in enumerate(MIKELS_8):
        for index in range(per_label):
            number = start + place * 1000 + index
            save(root / f"emotion_dataset/{label}/{label}_{number}.jpg", number, size)
    return root


def add_fi_oddities(root: Path, n_placeholders: int = 12) -> None:
    """Placeholders over all emotions, an image of two emotions, a repeated one, and damaged files."""
    images = root / "emotion_dataset"
    placeholder = io.BytesIO()
    Image.new("RGB", (75, 56), "white").save(placeholder, "JPEG")
    for index in range(n_placeholders):
        (images / MIKELS_8[index % 8] / f"removed_{index}.jpg").write_bytes(placeholder.getvalue())
    save(images / "awe/both.jpg", 1)
    save(images / "fear/both.jpg", 1)
    save(images / "anger/once.jpg", 2)
    save(images / "anger/twice.jpg", 2)
    (images / "anger/Thumbs.db").write_bytes(b"\0" * 16)
    (images / "anger/zero.jpg").write_bytes(b"")
    (images / "anger/page.jpg").write_text("<html>This photo is no longer available</html>")
    save(images / "anger/cut.jpg", 3)
    whole = (images / "anger/cut.jpg").read_bytes()
    (images / "anger/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "unsorted").mkdir()
    save(images / "unsorted/a.jpg", 4)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(images / "awe/lying.jpg", 5, exif=exif)
    draw(6).convert("CMYK").save(images / "awe/cmyk.jpg")
    draw(7).save(images / "awe/png.jpg", "PNG")
    frames = [draw(8), draw(9)]
    frames[0].save(images / "awe/moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (2010, 10)).save(images / "awe/narrow.png")


def make_webemo(root: Path, counts: Mapping[str, int], *, size: int = 16, start: int = 300_000) -> Path:
    """WEBEmo with so many images per label and split: `url label` lists, images/SPLIT/LABEL/*.jpg."""
    number = start
    for split, count in counts.items():
        lines = []
        for index in range(25):
            for _ in range(count):
                save(root / f"images/{split}/{index}/stock-photo-{number}.jpg", number, size)
                lines.append(f"https://images.example.com/z/stock-photo-{number}.jpg {index}")
                number += 1
        (root / f"{split}25.txt").write_text("".join(line + "\n" for line in lines))
    return root


def add_webemo_oddities(root: Path) -> None:
    """A dead URL, a label that does not exist, a line without one, a file that no line names."""
    with open(root / "train25.txt", "a") as lines:
        lines.write(
            "https://images.example.com/gone.jpg 3\nhttps://images.example.com/b.jpg 25\nnonsense\n\n"
        )
    save(root / "images/train/3/unlisted.jpg", 20)


def make_unbiased_emo(root: Path, per_label: int, *, size: int = 16, start: int = 400_000) -> Path:
    """UnbiasedEmo: images/EMOTION/OBJECT/*.jpg."""
    for place, label in enumerate(UNBIASED_6):
        for index in range(per_label):
            thing = ("cat", "car", "house")[index % 3]
            save(root / f"images/{label}/{thing}/{index}.jpg", start + place * 1000 + index, size)
    return root


def make_artphoto(root: Path, counts: Mapping[str, int], *, size: int = 16, start: int = 500_000) -> Path:
    """ArtPhoto: testImages_artphoto/EMOTION_NNNN.jpg, sadness as `sad`."""
    number = start
    for label, count in counts.items():
        for index in range(1, count + 1):
            written = {"sadness": "sad"}.get(label, label)
            save(root / f"testImages_artphoto/{written}_{index:04d}.jpg", number, size)
            number += 1
    return root


def abstract_rows() -> list[tuple[str, list[int]]]:
    """280 names with votes: 229 with one most voted emotion in the released counts, 51 ties between two.

    Many a decision is 10 against 9, which as texts is the other way round.
    """
    rows = []
    for place, (label, count) in enumerate(ABSTRACT_LABELS.items()):
        for index in range(count):
            votes = [0] * 8
            votes[place], votes[(place + 1 + index % 7) % 8] = 10, 9
            rows.append((label, votes))
    for index in range(ABSTRACT_TIES):
        votes = [1] * 8
        votes[index % 8] = votes[(index + 3) % 8] = 4
        rows.append(("", votes))
    # The release is not in the order of the labels.
    order = np.random.default_rng(0).permutation(len(rows))
    return [(f"abstract_{place:04d}.jpg", rows[index][1]) for place, index in enumerate(order, start=1)]


def make_abstract(
    root: Path, rows: Sequence[tuple[str, list[int]]], *, size: int = 16, start: int = 600_000
) -> Path:
    """Abstract: the csv with its quotes, flat images."""
    lines = [ABSTRACT_HEADER]
    for number, (name, votes) in enumerate(rows, start=start):
        save(root / name, number, size)
        lines.append(f"'{name}'," + ",".join(map(str, votes)))
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join(lines) + "\n")
    return root
