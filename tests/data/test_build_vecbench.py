"""VECBench from imitated releases: what it writes, what it leaves out, and what it says of it."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import raw_trees as trees
from vecbench_builds import FILES, build, built, left_out, rows

from data import build_vecbench as script
from data.raw.readers import READERS, ReaderSettings
from emocaliber.records import read_records
from emocaliber.taxonomy import MIKELS_8, MIKELS_TO_POLARITY, TASKS, WEBEMO_25, WEBEMO_25_TO_7

ROOT = Path(__file__).resolve().parents[2]


def test_the_records_are_those_that_the_repository_reads(benchmark: Path) -> None:
    for split in ("test", "train"):
        for record in read_records(benchmark / f"{split}.jsonl"):
            assert record["candidates"] == list(TASKS[record["task"]].labels)
            assert record["ground_truth"] in record["candidates"]
            assert record["image"].startswith(f"images/{TASKS[record['task']].dataset}/")
            sha256 = hashlib.sha256((benchmark / record["image"]).read_bytes()).hexdigest()
            assert record["id"] == f"{record['task']}-{sha256[:16]}"
            assert record["conversations"][0]["content"][0] == {"type": "image", "image": record["image"]}


def test_a_release_given_by_an_earlier_link_stays_reachable(fi: Path, tmp_path: Path) -> None:
    first = built([fi], tmp_path / "out")
    (name,) = [path.name for path in (first / "images").iterdir()]
    again = built([first / "images" / name], first)
    assert (again / "images" / name).resolve() == fi.resolve()
    assert all((again / row["image"]).is_file() for row in rows(again / "test.jsonl"))


def test_every_listed_image_is_in_a_split_or_listed_as_left_out(raw: Path, benchmark: Path) -> None:
    listed: Counter[str] = Counter()
    for dataset, read in READERS.items():
        listed[dataset] = sum(1 for _ in read(raw / dataset, ReaderSettings()))
    used = Counter(
        TASKS[row["task"]].dataset
        for split in ("test", "train")
        for row in rows(benchmark / f"{split}.jsonl")
    )
    rejected = Counter({name: 0 for name in listed})
    for (dataset, _), count in left_out(benchmark).items():
        rejected[dataset] += count
    assert used + rejected == listed


def test_what_is_left_out_and_why(benchmark: Path) -> None:
    assert left_out(benchmark) == {
        ("Abstract", "tied_votes"): 51,
        ("EmoSet-118K", "duplicate"): 1,
        ("EmoSet-118K", "image_missing"): 1,
        ("EmoSet-118K", "image_outside_root"): 1,
        ("EmoSet-118K", "malformed_row"): 1,
        ("EmoSet-118K", "not_drawn"): 8,
        ("EmoSet-118K", "unknown_label"): 1,
        ("FI", "conflicting_labels"): 2,
        ("FI", "duplicate"): 1,
        ("FI", "image_empty"): 1,
        ("FI", "image_too_narrow"): 1,
        ("FI", "image_truncated"): 1,
        ("FI", "not_an_image"): 1,
        ("FI", "other_file"): 1,
        ("FI", "placeholder"): 12,
        ("FI", "unknown_label"): 1,
        ("WEBEmo", "image_missing"): 1,
        ("WEBEmo", "malformed_row"): 1,
        ("WEBEmo", "not_in_list"): 1,
        ("WEBEmo", "unknown_label"): 1,
    }


def test_what_is_unusual_is_noted_and_used(benchmark: Path) -> None:
    used = {row["image"] for split in ("test", "train") for row in rows(benchmark / f"{split}.jsonl")}
    noted = {row["reason"]: row for row in rows(benchmark / "noted.jsonl")}
    assert {reason: row["where"] for reason, row in noted.items()} == {
        "animated": "emotion_dataset/awe/moving.gif",
        "cmyk": "emotion_dataset/awe/cmyk.jpg",
        "exif_rotated": "emotion_dataset/awe/lying.jpg",
        "wrong_extension": "emotion_dataset/awe/png.jpg",
    }
    assert {f"images/FI/{row['where']}" for row in noted.values()} <= used
    assert noted["animated"]["message"] == "FI/emotion_dataset/awe/moving.gif: the first of 2 frames is shown"
    assert "| FI | cmyk | 1 |" in (benchmark / "README.md").read_text()


def test_tests_of_the_tasks_without_training(benchmark: Path) -> None:
    counts = Counter(row["task"] for row in rows(benchmark / "test.jsonl"))
    assert (counts["Abstract-8"], counts["Artphoto-8"], counts["UnbiasedEmo-6"]) == (229, 24, 24)
    trained = {row["task"] for row in rows(benchmark / "train.jsonl")}
    assert trained == {"EmoSet-8", "FI-2", "FI-8", "WebEmo-2", "WebEmo-7", "WebEmo-25"}


def fine_label(image: str) -> str:
    parts = Path(image).parts
    return parts[3] if parts[1] == "FI" else WEBEMO_25[int(parts[4])]


def test_coarse_labels_follow_from_the_fine_ones(benchmark: Path) -> None:
    seen = Counter()
    for row in rows(benchmark / "train.jsonl"):
        if row["task"] == "FI-2":
            assert row["ground_truth"] == MIKELS_TO_POLARITY[fine_label(row["image"])]
        elif row["task"] == "WebEmo-7":
            assert row["ground_truth"] == WEBEMO_25_TO_7[fine_label(row["image"])]
        elif row["task"] == "WebEmo-25":
            assert row["ground_truth"] == fine_label(row["image"])
        seen[row["task"], row["ground_truth"]] += 1
    assert seen["FI-2", "positive"] and seen["WebEmo-2", "negative"] and seen["WebEmo-7", "joy"]


def test_the_same_seed_gives_the_same_files_wherever_the_releases_lie(raw: Path, benchmark: Path) -> None:
    moved = raw.rename(raw.with_name("moved"))
    try:
        again = built(moved, moved.parent / "again")
    finally:
        moved.rename(raw)
    for name in FILES:
        assert (again / name).read_bytes() == (benchmark / name).read_bytes(), name
    other = built([raw / "FI"], raw.parent / "other", "--seed", "1", "--test-rows", "FI-8=8")
    images = {row["image"] for row in rows(other / "test.jsonl")}
    assert images != {row["image"] for row in rows(again / "test.jsonl") if row["task"].startswith("FI")}


def test_settings_of_what_can_be_used(raw: Path, tmp_path: Path) -> None:
    flags = ("--max-copies", "12", "--on-conflict", "first")
    folder = built([raw / "FI"], tmp_path, *flags)
    counts = left_out(folder)
    assert ("FI", "placeholder") not in counts and ("FI", "conflicting_labels") not in counts
    # The placeholders are one image under eight labels, of which the first counts, and so is `both`.
    assert counts["FI", "duplicate"] == 1 + 11 + 1
    used = {row["image"] for split in ("test", "train") for row in rows(folder / f"{split}.jsonl")}
    assert "images/FI/emotion_dataset/awe/both.jpg" in used


def test_the_manifest_holds_sums_and_counts(benchmark: Path) -> None:
    manifest = json.loads((benchmark / "manifest.json").read_text())
    for name in FILES:
        assert manifest["sha256"][name] == hashlib.sha256((benchmark / name).read_bytes()).hexdigest()
    assert manifest["tasks"]["Abstract-8"]["labels"]["test"] == trees.ABSTRACT_LABELS
    assert manifest["tasks"]["EmoSet-8"]["rows"] == {"test": 16, "train": 24}
    assert manifest["left_out"]["FI"]["placeholder"] == 12
    assert manifest["arguments"]["seed"] == 0 and "raw" not in manifest["arguments"]
    lines = {
        f"{hashlib.sha256((benchmark / row['image']).read_bytes()).hexdigest()}  {row['image']}\n"
        for split in ("test", "train")
        for row in rows(benchmark / f"{split}.jsonl")
    }
    ordered = sorted(lines, key=lambda line: line.split("  images/")[1].split("/", 1))
    assert manifest["image_sha256"] == hashlib.sha256("".join(ordered).encode()).hexdigest()


def test_the_card_and_the_output_say_what_is_short(raw: Path, benchmark: Path, tmp_path: Path) -> None:
    text = (benchmark / "README.md").read_text()
    assert "| Abstract-8 | OOD VER | 229 | 229 | 0 | - |" in text
    assert "| Abstract-8 | anger | 3 | 0 |" in text
    assert "| FI | placeholder | 12 |" in text
    assert "- UnbiasedEmo-6: 24 of 1,000 test rows: 24 images to draw from" in text
    result = build([raw / "UnbiasedEmo"], tmp_path)
    assert result.stdout == f"{tmp_path}: 1 tasks, 24 test rows, 0 training rows\n"
    assert "UnbiasedEmo-6: 24 of 1,000 test rows" in result.stderr


def test_copies_instead_of_links(raw: Path, tmp_path: Path) -> None:
    linked = built([raw / "FI"], tmp_path / "out")
    assert (linked / "images/FI").is_symlink()
    copied = built([raw / "FI"], tmp_path / "out", "--copy-images")
    files = {path.relative_to(copied).as_posix() for path in (copied / "images").rglob("*") if path.is_file()}
    assert files == {row["image"] for split in ("test", "train") for row in rows(copied / f"{split}.jsonl")}
    assert not (copied / "images/FI").is_symlink()
    refused = build([raw / "FI"], tmp_path / "out")
    assert refused.returncode == 2 and "a folder, no link" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "must be at least 1"),
        (["--test-rows", "FI-9=3"], "give TASK=N"),
        (["--test-rows", "FI-8=many"], "give TASK=N"),
        (["--webemo-file-name", "{name}.jpg"], "fields: basename"),
        (["--official-splits", "FI-8"], "invalid choice"),
    ],
)
def test_wrong_arguments(flags: list[str], message: str, tmp_path: Path) -> None:
    result = build([tmp_path], tmp_path / "out", *flags)
    assert result.returncode == 2 and message in result.stderr
    assert result.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_wrong_folders(raw: Path, tmp_path: Path) -> None:
    for folders, message in (
        ([tmp_path], "not known as a release"),
        ([tmp_path / "absent"], "no folder"),
        ([raw / "FI", raw / "FI"], "given twice"),
        ([Path(f"FI={raw / 'Abstract'}")], "no folder emotion_dataset"),
    ):
        result = build(folders, tmp_path / "out")
        assert result.returncode == 2 and message in result.stderr.splitlines()[-1]
        assert result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("inside", [".", "out", "images/out"])
def test_the_output_may_not_lie_in_a_release(inside: str, tmp_path: Path) -> None:
    release = trees.make_unbiased_emo(tmp_path / "UnbiasedEmo", 1)
    before = sorted(release.rglob("*"))
    result = build([release], release / inside)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: --output-dir {release / inside}: lies in the release {release}; give one outside\n"
    )
    assert sorted(release.rglob("*")) == before


def test_a_release_is_known_by_its_content_or_by_what_one_says(raw: Path, tmp_path: Path) -> None:
    for dataset in READERS:
        (tmp_path / dataset.lower()).symlink_to(raw / dataset)
        (tmp_path / f"my-{len(dataset)}-{dataset[:2]}").symlink_to(raw / dataset)
        assert script.releases([str(tmp_path / f"my-{len(dataset)}-{dataset[:2]}")]).keys() == {dataset}
        assert script.releases([f"{dataset}={tmp_path}"]) == {dataset: tmp_path}


def test_a_release_without_usable_images_is_an_error_with_its_reasons(tmp_path: Path) -> None:
    webemo = trees.make_webemo(tmp_path / "WEBEmo", {"train": 1})
    result = build([webemo], tmp_path / "out", "--webemo-file-name", "{line}.jpg")
    assert result.returncode == 2
    assert "no image of WEBEmo can be used (image_missing 25, not_in_list 25; listed in" in result.stderr
    assert len(rows(tmp_path / "out/rejected.jsonl")) == 50
    assert not (tmp_path / "out/test.jsonl").exists() and not (tmp_path / "out/manifest.json").exists()


@pytest.mark.slow
def test_built_inferred_and_evaluated(tmp_path: Path) -> None:
    """Releases with pictures of the mini model's size, through the build, vLLM and the evaluation."""
    raw = tmp_path / "raw"
    trees.make_emoset(raw / "EmoSet-118K", {"train": 1, "val": 1, "test": 1}, size=112)
    trees.make_fi(raw / "FI", 2, size=112)
    trees.make_webemo(raw / "WEBEmo", {"train": 1}, size=112)
    trees.make_unbiased_emo(raw / "UnbiasedEmo", 1, size=112)
    trees.make_artphoto(raw / "ArtPhoto", dict.fromkeys(MIKELS_8, 1), size=112)
    trees.make_abstract(raw / "Abstract", trees.abstract_rows()[:12], size=112)
    folder = built(raw, tmp_path / "VECBench")
    records = read_records(folder / "test.jsonl")
    assert {record["task"] for record in records} == set(TASKS)
    checkpoint = os.environ.get("EMOCALIBER_TEST_CHECKPOINT", str(ROOT / "models" / "EmoCaliber-mini"))
    command = [sys.executable, ROOT / "inference/infer.py", "--checkpoint", checkpoint]
    command += ["--data", folder / "test.jsonl", "--output-dir", tmp_path / "run"]
    command += ["--min-pixels", "3136", "--max-pixels", "12544", "--max-new-tokens", "200", "--seed", "3"]
    inferred = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=1200)
    assert inferred.returncode == 0, inferred.stderr[-2000:]
    predictions = rows(tmp_path / "run/predictions.jsonl")
    assert {row["id"] for row in predictions} == {record["id"] for record in records}
    assert all(row.get("error") is None and row["response"] for row in predictions)
    command = [
        sys.executable,
        ROOT / "inference/evaluate.py",
        "--predictions",
        tmp_path / "run/predictions.jsonl",
    ]
    command += ["--output-dir", tmp_path / "run"]
    evaluated = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    log = (tmp_path / "run/metric.log").read_text()
    assert all(name in log for name in TASKS) and "Overall" in log
