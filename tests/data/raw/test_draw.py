"""The draw of VECBench: sizes, shares of the labels, splits kept, train and test apart."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_trees as trees
from hypothesis import given
from hypothesis import strategies as st
from vecbench_builds import built, rows

from data.raw import draw as vecbench_draw
from data.raw.scan import BUILD_TABLES, temporary_database
from emocaliber.images import inspect_image
from emocaliber.taxonomy import MIKELS_8


def test_emoset_keeps_its_own_splits(raw: Path, benchmark: Path) -> None:
    for split, n in (("test", 16), ("train", 24)):
        released = {
            row[1] for row in json.loads((raw / f"EmoSet-118K/{split}.json").read_text()) if len(row) > 1
        }
        mine = [row["image"] for row in rows(benchmark / f"{split}.jsonl") if row["task"] == "EmoSet-8"]
        assert len(mine) == n and {image.removeprefix("images/EmoSet-118K/") for image in mine} <= released


def pixels(folder: Path, split: str) -> dict[str, set[str]]:
    """The contents that the images of each task have."""
    found: dict[str, set[str]] = {}
    for row in rows(folder / f"{split}.jsonl"):
        sum_of_pixels = inspect_image(folder / row["image"]).pixels_sha256
        assert sum_of_pixels is not None
        found.setdefault(row["task"], set()).add(sum_of_pixels)
    return found


@pytest.mark.parametrize("tasks", ["apart", "shared"])
def test_no_training_image_has_the_content_of_a_test_image(tasks: str, raw: Path, tmp_path: Path) -> None:
    rows_wanted = ("--test-rows", "FI-2=5", "FI-8=5", "WebEmo-2=9")
    folder = built(
        [raw / "FI", raw / "WEBEmo", raw / "EmoSet-118K"], tmp_path, "--tasks", tasks, *rows_wanted
    )
    test, train = pixels(folder, "test"), pixels(folder, "train")
    assert set().union(*test.values()).isdisjoint(set().union(*train.values()))
    assert bool(train["FI-2"] & train["FI-8"]) == (tasks == "shared")
    assert bool(train["WebEmo-7"] & train["WebEmo-25"]) == (tasks == "shared")


def test_content_of_another_data_sets_test_is_not_trained_on(raw: Path, tmp_path: Path) -> None:
    # As another file with the same pixels: neither path nor bytes give it away.
    label, path = json.loads((raw / "EmoSet-118K/test.json").read_text())[0][:2]
    fi = trees.make_fi(tmp_path / "FI", 6)
    with trees.Image.open(raw / "EmoSet-118K" / path) as image:
        image.convert("RGB").save(fi / "emotion_dataset" / label / "copy.png")
    flags = ("--test-rows", "FI-2=0", "FI-8=0")
    folder = built([fi, raw / "EmoSet-118K"], tmp_path / "out", *flags)
    (listed,) = (row for row in rows(folder / "rejected.jsonl") if row["reason"] == "in_a_test")
    assert listed["where"] == f"emotion_dataset/{label}/copy.png"
    assert all("copy.png" not in row["image"] for row in rows(folder / "train.jsonl"))
    alone = built([fi], tmp_path / "alone", *flags)
    assert any("copy.png" in row["image"] for row in rows(alone / "train.jsonl"))


def test_one_missing_image_changes_one_row(fi: Path, tmp_path: Path) -> None:
    flags = ("--tasks", "shared", "--stratify", "none", "--test-rows", "FI-8=20", "FI-2=20")
    before = rows(built([fi], tmp_path / "a", *flags) / "test.jsonl")
    gone = fi / before[0]["image"].removeprefix(f"images/{'FI'}/")
    content = gone.read_bytes()
    gone.unlink()
    try:
        after = rows(built([fi], tmp_path / "b", *flags) / "test.jsonl")
    finally:
        gone.write_bytes(content)
    task = before[0]["task"]
    ids = [{row["id"] for row in some if row["task"] == task} for some in (before, after)]
    assert (len(ids[0] - ids[1]), len(ids[1] - ids[0])) == (1, 1)


def test_labels_keep_their_shares_in_the_test(fi: Path, tmp_path: Path) -> None:
    folder = built([fi], tmp_path, "--test-rows", "FI-8=40", "FI-2=40", "--tasks", "shared")
    labels = Counter(row["ground_truth"] for row in rows(folder / "test.jsonl") if row["task"] == "FI-8")
    assert labels == dict.fromkeys(MIKELS_8, 5)


def test_settings_of_the_draw(fi: Path, raw: Path, tmp_path: Path) -> None:
    plain = built([fi], tmp_path / "plain", "--stratify", "none", "--test-rows", "FI-8=40", "FI-2=1")
    labels = Counter(row["ground_truth"] for row in rows(plain / "test.jsonl") if row["task"] == "FI-8")
    assert sum(labels.values()) == 40 and labels != dict.fromkeys(MIKELS_8, 5)
    webemo = built([raw / "WEBEmo"], tmp_path / "official", "--official-splits", "WEBEmo")
    assert all("/test/" in row["image"] for row in rows(webemo / "test.jsonl"))
    assert all("/train/" in row["image"] for row in rows(webemo / "train.jsonl"))
    assert len(rows(webemo / "test.jsonl")) == 25 and len(rows(webemo / "train.jsonl")) == 75


@given(st.integers(0, 500), st.lists(st.integers(0, 1000), min_size=1, max_size=25))
def test_shares_add_up_and_are_off_by_less_than_one(n: int, weights: list[int]) -> None:
    counts = vecbench_draw.in_proportion(n, weights)
    total = sum(weights)
    assert sum(counts) == (n if total else 0)
    assert all(
        abs(count - n * weight / total) < 1 for count, weight in zip(counts, weights, strict=True) if total
    )


@pytest.mark.parametrize(
    ("task", "wanted", "pool", "keeps_training", "rows"),
    [
        ("FI-8", 1000, 11_592, True, 1000),
        ("FI-8", 1000, 2000, True, 1000),
        ("FI-8", 1000, 1138, True, 100),  # 1000 of 11,378 published rows are test rows
        ("FI-8", 10, 1138, True, 10),
        ("FI-8", 1000, 2, True, 1),
        ("FI-8", 1000, 0, True, 0),
        ("UnbiasedEmo-6", 1000, 3045, False, 1000),
        ("Artphoto-8", 806, 800, False, 800),
    ],
)
def test_sizes_worked_by_hand(task: str, wanted: int, pool: int, keeps_training: bool, rows: int) -> None:
    assert vecbench_draw.rows_of_test(task, wanted, pool, keeps_training=keeps_training) == rows


def test_the_published_sizes_come_out_of_releases_of_the_described_size() -> None:
    def images(dataset: str, labels: tuple[str, ...], n: int) -> Iterator[tuple[object, ...]]:
        for number in range(n):
            content = hashlib.sha256(f"{dataset}/{number}".encode()).digest()
            yield dataset, f"{number}.jpg", labels[number % len(labels)], None, "", content, content

    with temporary_database(BUILD_TABLES) as database:
        for pool in (images("FI", MIKELS_8, 22_760), images("UnbiasedEmo", ("joy", "fear"), 3045)):
            database.executemany("INSERT INTO image VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", pool)
        drawn = vecbench_draw.draw(database, ["FI", "UnbiasedEmo"], vecbench_draw.DrawSettings())
    sizes = {name: (task.rows("test"), task.rows("train")) for name, task in drawn.items()}
    assert sizes == {"FI-2": (1000, 10_382), "FI-8": (1000, 10_378), "UnbiasedEmo-6": (1000, 0)}
