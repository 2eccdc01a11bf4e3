"""VECBench-mini: the same files from the same seed, published records, disjoint splits, true labels."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from in_process import Result, run
from PIL import Image

from data import build_mini
from emocaliber.mini.chains import read_facts, true_facts
from emocaliber.mini.scene import Scene
from emocaliber.records import read_records
from emocaliber.response import SECTIONS, parse
from emocaliber.taxonomy import TASKS

ROOT = Path(__file__).parents[2]


def build(folder: Path, *arguments: str) -> Result:
    return run(build_mini.main, "--output-dir", folder, *arguments)


def tree_hash(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    assert build(folder, "--n-test", "6").returncode == 0
    assert build(folder, "--split", "train", "--n-train", "300").returncode == 0
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_seed_gives_the_same_files_bit_by_bit(built: Path, tmp_path: Path) -> None:
    build(tmp_path, "--n-test", "6")
    build(tmp_path, "--split", "train", "--n-train", "300")
    assert tree_hash(tmp_path) == tree_hash(built)
    other = tmp_path / "other"
    build(other, "--n-test", "6", "--seed", "1")
    assert tree_hash(other)["test.jsonl"] != tree_hash(built)["test.jsonl"]


def test_records_are_the_published_ones_with_a_posterior(built: Path) -> None:
    records = read_records(built / "test.jsonl")
    assert Counter(record["task"] for record in records) == dict.fromkeys(TASKS, 6)
    for record in records:
        assert set(record) == {
            *("id", "image", "conversations", "task", "ground_truth", "candidates", "posterior"),
        }
        image_item, text_item = record["conversations"][0]["content"]
        assert image_item == {"type": "image", "image": record["image"]}
        assert str(record["candidates"]) in text_item["text"]
        assert record["candidates"] == list(TASKS[record["task"]].labels)
        assert record["posterior"][record["ground_truth"]] > 0
        with Image.open(built / record["image"]) as image:
            assert 112 <= min(image.size) <= max(image.size) <= 224


def test_one_task_can_have_other_numbers_of_rows(built: Path, tmp_path: Path) -> None:
    more = ("--n-test", "6", "--test-rows", "FI-2=9", "Abstract-8=2")
    assert build(tmp_path, *more).returncode == 0
    records = lines(tmp_path / "test.jsonl")
    counts = Counter(record["task"] for record in records)
    assert counts == dict.fromkeys(TASKS, 6) | {"FI-2": 9, "Abstract-8": 2}
    # What both builds have is the same, whatever else there is.
    others = {record["id"]: record for record in lines(built / "test.jsonl")}
    same = [record for record in records if record["id"] in others]
    assert len(same) == 9 * 6 - 4 and all(record == others[record["id"]] for record in same)
    assert "already built" in build(tmp_path, *more).stdout
    assert "already built" not in build(tmp_path, "--n-test", "6").stdout


@pytest.mark.parametrize("given", ["FI-3=5", "FI-2=0", "FI-2", "FI-2=\u0662"])
def test_a_number_of_rows_for_no_task_is_refused(tmp_path: Path, given: str) -> None:
    run = build(tmp_path / "out", "--test-rows", given)
    assert run.returncode == 2 and f"--test-rows {given}: give TASK=N" in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_same_rows_asked_without_a_confidence(built: Path, tmp_path: Path) -> None:
    assert build(tmp_path, "--n-test", "6", "--without-confidence").returncode == 0
    other = tree_hash(tmp_path)
    plain = {name: sum_ for name, sum_ in tree_hash(built).items() if "test" in name}
    assert {name for name in other if other[name] != plain.get(name)} == {
        *("test_without_confidence.jsonl", "manifest_test.json"),
    }
    asked = lines(tmp_path / "test_without_confidence.jsonl")
    for row, record in zip(asked, lines(tmp_path / "test.jsonl"), strict=True):
        assert "confidence" in record["conversations"][0]["content"][1]["text"]
        assert "confidence" not in row["conversations"][0]["content"][1]["text"]
        assert {**row, "conversations": record["conversations"]} == record
    refused = build(tmp_path, "--split", "train", "--without-confidence")
    assert refused.returncode == 2
    assert "--without-confidence is for the test split" in refused.stderr


def test_splits_and_stages_share_no_picture(built: Path) -> None:
    stages = {name: lines(built / f"train_{name}.jsonl") for name in ("stage1", "stage2", "stage3")}
    used = [row["images"][0] if "images" in row else row["image"] for rows in stages.values() for row in rows]
    assert len(used) == len(set(used))
    contents = [hashlib.sha256(path.read_bytes()).digest() for path in (built / "images").rglob("*.jpg")]
    assert len(contents) == len(set(contents)) == len(used) + 6 * len(TASKS)
    sizes = {name: len(rows) / len(used) for name, rows in stages.items()}
    assert sizes == pytest.approx({"stage1": 0.6, "stage2": 0.3, "stage3": 0.1}, abs=0.02)


def test_ood_tasks_shift(built: Path) -> None:
    scenes = {row["id"]: Scene.from_json(row["scene"]) for row in lines(built / "test_scenes.jsonl")}
    by_task = {task: [scenes[f"mini-test-{task}-{n:05d}"] for n in range(6)] for task in TASKS}
    assert all(scene.style == "abstract" and scene.object is None for scene in by_task["Abstract-8"])
    assert all(scene.style == "ink" for scene in by_task["Artphoto-8"])
    assert all(scene.style == "photo" for scene in by_task["UnbiasedEmo-6"] + by_task["EmoSet-8"])
    assert {row["task"] for row in lines(built / "train_stage3.jsonl")} == {
        *("EmoSet-8", "FI-2", "FI-8", "WebEmo-2", "WebEmo-7", "WebEmo-25"),
    }


def test_training_rows_parse_and_conclude_with_their_label(built: Path) -> None:
    for row in lines(built / "train_stage1.jsonl"):
        parsed = parse(row["messages"][-1]["content"], TASKS[row["task"]].labels)
        assert parsed.label == row["ground_truth"]
        assert parsed.confidence_reason == "missing"
        assert tuple(parsed.reasoning) == SECTIONS
        assert row["messages"][1]["content"].startswith("<image>")
        assert None not in read_facts(parsed.reasoning).values()
    for record in read_records(built / "train_stage2.jsonl"):
        assert tuple(record["reasoning"]) == SECTIONS


def test_labels_are_drawn_from_the_posterior(built: Path) -> None:
    """The mean posterior of the drawn labels lies near its expectation, the mean of sum p squared."""
    records = read_records(built / "train_stage2.jsonl") + read_records(built / "train_stage3.jsonl")
    records += read_records(built / "test.jsonl")
    drawn = sum(record["posterior"][record["ground_truth"]] for record in records) / len(records)
    expected = sum(p * p for record in records for p in record["posterior"].values()) / len(records)
    assert abs(drawn - expected) < 0.06


def test_a_complete_build_is_left_alone_and_a_broken_one_redone(tmp_path: Path) -> None:
    build(tmp_path, "--n-test", "2")
    before = (tmp_path / "test.jsonl").stat().st_mtime_ns
    again = build(tmp_path, "--n-test", "2")
    assert "already built" in again.stdout
    assert (tmp_path / "test.jsonl").stat().st_mtime_ns == before
    assert not list(tmp_path.glob(".building*"))
    for broken in (
        tmp_path / "manifest_test.json",
        tmp_path / "test.jsonl",
        next(tmp_path.rglob("images/test/*/*.jpg")),
    ):
        broken.unlink()
        assert "test split built" in build(tmp_path, "--n-test", "2").stdout
        assert broken.is_file()
    for damaged in (tmp_path / "test.jsonl", tmp_path / "test_scenes.jsonl"):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1000])
        redone = build(tmp_path, "--n-test", "2")
        assert f"{damaged}: not as it was built; the split is built anew" in redone.stderr
        assert "test split built" in redone.stdout and damaged.read_bytes() == whole
    (tmp_path / "manifest_test.json").write_text("[]")
    assert "test split built" in build(tmp_path, "--n-test", "2").stdout


def test_an_interrupted_rebuild_leaves_the_old_build(tmp_path: Path) -> None:
    """A build that is killed half-way has touched nothing but its own folder beside."""
    build(tmp_path, "--n-test", "2")
    before = tree_hash(tmp_path)
    command = [sys.executable, str(ROOT / "data" / "build_mini.py"), "--output-dir", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--n-test", "400"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(tmp_path.glob(".building-test/images/test/*/*.jpg")):
        pass
    process.kill()
    process.wait()
    left = {name: value for name, value in tree_hash(tmp_path).items() if not name.startswith(".building")}
    assert left == before
    assert "already built" in build(tmp_path, "--n-test", "2").stdout
    assert "test split built" in build(tmp_path, "--n-test", "2", "--seed", "3").stdout
    assert not list(tmp_path.glob(".building*"))


def test_true_facts_name_every_part() -> None:
    scene = Scene("photo", "sunny", "snow", "snake", None, None, None, "none", None, 1, 1)
    assert true_facts(scene) == {
        "object": "snake",
        "mark": "none",
        "posture": "nobody",
        "face": "nobody",
        "light": "sunny",
        "ground": "snow",
        "distance": "alone",
    }


def test_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    result = build(tmp_path / "x", "--n-test", "0")
    assert result.returncode == 2
    assert result.stderr == "error: --n-test must be at least 1; see --help\n"
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    result = build(tmp_path / "file", "--n-test", "1")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and str(tmp_path / "file") in result.stderr
