"""Copies planted between splits and tasks: each is found as what it is, listed, counted, told by the exit."""

import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from in_process import Result, run
from PIL import Image

from data import check_leakage
from data.inspection import leakage
from emocaliber.jsonl import read_jsonl
from emocaliber.prompts import conversation, training_chat

SCRIPT = Path(__file__).parents[2] / "data" / "check_leakage.py"

CANDIDATES = ["amusement", "awe", "fear"]


def picture(seed: int) -> Image.Image:
    """A smooth random picture: any two are far apart by looks."""
    noise = np.random.default_rng(seed).integers(0, 256, size=(12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)


def record(number: int, image: str, task: str = "EmoSet-8", split: str = "") -> dict[str, Any]:
    return {
        "id": f"{split}{task}-{number}",
        "image": image,
        "conversations": conversation(image, CANDIDATES),
        "task": task,
        "ground_truth": CANDIDATES[number % 3],
        "candidates": CANDIDATES,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images of a test split: four in training, by path, bytes, pixels and looks; two not.

    The last two are one image under two names.
    """
    for number in range(6):
        picture(number).save(tmp_path / f"test{number}.png")
    for number in range(10, 14):
        picture(number).save(tmp_path / f"train{number}.png")
    (tmp_path / "bytes.png").write_bytes((tmp_path / "test1.png").read_bytes())
    picture(2).save(tmp_path / "pixels.bmp")
    picture(3).resize((96, 96)).save(tmp_path / "looks.jpg", quality=80)
    (tmp_path / "test5.png").write_bytes((tmp_path / "test4.png").read_bytes())
    tasks = ["EmoSet-8", "EmoSet-8", "FI-8", "FI-8", "FI-8", "Abstract-8"]
    write(tmp_path / "test.jsonl", [record(n, f"test{n}.png", task) for n, task in enumerate(tasks)])
    images = ["test0.png", "bytes.png", "pixels.bmp", "looks.jpg", *(f"train{n}.png" for n in range(10, 14))]
    chats = [training_chat(image, "What?", "<answer>awe</answer>") for image in images]
    rows = [{"id": f"chat-{n}", "task": "WebEmo-7", "ground_truth": "joy", **c} for n, c in enumerate(chats)]
    write(tmp_path / "train.jsonl", rows)
    return tmp_path


def check(folder: Path, *arguments: str, figures: bool = False) -> Result:
    with nullcontext() if figures else patch.object(leakage, "write_figures"):
        return run(check_leakage.main, *arguments, "--output-dir", folder / "out", "--workers", "1")


def error_of(run: Result) -> str:
    """The one line of its error. What an earlier test left may be told meanwhile, when it is collected."""
    [error] = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    return error


def both(folder: Path) -> tuple[str, str]:
    return str(folder / "test.jsonl"), str(folder / "train.jsonl")


def lines(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(path)]


def test_each_planted_copy_is_found_as_what_it_is(data: Path) -> None:
    run = check(data, *both(data), figures=True)
    assert run.returncode == 1, run.stderr
    assert "Does any test image occur in training? yes: 4 of 6" in run.stdout
    leaks = {
        line["ids"][1]: (line["kind"], Path(line["files"][0]).name)
        for line in lines(data / "out/leaks.jsonl")
    }
    assert leaks == {
        "EmoSet-8-0": ("same_file", "test0.png"),
        "EmoSet-8-1": ("same_bytes", "bytes.png"),
        "FI-8-2": ("same_pixels", "pixels.bmp"),
        "FI-8-3": ("perceptual", "looks.jpg"),
    }
    found = json.loads((data / "out/leakage.json").read_text())
    by_task = found["test_images_in_training"]["by_task"]
    assert by_task["FI-8"] == {
        **{"n_images": 3, "same_file": 0, "same_bytes": 0, "same_pixels": 1, "perceptual": 1},
    }
    assert by_task["Abstract-8"]["n_images"] == 1 and sum(by_task["Abstract-8"].values()) == 1
    for name in ("shared_images.png", "shared_images_exact.png"):
        with Image.open(data / "out" / name) as figure:
            assert figure.width > 300


def test_the_list_holds_pairs_within_the_test_split_and_both_sides_of_each(data: Path) -> None:
    check(data, *both(data))
    pairs = lines(data / "out/duplicates.jsonl")
    assert [pair["kind"] for pair in pairs] == [
        "same_file",
        "same_bytes",
        "same_bytes",
        "same_pixels",
        "perceptual",
    ]
    within = next(pair for pair in pairs if pair["splits"] == ["test", "test"])
    assert within["tasks"] == ["FI-8", "Abstract-8"] and within["ids"] == ["FI-8-4", "Abstract-8-5"]
    across = next(pair for pair in pairs if pair["kind"] == "same_pixels")
    assert across["splits"] == ["train", "test"] and across["labels"] == ["joy", "fear"]
    assert across["where"] == [f"{data / 'train.jsonl'}:3", f"{data / 'test.jsonl'}:3"]


def test_the_matrix_counts_images_of_one_cell_in_another(data: Path) -> None:
    check(data, *both(data))
    found = json.loads((data / "out/leakage.json").read_text())
    place = {(cell["split"], cell["task"]): n for n, cell in enumerate(found["cells"])}
    train, emoset = place["train", "WebEmo-7"], place["test", "EmoSet-8"]
    fi, abstract = place["test", "FI-8"], place["test", "Abstract-8"]
    every, exact = found["shared"]["all"], found["shared"]["exact"]
    assert (every[train][emoset], every[emoset][train]) == (2, 2)
    assert (every[fi][train], exact[fi][train]) == (2, 1)
    assert (every[fi][abstract], every[abstract][fi], every[abstract][train]) == (1, 1, 0)
    assert every[fi][fi] == every[train][train] == 0


def test_clusters_name_the_test_images_that_are_one(data: Path) -> None:
    check(data, *both(data))
    clusters = json.loads((data / "out/clusters.json").read_text())["images"]
    assert set(clusters) == {"test4.png", "test5.png"} and len(set(clusters.values())) == 1


def test_looks_are_left_out_on_request_and_a_clean_test_exits_0(data: Path) -> None:
    run = check(data, *both(data), "--exact-only")
    assert run.returncode == 1 and "yes: 3 of 6" in run.stdout and "perceptual" not in run.stdout
    chats = lines(data / "train.jsonl")[3:]
    write(data / "train.jsonl", chats)
    assert check(data, *both(data), "--exact-only").returncode == 0
    assert check(data, *both(data)).returncode == 1
    assert check(data, *both(data), "--allow-leaks").returncode == 0
    write(data / "train.jsonl", chats[1:])
    run = check(data, *both(data))
    assert run.returncode == 0 and "training? no: 0 of 6" in run.stdout


def test_what_cannot_be_read_is_listed_and_still_found_by_its_path(data: Path) -> None:
    (data / "test0.png").write_bytes(b"")
    (data / "train10.png").unlink()
    rows = [*lines(data / "train.jsonl"), {"id": "none", "task": "FI-8", "messages": []}]
    write(data / "train.jsonl", rows)
    run = check(data, *both(data))
    assert run.returncode == 1 and "yes: 4 of 6 compared, 0 not" in run.stdout
    told = "0 of 6 test images, 2 of 8 training images, 1 rows that name no image"
    assert f"Not compared: {told}; mend them" in run.stdout
    listed = {entry["reason"]: entry for entry in lines(data / "out/unreadable.jsonl")}
    assert set(listed) == {"no_image", "image_empty", "image_missing"}
    assert listed["image_empty"]["n_rows"] == 2
    assert listed["no_image"]["where"] == f"{data / 'train.jsonl'}:9"
    assert "Left out, not compared: no_image 1, image_empty 1, image_missing 1" in run.stdout


def test_roles_by_name_by_option_and_their_contradictions(data: Path) -> None:
    names = [f"a={data / 'test.jsonl'}", f"b={data / 'train.jsonl'}"]
    assert check(data, *names, "--test", "a").returncode == 1
    for wrong in ([], ["--training", "b"], ["--test", "c"], ["--test", "a", "--training", "a"]):
        run = check(data, *names, *wrong)
        assert run.returncode == 2 and error_of(run)


def test_one_side_alone_says_nothing(data: Path) -> None:
    """Whatever the files hold: here both are the same."""
    same = data / "eval.jsonl"
    same.write_bytes((data / "train.jsonl").read_bytes())
    run = check(data, str(same), str(data / "train.jsonl"))
    assert run.returncode == 2 and not (data / "out").exists()
    said = "error: eval, train: no test split, so nothing would be compared; say which by"
    assert error_of(run).startswith(said) and "--test NAME" in error_of(run)
    run = check(data, str(data / "test.jsonl"))
    assert run.returncode == 2 and error_of(run).startswith("error: test: no training split")
    run = check(data, str(data / "test.jsonl"), "--allow-uncompared")
    assert run.returncode == 0 and "nothing can leak" in run.stdout
    assert set(json.loads((data / "out/clusters.json").read_text())["images"]) == {"test4.png", "test5.png"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "gone.png"}], "1 of 3 test images, 0 of 4 training images, 0 rows"),
        ([{"split": "train", "image": "gone.png"}], "0 of 2 test images, 1 of 5 training images, 0 rows"),
        ([{"conversations": []}], "0 of 2 test images, 0 of 4 training images, 1 rows"),
        ([{"split": "train", "conversations": []}], "0 of 2 test images, 0 of 4 training images, 1 rows"),
    ],
)
def test_a_test_of_which_some_was_not_compared_is_not_called_clean(
    data: Path, rows: list[dict[str, Any]], said: str
) -> None:
    splits = {
        "test": [record(n, f"test{n}.png") for n in (4, 5)],
        "train": [record(n, f"train{n}.png") for n in range(10, 14)],
    }
    for row in rows:
        splits[row.get("split", "test")].append(record(99, "gone.png") | {"image": None} | row)
    for name, of_split in splits.items():
        write(data / f"{name}.jsonl", of_split)
    run = check(data, *both(data))
    assert run.returncode == 1, run.stderr
    assert "training? none found: 0 of 2 compared, " in run.stdout and f"Not compared: {said}" in run.stdout
    assert check(data, *both(data), "--allow-leaks").returncode == 1
    assert check(data, *both(data), "--allow-uncompared").returncode == 0


def test_a_split_whose_rows_name_no_image_is_an_error(data: Path) -> None:
    write(data / "train.jsonl", [{"id": 1, "messages": []}])
    run = check(data, *both(data))
    assert run.returncode == 2
    assert "train: none of its rows names an image" in error_of(run)


def test_names_that_are_no_unicode_are_compared_and_listed(data: Path) -> None:
    name = "a\udcff.png"
    (data / name).write_bytes((data / "test4.png").read_bytes())
    (data / "b\udcff.png").write_bytes(b"")
    task = "T\ud800"
    rows = [record(4, name, task), record(5, "test5.png", task), record(6, "b\udcff.png", task)]
    write(data / "test.jsonl", rows)
    run = check(data, *both(data), "--allow-uncompared")
    assert run.returncode == 0 and "T\\ud800" in run.stdout, run.stderr
    assert set(json.loads((data / "out/clusters.json").read_text())["images"]) == {name, "test5.png"}
    found = json.loads((data / "out/leakage.json").read_text())
    assert task in found["test_images_in_training"]["by_task"]


def test_too_little_memory_ends_the_run_and_is_not_kept_as_damage(data: Path) -> None:
    with patch.object(Image, "open", side_effect=MemoryError):
        run = check(data, *both(data))
    assert run.returncode == 2
    assert ".png: not enough memory to read and decode it; give fewer --workers" in error_of(run)
    assert lines(data / "out/fingerprints.jsonl") == []
    assert "yes: 4 of 6" in check(data, *both(data)).stdout


def test_a_broken_line_ends_the_command_in_one_line_and_leaves_nothing(data: Path) -> None:
    (data / "train.jsonl").write_text('{"id": 1}\n{"id"\n')
    run = check(data, *both(data))
    assert run.returncode == 2 and f"{data / 'train.jsonl'}:2: not JSON" in error_of(run)
    assert not (data / "out").exists()


def test_an_interrupted_scan_goes_on_and_changed_files_are_read_again(data: Path) -> None:
    check(data, *both(data))
    kept = data / "out/fingerprints.jsonl"
    whole = kept.read_bytes()
    first = whole.splitlines(keepends=True)
    kept.write_bytes(b"".join(first[:5]) + first[5][:40])
    Image.new("RGB", (64, 64), "red").save(data / "test1.png")
    assert "yes: 3 of 6" in check(data, *both(data)).stdout
    now = kept.read_bytes().splitlines(keepends=True)
    assert now[:5] == first[:5] and len(now) == len(first) + (b"test1.png" in b"".join(first[:5]))


@pytest.mark.slow
def test_a_killed_run_with_several_processes_loses_nothing(tmp_path: Path) -> None:
    for number in range(400):
        picture(number).resize((900, 900)).save(tmp_path / f"{number}.jpg")
    write(tmp_path / "train.jsonl", [record(n, f"{n}.jpg") for n in range(400)])
    command = [sys.executable, str(SCRIPT), str(tmp_path / "train.jsonl"), "--workers", "2"]
    command += ["--allow-uncompared"]
    command += ["--output-dir", str(tmp_path / "out")]
    kept = tmp_path / "out/fingerprints.jsonl"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 120
        while time.monotonic() < end and not (kept.exists() and kept.stat().st_size):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"goes on where this one stopped" in errors
    before = kept.read_bytes()
    assert 0 < before.count(b"\n") < 400
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == 0
    assert kept.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert len({row["file"] for row in lines(kept)}) == kept.read_bytes().count(b"\n") == 400


def test_a_split_whose_images_are_elsewhere_is_not_called_clean(data: Path) -> None:
    (data / "elsewhere").mkdir()
    (data / "elsewhere" / "train.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    run = check(data, str(data / "test.jsonl"), str(data / "elsewhere" / "train.jsonl"))
    assert run.returncode == 2
    assert "error: train: none of its 8 images can be read (image_missing" in run.stderr
    assert "--image-root" in run.stderr and "training?" not in run.stdout


def test_the_latest_is_not_a_test(data: Path) -> None:
    (data / "train_latest.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    run = check(data, str(data / "test.jsonl"), str(data / "train_latest.jsonl"))
    assert run.returncode == 1
    assert "Does any test image occur in training? yes: 4 of 6" in run.stdout
