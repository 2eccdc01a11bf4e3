"""What image files hold is looked at once, remembered as long as it is true, and never by two at a time."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest.mock import patch

import PIL
import pytest
from PIL import Image

from emocaliber import image_scan
from emocaliber.image_scan import Facts, ImageMemory
from emocaliber.images import ImageFault
from emocaliber.jsonl import RecordError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three images, an empty file and none."""
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "empty.png").touch()
    return [str(tmp_path / name) for name in ("0.png", "1.png", "2.png", "empty.png", "gone.png")]


def scanned(memory: Path, files: list[str], **options: Any) -> dict[str, Facts | ImageFault]:
    with ImageMemory(memory, **options) as opened:
        return dict(opened.scan(files, len(files), workers=1))


def lines(path: Path) -> list[Facts]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def looked_at() -> Any:
    return patch.object(image_scan, "inspect_image", wraps=image_scan.inspect_image)


def test_facts_and_faults_in_the_order_of_the_files(tmp_path: Path, files: list[str]) -> None:
    found = scanned(tmp_path / "memory.jsonl", files)
    assert list(found) == files
    faults = {file: one.reason for file, one in found.items() if isinstance(one, ImageFault)}
    assert faults == {files[3]: "image_empty", files[4]: "image_missing"}
    first = found[files[0]]
    assert isinstance(first, dict) and (first["width"], first["format"], len(first["sha256"])) == (
        8,
        "PNG",
        64,
    )
    # What is missing may be there next time, and is not remembered.
    assert [row["file"] for row in lines(tmp_path / "memory.jsonl")] == files[:4]


def test_only_what_is_new_or_has_changed_is_looked_at(tmp_path: Path, files: list[str]) -> None:
    memory = tmp_path / "memory.jsonl"
    before = scanned(memory, files[:4])
    with looked_at() as looked:
        again = scanned(memory, files[:4])
    assert looked.call_count == 0
    assert {file: str(one) for file, one in again.items() if isinstance(one, ImageFault)} == {
        file: str(one) for file, one in before.items() if isinstance(one, ImageFault)
    }
    Image.new("RGB", (9, 9)).save(files[1])
    with looked_at() as looked:
        changed = scanned(memory, files[:4])[files[1]]
    assert looked.call_count == 1 and isinstance(changed, dict)
    assert (changed["width"], changed["before"]["width"]) == (9, 8)
    assert len(lines(memory)) == 5 and "before" not in lines(memory)[4]
    with looked_at() as looked:
        scanned(memory, files[:4])
    assert looked.call_count == 0


def test_other_bytes_of_the_same_size_and_time_are_another_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bmp"
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(file)
        os.utime(file, (1e9, 1e9))
        found = scanned(tmp_path / "memory.jsonl", [str(file)])[str(file)]
    assert isinstance(found, dict) and found["before"]["pixels_sha256"] != found["pixels_sha256"]


@pytest.mark.parametrize("other", ["method", "Pillow"])
def test_another_way_to_look_is_another_answer(tmp_path: Path, files: list[str], other: str) -> None:
    memory = tmp_path / "memory.jsonl"
    scanned(memory, files[:1])
    version = PIL.__version__ + (".1" if other == "Pillow" else "")
    with looked_at() as looked, patch.object(PIL, "__version__", version):
        scanned(memory, files[:1], **({"method": "another"} if other == "method" else {}))
    assert looked.call_count == 1


def test_a_line_that_was_cut_off_is_mended(tmp_path: Path, files: list[str]) -> None:
    memory = tmp_path / "memory.jsonl"
    scanned(memory, files[:3])
    memory.write_bytes(memory.read_bytes()[:-20])
    with looked_at() as looked:
        scanned(memory, files[:3])
    assert looked.call_count == 1 and [row["file"] for row in lines(memory)] == files[:3]


@pytest.mark.parametrize("line", ["no JSON\n", "[1]\n", "\xff\xfe\n"])
def test_another_file_in_its_place_is_one_error(tmp_path: Path, files: list[str], line: str) -> None:
    (tmp_path / "memory.jsonl").write_bytes(line.encode("latin-1"))
    with pytest.raises(RecordError, match=r"memory\.jsonl: not made by this command; remove it"):
        scanned(tmp_path / "memory.jsonl", files)


