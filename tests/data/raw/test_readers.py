"""Each raw release read from a small tree that imitates it: labels, splits, places, reasons for oddities."""

import json
from collections import Counter
from pathlib import Path

import pytest
import raw_trees as trees

from data.raw.readers import READERS, RawImage, ReaderSettings, Skipped, path_inside
from emocaliber.jsonl import RecordError
from emocaliber.taxonomy import MIKELS_8, TASKS, UNBIASED_6, WEBEMO_25


def read(
    dataset: str, root: Path, settings: ReaderSettings | None = None
) -> tuple[list[RawImage], list[Skipped]]:
    rows = list(READERS[dataset](root, settings or ReaderSettings()))
    images = [row for row in rows if isinstance(row, RawImage)]
    return images, [row for row in rows if isinstance(row, Skipped)]


def reasons(skipped: list[Skipped]) -> dict[str, str]:
    """Where each skipped thing was, by its reason; every reason once."""
    assert all(row.message and "\n" not in row.message for row in skipped)
    assert len({row.reason for row in skipped}) == len(skipped)
    return {row.reason: row.where for row in skipped}


def test_there_is_a_reader_for_every_data_set() -> None:
    assert set(READERS) == {task.dataset for task in TASKS.values()}


@pytest.mark.parametrize("with_id", [False, True])
def test_emoset(with_id: bool, tmp_path: Path) -> None:
    root = trees.make_emoset(tmp_path, {"train": 2, "val": 1, "test": 1}, with_id=with_id)
    images, skipped = read("EmoSet-118K", root)
    assert skipped == []
    assert images[0] == RawImage(
        "image/amusement/amusement_00000.jpg", "amusement", "train", "train.json:row 1"
    )
    assert Counter(image.split for image in images) == {"train": 16, "val": 8, "test": 8}
    assert all((root / image.path).is_file() and image.label in image.path for image in images)


