"""The scan of the releases: kept over kills and settings, one process at a time, flat memory."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import raw_trees as trees
from PIL import Image
from vecbench_builds import FILES, SCRIPT, Row, build, built, rows

from data import build_vecbench
from emocaliber import image_scan
from emocaliber.taxonomy import MIKELS_8


def kept_in(folder: Path) -> dict[str, Row]:
    return {row["file"]: row for row in rows(folder / "scan.jsonl")}


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def not_decoded() -> Any:
    return patch.object(image_scan, "inspect_image", side_effect=AssertionError("decoded again"))


def test_what_is_in_the_scan_is_not_decoded_again(tmp_path: Path) -> None:
    fi = trees.make_fi(tmp_path / "FI", 2)
    trees.add_fi_oddities(fi)
    folder = built([fi], tmp_path / "out")
    first, before = contents(folder), kept_in(folder)
    assert len(before) == 16 + 12 + 12
    with not_decoded():
        built([fi], folder, "--seed", "1", "--max-copies", "20")
        built([fi], folder)
    assert contents(folder) == first

    changed = fi / "emotion_dataset/awe/awe_202000.jpg"
    trees.save(changed, 77, 24)
    with patch.object(image_scan, "inspect_image", wraps=image_scan.inspect_image) as looked:
        built([fi], folder)
    assert [call.args[0] for call in looked.call_args_list] == [str(changed)]
    after = kept_in(folder)
    assert after[str(changed)]["sha256"] == hashlib.sha256(changed.read_bytes()).hexdigest()
    assert len(after) == len(before)


def test_another_release_of_equal_names_sizes_and_times_is_read_anew(tmp_path: Path) -> None:
    for place in ("one", "two"):
        image = tmp_path / place / "FI" / "emotion_dataset" / "awe" / "a.bmp"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (len(place), ord(place[0]), 0)).save(image)
        os.utime(image, (0, 0))
    first = built([tmp_path / "one" / "FI"], tmp_path / "out")
    seen = (first / "train.jsonl").read_text()
    second = built([tmp_path / "two" / "FI"], tmp_path / "out")
    alone = built([tmp_path / "two" / "FI"], tmp_path / "alone")
    assert (second / "train.jsonl").read_bytes() == (alone / "train.jsonl").read_bytes()
    assert (second / "train.jsonl").read_text() != seen


def test_names_that_are_no_utf8_are_kept_and_listed(tmp_path: Path) -> None:
    fi = trees.make_fi(tmp_path / "FI", 2)
    odd = os.fsdecode(b"emotion_dataset/awe/\xff\n.jpg")
    trees.save(fi / odd, 1)
    (fi / os.fsdecode(b"emotion_dataset/awe/\xfe.jpg")).write_bytes(b"")
    folder = built([fi], tmp_path / "out", "--test-rows", "FI-8=0", "FI-2=0")
    assert f"images/FI/{odd}" in {row["image"] for row in rows(folder / "train.jsonl")}
    (listed,) = rows(folder / "rejected.jsonl")
    assert (os.fsencode(listed["where"]), listed["reason"]) == (
        b"emotion_dataset/awe/\xfe.jpg",
        "image_empty",
    )
    first = contents(folder)
    with not_decoded():
        built([fi], folder, "--test-rows", "FI-8=0", "FI-2=0")
    assert contents(folder) == first


def run(raw: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--raw", str(raw), "--output-dir", str(output), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def slow_fi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that takes a second or so to scan."""
    return trees.make_fi(tmp_path_factory.mktemp("slow") / "FI", 12, size=500)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_an_interrupted_build_goes_on(number: signal.Signals, slow_fi: Path, tmp_path: Path) -> None:
    fi = shutil.copytree(slow_fi, tmp_path / "FI")
    output = tmp_path / "out"
    log = output / "scan.jsonl"
    process = run(fi, output)
    while process.poll() is None and not (log.exists() and log.stat().st_size > 4096):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # it must not end while another one is turned away
    workers = children(process.pid)
    second = build([fi], output)
    os.kill(process.pid, number)
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    assert (second.returncode, second.stderr) == (
        2,
        f"error: {output}/scan.jsonl: another command uses this file; wait for its end, or give another "
        "--output-dir\n",
    )
    assert not (output / "manifest.json").exists() and not (output / "test.jsonl").exists()
    if number == signal.SIGINT:
        assert err.splitlines()[-1].startswith("interrupted: ") and "Traceback" not in err
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(map(is_running, workers)), "the workers end with the command"
    before = log.read_bytes()
    assert 5 <= before.count(b"\n") < 96
    process = run(fi, output)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    after = log.read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    assert len(kept_in(output)) == after.count(b"\n") == 96, "each is decoded once"
    assert contents(output) == contents(built([slow_fi], tmp_path / "whole"))


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def peaks_of_builds(folder: Path) -> list[int]:
    """Bytes of Python objects at most, in builds of 100, 100 and 1100 images."""

    def looked(path: str) -> image_scan.Facts:
        content = hashlib.sha256(path.encode()).hexdigest()
        form = {"width": 8, "height": 8, "format": "JPEG", "mode": "RGB", "n_frames": 1}
        sums = {"sha256": content, "pixels_sha256": content}
        return form | sums | {"exif_rotated": False, "wrong_extension": False}

    peaks: list[int] = []

    def note_peak(*_: object) -> Row:
        peaks.append(tracemalloc.get_traced_memory()[1])
        return {}

    for place, n in enumerate((100, 100, 1100)):  # the first time for what is imported
        fi = folder / str(place) / "FI"
        for label in MIKELS_8:
            (fi / "emotion_dataset" / label).mkdir(parents=True)
        for number in range(n):
            (fi / "emotion_dataset" / MIKELS_8[number % 8] / f"{number}.jpg").touch()
        with (
            patch.object(image_scan, "asdict", lambda path: looked(path)),
            patch.object(image_scan, "inspect_image", lambda path: path),
            patch.object(image_scan, "_BLOCK", 64),
            patch.object(build_vecbench, "manifest", note_peak),  # all but the sums of files is done
        ):
            tracemalloc.start()
            built([fi], fi.with_name("out"))
            tracemalloc.stop()
    return peaks


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    # In a process of its own: what the other tests have loaded is not counted.
    code = (
        "import pathlib, sys; sys.path[:0] = ['..']; import test_scan as t;"
        "print(*t.peaks_of_builds(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    measured = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert measured.returncode == 0, measured.stderr
    _, few, many = map(int, measured.stdout.split())
    assert many - few < 1000 * 150  # bytes; as a Python object an image takes a thousand
