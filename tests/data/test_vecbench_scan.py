"""The scan of the releases: kept over kills and settings, one process at a time, flat memory."""

import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "data"))

import raw_trees as trees  # noqa: E402
from vecbench_builds import FILES, SCRIPT, Row, build, built, rows  # noqa: E402

from data.raw import outputs as vecbench_outputs  # noqa: E402
from data.raw import scan as vecbench_scan  # noqa: E402
from emocaliber.taxonomy import MIKELS_8  # noqa: E402

Kept = dict[str, tuple[object, ...]]


def kept_in(folder: Path) -> Kept:
    with closing(sqlite3.connect(folder / "scan.sqlite")) as database:
        return {row[0]: row for row in database.execute("SELECT * FROM scan")}


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_what_is_in_the_scan_is_not_decoded_again(tmp_path: Path) -> None:
    fi = trees.make_fi(tmp_path / "FI", 2)
    trees.add_fi_oddities(fi)
    folder = built([fi], tmp_path / "out")
    first, before = contents(folder), kept_in(folder)
    assert len(before) == 16 + 12 + 12
    with patch.object(vecbench_scan, "look_into", side_effect=AssertionError("decoded again")):
        built([fi], folder, "--seed", "1", "--max-copies", "20")
        built([fi], folder)
    assert contents(folder) == first

    changed, moved = fi / "emotion_dataset/awe/awe_202000.jpg", fi / "emotion_dataset/awe/awe_202001.jpg"
    trees.save(changed, 77, 24)
    moved.rename(fi / "moved.jpg")
    with patch.object(vecbench_scan, "look_into", wraps=vecbench_scan.look_into) as looked:
        built([fi], folder)
    assert [call.args[0][0] for call in looked.call_args_list] == ["FI/emotion_dataset/awe/awe_202000.jpg"]
    after = kept_in(folder)
    assert after["FI/emotion_dataset/awe/awe_202000.jpg"][4] == hashlib.sha256(changed.read_bytes()).digest()
    assert len(after) == len(before)
    (fi / "moved.jpg").rename(moved)
    with patch.object(vecbench_scan, "look_into", side_effect=AssertionError("decoded again")):
        built([fi], folder)


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
    with patch.object(vecbench_scan, "look_into", side_effect=AssertionError("decoded again")):
        built([fi], folder, "--test-rows", "FI-8=0", "FI-2=0")
    assert contents(folder) == first


def run(raw: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--raw", str(raw), "--output-dir", str(output), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def slow_fi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that takes a second or so to scan."""
    return trees.make_fi(tmp_path_factory.mktemp("slow") / "FI", 12, size=500)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_goes_on(number: signal.Signals, slow_fi: Path, tmp_path: Path) -> None:
    fi = shutil.copytree(slow_fi, tmp_path / "FI")
    output = tmp_path / "out"
    log = output / "scan.sqlite-wal"  # grows by a page or two with each image
    process = run(fi, output)
    while process.poll() is None and not (log.exists() and log.stat().st_size > 15 * 4096):
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
        f"error: {output}/scan.sqlite: another build uses this folder; wait for its end, or give another "
        "--output-dir\n",
    )
    assert not (output / "manifest.json").exists() and not (output / "test.jsonl").exists()
    if number == signal.SIGINT:
        assert err.splitlines()[-1].startswith("interrupted: ") and "Traceback" not in err
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(map(is_running, workers)), "the workers end with the command"
    kept = kept_in(output)
    assert 5 <= len(kept) < 96

    for name in kept:  # other bytes of the same size and time: decoded again, they would be left out
        path = fi.parent / name
        state = path.stat()
        path.write_bytes(b"\0" * state.st_size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    process = run(fi, output)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
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


def test_another_file_in_the_place_of_the_scan(tmp_path: Path) -> None:
    fi, scan = trees.make_fi(tmp_path / "FI", 1), tmp_path / "scan.sqlite"
    scan.write_bytes(b"a text that is longer than the head of a database" * 50)
    result = build([fi], tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "scan.sqlite: file is not a database; " in result.stderr
    scan.unlink()
    with closing(sqlite3.connect(scan)) as database:
        database.execute("CREATE TABLE scan (file, size)")
    result = build([fi], tmp_path)
    assert result.returncode == 2 and "remove the file to scan anew" in result.stderr.splitlines()[-1]


def peaks_of_builds(folder: Path) -> list[int]:
    """Bytes of Python objects at most, in builds of 100, 100 and 1100 images."""

    def looked(task: vecbench_scan.Task) -> vecbench_scan.Scanned:
        content = hashlib.sha256(task[0].encode()).digest()
        return vecbench_scan.Scanned(content, content)

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
            patch.object(vecbench_scan, "look_into", looked),
            patch.object(vecbench_scan, "BLOCK", 64),
            patch.object(vecbench_outputs, "manifest", note_peak),  # all but the sums of files is done
        ):
            tracemalloc.start()
            built([fi], fi.with_name("out"))
            tracemalloc.stop()
    return peaks


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    # In a process of its own: what the other tests have loaded is not counted.
    code = (
        "import pathlib, sys, test_vecbench_scan as t; print(*t.peaks_of_builds(pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    measured = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert measured.returncode == 0, measured.stderr
    _, few, many = map(int, measured.stdout.split())
    assert many - few < 1000 * 150  # bytes; as a Python object an image takes a thousand