def test_emoset_with_an_id_in_front(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(
        json.dumps([[17, "x1", "Awe", "image/awe/x1.jpg", "annotation/x1.json"]])
    )
    images, skipped = read("EmoSet-118K", tmp_path)
    assert images == [RawImage("image/awe/x1.jpg", "awe", "test", "test.json:row 1")]
    assert [(row.reason, row.where) for row in skipped] == [
        ("list_missing", "train.json"),
        ("list_missing", "val.json"),
    ]


def test_oddities_of_emoset(tmp_path: Path) -> None:
    trees.add_emoset_oddities(trees.make_emoset(tmp_path, {"train": 1, "val": 1, "test": 1}))
    images, skipped = read("EmoSet-118K", tmp_path)
    assert reasons(skipped) == {
        "malformed_row": "train.json:row 10",
        "unknown_label": "train.json:row 11",
        "image_outside_root": "train.json:row 12",
    }
    assert len(images) == 24 + 2


def test_fi(tmp_path: Path) -> None:
    images, skipped = read("FI", trees.make_fi(tmp_path, 3))
    assert skipped == []
    assert Counter(image.label for image in images) == dict.fromkeys(MIKELS_8, 3)
    path = "emotion_dataset/amusement/amusement_200000.jpg"
    assert images[0] == RawImage(path, "amusement", None, path)
    inner, _ = read("FI", tmp_path / "emotion_dataset")
    assert inner[0].path == "amusement/amusement_200000.jpg"


def test_oddities_of_fi(tmp_path: Path) -> None:
    trees.add_fi_oddities(trees.make_fi(tmp_path, 1))
    images, skipped = read("FI", tmp_path)
    assert reasons(skipped) == {
        "other_file": "emotion_dataset/anger/Thumbs.db",
        "unknown_label": "emotion_dataset/unsorted/a.jpg",
    }
    assert len(images) == 8 + 12 + 12


def test_webemo_by_its_lists(tmp_path: Path) -> None:
    images, skipped = read("WEBEmo", trees.make_webemo(tmp_path, {"train": 2, "test": 1}))
    assert skipped == []
    first = "images/train/0/stock-photo-300000.jpg"
    assert images[0] == RawImage(first, "affection", "train", "train25.txt:1")
    assert [image.label for image in images if image.split == "test"] == list(WEBEMO_25)


def test_webemo_by_its_folders(tmp_path: Path) -> None:
    trees.make_webemo(tmp_path, {"train": 1, "test": 1})
    trees.add_webemo_oddities(tmp_path)
    (tmp_path / "images/train/25").mkdir()
    trees.save(tmp_path / "images/train/25/a.jpg", 21)
    by_list = read("WEBEmo", tmp_path)[0]
    images, skipped = read("WEBEmo", tmp_path, ReaderSettings(webemo_source="folders"))
    assert reasons(skipped) == {"unknown_label": "images/train/25/a.jpg"}
    unlisted = RawImage("images/train/3/unlisted.jpg", "contentment", "train", "images/train/3/unlisted.jpg")
    assert unlisted in images
    pairs = {(image.path, image.label, image.split) for image in images if image != unlisted}
    assert pairs == {(image.path, image.label, image.split) for image in by_list}
    for name in ("train25.txt", "test25.txt"):
        (tmp_path / name).unlink()
    assert read("WEBEmo", tmp_path)[0] == images


def test_an_address_that_is_none_costs_its_own_line(tmp_path: Path) -> None:
    trees.make_webemo(tmp_path, {"train": 1})
    with open(tmp_path / "train25.txt", "a") as lines:
        lines.write("https://[bad/x.jpg 3\n")
    images, skipped = read("WEBEmo", tmp_path)
    assert len(images) == 25
    assert [(row.where, row.reason) for row in skipped] == [("train25.txt:26", "malformed_row")]


def test_a_name_longer_than_a_file_may_have_is_an_image_that_is_missing(tmp_path: Path) -> None:
    trees.make_abstract(tmp_path, [("a.jpg", [9, 0, 0, 0, 0, 0, 0, 0])])
    with open(tmp_path / "ABSTRACT_groundTruth.csv", "a") as table:
        table.write(f"'{'x' * 300}.jpg',9,0,0,0,0,0,0,0\n")
    images, _ = read("Abstract", tmp_path)
    assert len(images) == 2


def test_oddities_of_webemo(tmp_path: Path) -> None:
    trees.add_webemo_oddities(trees.make_webemo(tmp_path, {"train": 1, "test": 1}))
    images, skipped = read("WEBEmo", tmp_path)
    assert reasons(skipped) == {
        "image_missing": "train25.txt:26",
        "unknown_label": "train25.txt:27",
        "malformed_row": "train25.txt:28",
        "not_in_list": "images/train/3/unlisted.jpg",
    }
    assert len(images) == 50


@pytest.mark.parametrize(
    ("url", "file", "pattern"),
    [
        ("https://a.example.com/b/c%20d.jpg?size=2", "c d.jpg", "{basename}"),
        ("https://a.example.com/b/photo.jpeg", "photo.jpg", "{basename}"),  # another extension
        ("https://a.example.com/with a space.jpg", "with a space.jpg", "{basename}"),
        ("https://a.example.com/b/photo.jpg", "1.jpg", "{line}.jpg"),
        ("https://a.example.com/b/photo.jpg", "7_photo.png", "{index}_{stem}.png"),
    ],
)
def test_how_a_url_names_its_file_is_a_setting(url: str, file: str, pattern: str, tmp_path: Path) -> None:
    (tmp_path / "test25.txt").write_text(f"{url} 7\n")
    trees.save(tmp_path / "images/test/7" / file, 0)
    images, skipped = read("WEBEmo", tmp_path, ReaderSettings(webemo_file_name=pattern))
    assert (images, skipped) == ([RawImage(f"images/test/7/{file}", "envy", "test", "test25.txt:1")], [])


def test_unbiased_emo(tmp_path: Path) -> None:
    images, skipped = read("UnbiasedEmo", trees.make_unbiased_emo(tmp_path, 4))
    assert skipped == []
    assert Counter(image.label for image in images) == dict.fromkeys(UNBIASED_6, 4)
    assert images[0].path == "images/anger/car/1.jpg"


def test_artphoto(tmp_path: Path) -> None:
    root = trees.make_artphoto(tmp_path, dict.fromkeys(MIKELS_8, 2))
    trees.save(root / "testImages_artphoto/untitled.jpg", 1)
    (root / "testImages_artphoto/readme.txt").write_text("")
    images, skipped = read("ArtPhoto", root)
    assert reasons(skipped) == {
        "other_file": "testImages_artphoto/readme.txt",
        "unknown_label": "testImages_artphoto/untitled.jpg",
    }
    assert Counter(image.label for image in images) == dict.fromkeys(MIKELS_8, 2)
    assert "testImages_artphoto/sad_0001.jpg" in {image.path for image in images if image.label == "sadness"}


@pytest.fixture(scope="module")
def abstract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.make_abstract(tmp_path_factory.mktemp("abstract"), trees.abstract_rows(), size=2)


def test_abstract_has_exactly_229(abstract: Path) -> None:
    images, skipped = read("Abstract", abstract)
    assert Counter(image.label for image in images) == trees.ABSTRACT_LABELS
    assert len(images) == 229
    assert Counter(row.reason for row in skipped) == {"tied_votes": 51}
    assert "have 4 each" in skipped[0].message
    assert images[0].where.startswith("ABSTRACT_groundTruth.csv:")


def write_csv(root: Path, *lines: str) -> None:
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join([trees.ABSTRACT_HEADER, *lines]))


