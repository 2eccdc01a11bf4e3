"""VECBench from imitated releases: all used or listed, train and test apart, the same again, resumed."""

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data" / "build_vecbench.py"
sys.path += [str(ROOT / "data"), str(ROOT / "tests" / "data")]

import build_vecbench as script  # noqa: E402
import raw_trees as trees  # noqa: E402
import vecbench_draw  # noqa: E402
from vecbench_readers import READERS, ReaderSettings  # noqa: E402
from vecbench_usable import UsableImage  # noqa: E402

from emocaliber.images import inspect_image  # noqa: E402
from emocaliber.records import read_records  # noqa: E402
from emocaliber.taxonomy import MIKELS_8, MIKELS_TO_POLARITY, TASKS, WEBEMO_25, WEBEMO_25_TO_7  # noqa: E402

Row = dict[str, Any]
FILES = ("test.jsonl", "train.jsonl", "rejected.jsonl", "noted.jsonl", "README.md")


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def build(raw: Path | list[Path], output: Path, *flags: str) -> Result:
    """The command, in this process and without a pool."""
    folders = sorted(raw.iterdir()) if isinstance(raw, Path) else raw
    arguments = [SCRIPT.name, "--raw", *map(str, folders), "--output-dir", str(output), "--workers", "1"]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", [*arguments, *flags]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            script.main()
        except SystemExit as end:
            status = int(str(end.code))
    return Result(status, out.getvalue(), err.getvalue())


def built(raw: Path | list[Path], output: Path, *flags: str) -> Path:
    result = build(raw, output, *flags)
    assert result.returncode == 0, result.stderr
    return output


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def left_out(folder: Path) -> Counter[tuple[str, str]]:
    listed = rows(folder / "rejected.jsonl")
    assert all(row["where"] and row["message"] and "\n" not in row["message"] for row in listed)
    return Counter((row["dataset"], row["reason"]) for row in listed)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    trees.add_emoset_oddities(trees.make_emoset(folder / "EmoSet-118K", {"train": 3, "val": 1, "test": 2}))
    trees.add_fi_oddities(trees.make_fi(folder / "FI", 6))
    trees.add_webemo_oddities(trees.make_webemo(folder / "WEBEmo", {"train": 3, "test": 1}))
    trees.make_unbiased_emo(folder / "UnbiasedEmo", 4)
    trees.make_artphoto(folder / "ArtPhoto", dict.fromkeys(MIKELS_8, 3))
    trees.make_abstract(folder / "Abstract", trees.abstract_rows())
    return folder


@pytest.fixture(scope="module")
def benchmark(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(raw, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def fi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.make_fi(tmp_path_factory.mktemp("fi"), 20)


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


def test_emoset_keeps_its_own_splits(raw: Path, benchmark: Path) -> None:
    for split, n in (("test", 16), ("train", 24)):
        released = {
            row[1] for row in json.loads((raw / f"EmoSet-118K/{split}.json").read_text()) if len(row) > 1
        }
        mine = [row["image"] for row in rows(benchmark / f"{split}.jsonl") if row["task"] == "EmoSet-8"]
        assert len(mine) == n and {image.removeprefix("images/EmoSet-118K/") for image in mine} <= released


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


def test_what_is_in_the_scan_is_not_decoded_again(raw: Path, tmp_path: Path) -> None:
    fi = trees.make_fi(tmp_path / "FI", 2)
    folder = built([fi], tmp_path / "out")
    scan = folder / "scan.jsonl"
    assert len(rows(scan)) == 16
    before = scan.read_bytes()
    # A cut-off last line, as a kill leaves it, costs the one image; a changed file is read anew.
    scan.write_bytes(before[:-20])
    built([fi], folder)
    assert len(rows(scan)) == 16 and scan.read_bytes() == before
    changed = fi / "emotion_dataset/awe/awe_202000.jpg"
    trees.save(changed, 77, 24)
    built([fi], folder)
    assert scan.read_bytes().startswith(before) and len(rows(scan)) == 17
    assert rows(scan)[-1]["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()


def run(raw: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--raw", str(raw), "--output-dir", str(output), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def slow_fi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that takes a second or so to scan."""
    return trees.make_fi(tmp_path_factory.mktemp("slow") / "FI", 12, size=500)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_goes_on(number: signal.Signals, slow_fi: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    scan = output / "scan.jsonl"
    process = run(slow_fi, output)
    while process.poll() is None and not (scan.exists() and scan.read_bytes().count(b"\n") >= 5):
        time.sleep(0.01)
    workers = children(process.pid)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    assert not (output / "manifest.json").exists() and not (output / "test.jsonl").exists()
    if number == signal.SIGINT:
        assert err.splitlines()[-1].startswith("interrupted: ") and "Traceback" not in err
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(map(is_running, workers)), "the workers end with the command"
    kept = [line for line in scan.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 5 <= len(kept) < 96

    process = run(slow_fi, output)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert scan.read_text().startswith("".join(kept))
    assert sorted(Counter(row["file"] for row in rows(scan)).values()) == [1] * 96
    whole = built([slow_fi], tmp_path / "whole")
    for name in FILES:
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


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
    def images(dataset: str, labels: tuple[str, ...], n: int) -> list[UsableImage]:
        sums = [hashlib.sha256(f"{dataset}/{number}".encode()).digest() for number in range(n)]
        return [
            UsableImage(
                dataset, f"{number}.jpg", labels[number % len(labels)], None, "", sums[number], sums[number]
            )
            for number in range(n)
        ]

    pools = {
        "FI": images("FI", MIKELS_8, 22_760),
        "UnbiasedEmo": images("UnbiasedEmo", ("joy", "fear"), 3045),
    }
    drawn = vecbench_draw.draw(pools, vecbench_draw.DrawSettings())
    sizes = {name: (len(task.test), len(task.train)) for name, task in drawn.items()}
    assert sizes == {"FI-2": (1000, 10_382), "FI-8": (1000, 10_378), "UnbiasedEmo-6": (1000, 0)}


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