def test_lines_of_earlier_versions_are_not_used(tmp_path: Path, files: list[str]) -> None:
    size = os.stat(files[0]).st_size
    old = [{"image": "0.png", "size": size}, {"file": files[0], "size_bytes": size, "width": 5}]
    (tmp_path / "memory.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in old))
    found = scanned(tmp_path / "memory.jsonl", files[:1])[files[0]]
    assert isinstance(found, dict) and found["width"] == 8


def test_one_at_a_time(tmp_path: Path, files: list[str]) -> None:
    memory = tmp_path / "memory.jsonl"
    with ImageMemory(memory), pytest.raises(RecordError, match="another command uses this file"):
        scanned(memory, files)
    assert len(scanned(memory, files)) == 5


def test_names_that_are_no_unicode_are_remembered(tmp_path: Path) -> None:
    odd = str(tmp_path / "a\udcff\n.png")
    Image.new("RGB", (8, 8)).save(odd)
    never = str(tmp_path / "a\ud800.png")
    assert isinstance(scanned(tmp_path / "memory.jsonl", [odd, never])[never], ImageFault)
    with looked_at() as looked:
        assert isinstance(scanned(tmp_path / "memory.jsonl", [odd])[odd], dict)
    assert looked.call_count == 0


def test_distinct_files_are_gathered(tmp_path: Path, files: list[str]) -> None:
    with ImageMemory(tmp_path / "memory.jsonl") as memory:
        widths, faults = memory.gather(
            [*files, *files], image_scan.decoded, lambda one: one["width"], workers=1
        )
    assert widths == dict.fromkeys(files[:3], 8) and list(faults) == files[3:]


def test_too_little_memory_is_no_fault_of_the_file(tmp_path: Path, files: list[str]) -> None:
    with (
        patch.object(Image, "open", side_effect=MemoryError),
        pytest.raises(MemoryError, match=r"0\.png: not enough memory"),
    ):
        scanned(tmp_path / "memory.jsonl", files)
    assert lines(tmp_path / "memory.jsonl") == []


def test_a_worker_that_is_killed_ends_the_scan_with_one_line(tmp_path: Path) -> None:
    """As the system does for want of memory; what the others found is remembered."""
    main = tmp_path / "main.py"
    main.write_text(
        textwrap.dedent(
            """
            import os, signal, sys
            from pathlib import Path
            from emocaliber.image_scan import ImageMemory
            from emocaliber.jsonl import RecordError

            def look(file):
                if file.endswith("/90"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return {"name": file}

            if __name__ == "__main__":
                folder = Path(sys.argv[1])
                for number in range(100):
                    (folder / str(number)).touch()
                files = [str(folder / str(number)) for number in range(100)]
                try:
                    with ImageMemory(folder / "memory.jsonl", "look") as memory:
                        list(memory.scan(files, len(files), look, workers=2))
                except RecordError as error:
                    print(error)
            """
        )
    )
    command = [sys.executable, str(main), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.startswith("a worker was killed, perhaps for memory; run it again"), ended.stderr
    found = lines(tmp_path / "memory.jsonl")
    assert len(found) >= 16 and all(row["name"] == row["file"] for row in found)


def test_the_workers_end_with_their_parent(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from pathlib import Path
            from emocaliber.image_scan import ImageMemory

            def look(file):
                Path(f"{file}.{os.getpid()}").touch()
                time.sleep(600)

            if __name__ == "__main__":
                files = [f"{sys.argv[1]}/{number}" for number in range(40)]
                for file in files:
                    Path(file).touch()
                with ImageMemory(Path(sys.argv[1], "memory.jsonl"), "look") as memory:
                    list(memory.scan(files, len(files), look, workers=2))
            """
        )
    )
    process = subprocess.Popen([sys.executable, str(main), str(tmp_path)], stderr=subprocess.DEVNULL)
    while (
        process.poll() is None and len(workers := [path.suffix[1:] for path in tmp_path.glob("*.*[0-9]")]) < 2
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    for worker in workers:
        while os.path.exists(f"/proc/{worker}") and " Z " not in Path(f"/proc/{worker}/stat").read_text():
            pass