def test_oddities_of_abstract(tmp_path: Path) -> None:
    write_csv(
        tmp_path, "'a.jpg',1,2,10,9,0,0,0,0", "'b.jpg',1,2,many,0,0,0,0,0", "\"'c.jpg'\",0, 0,0,7,0,0,0,0"
    )
    for number, name in enumerate(("a.jpg", "b.jpg", "testImages_abstract/c.jpg", "d.jpg")):
        trees.save(tmp_path / name, number)
    images, skipped = read("Abstract", tmp_path)
    assert [(image.path, image.label) for image in images] == [
        ("a.jpg", "awe"),
        ("testImages_abstract/c.jpg", "contentment"),
    ]
    assert reasons(skipped) == {"malformed_row": "ABSTRACT_groundTruth.csv:3", "not_in_list": "d.jpg"}


def test_a_short_row_is_malformed(tmp_path: Path) -> None:
    write_csv(tmp_path, "'a.jpg',1,2", ",1,2,3,4,5,6,7,8", "'../a.jpg',1,2,3,4,5,6,7,8")
    assert [row.reason for row in read("Abstract", tmp_path)[1]] == ["malformed_row"] * 3


def test_a_csv_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ABSTRACT_groundTruth.csv"
    path.write_text("'','Amusement','Anger','Awe','Joy'\n'a.jpg',1,2,3,4\n")
    with pytest.raises(RecordError, match=r"csv:1: no column for contentment, disgust, excitement, fear"):
        read("Abstract", tmp_path)
    path.write_text("")
    with pytest.raises(RecordError, match="no column for amusement"):
        read("Abstract", tmp_path)


@pytest.mark.parametrize("dataset", READERS)
def test_another_folder_is_refused_in_one_line(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        read(dataset, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[", "\0"])
def test_a_broken_list_of_emoset_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(RecordError, match="fetch it again"):
        read("EmoSet-118K", tmp_path)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        ("a/../b.jpg", "b.jpg"),
        ("../b.jpg", None),
        ("/etc/b.jpg", None),
        ("..", None),
        ("", None),
        ("a\0.jpg", None),
    ],
)
def test_paths_stay_inside_the_release(written: str, path: str | None) -> None:
    assert path_inside(written) == path
