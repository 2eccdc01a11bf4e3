"""A folder or a list of one's own images becomes records that inference takes, and a page afterwards."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sklearn.datasets
from PIL import Image

from emocaliber.prompts import user_prompt
from emocaliber.records import RecordError, read_records, record_images, record_text, write_jsonl_atomic
from emocaliber.taxonomy import MIKELS_8, TASKS
from inference.backends.prepare import load_image, locate
from inference.prediction_page import main as page_main
from inference.prediction_page import write_page_of
from inference.runs.own_images import OWN_TASK, records_of_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("b.JPG", "a.png", "trip/day 1/ü.webp", ".hidden/c.png", "trip/.d.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(root / name)
    (root / "notes.txt").write_text("not an image")
    (root / "film.mp4").write_bytes(b"\0")
    return root


def test_a_folder_is_looked_through_and_what_is_left_out_is_counted(folder: Path) -> None:
    said: list[str] = []
    records, root = records_of_images(folder, task="emoset-8", say=said.append)
    assert [record["id"] for record in records] == ["a.png", "b.JPG", "trip/day 1/ü.webp"]
    assert root == folder
    assert said == [f"{folder}: 3 images; left out: 2 hidden, 2 without an image's suffix"]
    assert {record["task"] for record in records} == {"EmoSet-8"}
    assert records[0]["candidates"] == list(MIKELS_8)
    assert "ground_truth" not in records[0]


def test_the_records_are_those_that_inference_reads(folder: Path, tmp_path: Path) -> None:
    records, root = records_of_images(folder, candidates=["quiet joy", "grief"])
    write_jsonl_atomic(tmp_path / "data.jsonl", records)
    read = read_records(tmp_path / "data.jsonl", need_truth=False)
    assert read == records
    for record in read:
        assert record["task"] == OWN_TASK
        assert record_text(record) == user_prompt(["quiet joy", "grief"])
        assert load_image(locate(root, record_images(record)[0]))[0].size == (30, 20)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_its_labels(task: str, folder: Path) -> None:
    records, _ = records_of_images(folder, task=task)
    assert records[0]["candidates"] == list(TASKS[task].labels)


def test_one_image_is_a_source_too(folder: Path) -> None:
    records, root = records_of_images(folder / "a.png", task="FI-2")
    assert ([record["id"] for record in records], root) == (["a.png"], folder)


def test_a_list_of_paths_is_relative_to_its_own_folder(folder: Path) -> None:
    said: list[str] = []
    source = folder / "list.txt"
    source.write_bytes("\ufefftrip/day 1/ü.webp\r\n\na.png\n./a.png\n".encode())
    records, root = records_of_images(source, task="FI-2", say=said.append)
    assert [record["id"] for record in records] == ["trip/day 1/ü.webp", "a.png"]  # in the order of the list
    assert root == folder
    assert said == [f"{source}: 2 images; left out: 1 listed more than once"]


def test_a_list_may_name_images_elsewhere_and_the_root_is_above_them(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "beside.png")
    source = folder / "list.txt"
    source.write_text(f"../beside.png\n{folder / 'a.png'}\ngone.png\n")
    records, root = records_of_images(source, task="FI-2")
    assert root == tmp_path
    assert [record["id"] for record in records] == ["beside.png", "photos/a.png", "photos/gone.png"]
    assert locate(root, records[0]["image"]) == tmp_path / "beside.png"


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "again").symlink_to(folder)
    (folder / "link.png").symlink_to(folder / "a.png")
    records, _ = records_of_images(folder, task="FI-2")
    assert [record["id"] for record in records] == ["a.png", "b.JPG", "link.png", "trip/day 1/ü.webp"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, "either a task or a list of candidates"),
        ({"task": "FI-2", "candidates": ["a", "b"]}, "either a task or a list of candidates"),
        ({"task": "Flickr"}, f"'Flickr' is none of {', '.join(TASKS)}"),
        ({"candidates": ["joy"]}, "only 'joy'; give at least two labels"),
        ({"candidates": ["joy", "Joy"]}, "'Joy' twice"),
        ({"candidates": ["joy", ""]}, "make every one a word"),
    ],
)
def test_labels_that_cannot_be_asked_for(options: dict[str, object], part: str, folder: Path) -> None:
    with pytest.raises(RecordError) as caught:
        records_of_images(folder, **options)  # type: ignore[arg-type]
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("gone", None, "no such folder or file"),
        ("list.txt", b"", "no images; give a folder of"),
        ("list.txt", b"\xff\xfe", "not UTF-8 text"),
        (
            "list.txt",
            b"a.png\nhttps://example.org/a.png\n",
            "list.txt:2: 'https://example.org/a.png' is not a path",
        ),
        ("list.txt", b"a\0.png\n", "list.txt:1: "),
        ("notes.txt", b"just notes\nof mine\n", "none of the 2 paths that it lists is there"),
    ],
)
def test_sources_that_are_none(name: str, content: bytes | None, part: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError) as caught:
        records_of_images(tmp_path / name, task="FI-2")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        RecordError, match="no images; left out: 1 without an image's suffix; give a folder of"
    ):
        records_of_images(tmp_path, task="FI-2")


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\n.png")
    records, root = records_of_images(tmp_path, task="FI-2")
    write_jsonl_atomic(tmp_path / "data.jsonl", records)
    [record] = read_records(tmp_path / "data.jsonl", need_truth=False)
    assert load_image(locate(root, record["image"]))[0].size == (8, 8)


def save_run(run: Path, folder: Path) -> list[dict[str, object]]:
    records, root = records_of_images(folder, candidates=["joy", "grief"])
    response = "<think></think><answer>joy</answer><confidence>0.7</confidence>"
    rows = [{**record, "response": response} for record in records[:-1]]
    rows.append({**records[-1], "error": {"type": "image_missing", "message": "no file"}})
    write_jsonl_atomic(run / "predictions.jsonl", rows)
    attempt = {"arguments": {"checkpoint": "a/model", "temperature": 0}}
    about = {"attempts": [attempt], "identity": {"image_root": str(root)}}
    (run / "run.json").write_text(json.dumps(about))
    return rows


def content_of(page: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(page.read_text().split('id="content">')[1].split("</script")[0])
    return content


def test_a_run_gets_its_page(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = save_run(run, folder)
    page = write_page_of(run, folder)
    assert page == run / "predictions.html"
    content = content_of(page)
    assert content["title"] == "run"
    assert [row["id"] for row in content["rows"]] == [row["id"] for row in rows]  # type: ignore[attr-defined]
    facts = [["predictions", str(run / "predictions.jsonl")], ["checkpoint", "a/model"], ["temperature", "0"]]
    assert content["facts"] == facts


def test_the_command_writes_the_same_page(folder: Path, tmp_path: Path, root: Path) -> None:
    run = tmp_path / "run"
    save_run(run, folder)
    predictions = run / "predictions.jsonl"
    command = [
        sys.executable,
        str(root / "inference" / "prediction_page.py"),
        "--predictions",
        str(predictions),
    ]
    done = subprocess.run([*command, "--output", str(run / "own.html")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {run / 'own.html'}\n", "")
    assert (run / "own.html").read_bytes() == write_page_of(run, folder).read_bytes()


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "cannot be read"), (b"", "no rows"), (b'{"id": 1}\n', "no task"), (b"\xff\n", "not UTF-8")],
)
def test_predictions_that_are_none(
    content: bytes | None, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, page = tmp_path / "p.jsonl", tmp_path / "p.html"
    if content is not None:
        predictions.write_bytes(content)
    assert page_main(["--predictions", str(predictions), "--output", str(page)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and part in said and said.count("\n") == 1
    assert not page.exists()


def test_the_page_cannot_replace_the_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = tmp_path / "p.jsonl"
    predictions.write_bytes(b"{}\n")
    with pytest.raises(SystemExit) as caught:
        page_main(["--predictions", str(predictions), "--output", str(predictions)])
    assert caught.value.code == 2
    assert predictions.read_bytes() == b"{}\n"


@pytest.mark.slow
def test_a_folder_with_photographs_through_the_engine_at_other_pixel_limits(
    folder: Path,
    tmp_path: Path,
    checkpoint: Path,
    infer: Callable[..., subprocess.CompletedProcess[str]],
    read_rows: Callable[[Path], list[dict[str, object]]],
) -> None:
    (folder / "broken.png").write_text("not an image")
    for name in ("china.jpg", "flower.jpg"):  # 640 x 427
        shutil.copy(Path(sklearn.datasets.__file__).parent / "images" / name, folder)
    limits = ("--min-pixels", 50_176, "--max-pixels", 100_352, "--max-new-tokens", 8)
    run = tmp_path / "run"
    done = infer(
        "--checkpoint", checkpoint, "--images", folder, "--task", "EmoSet-8", "--output-dir", run, *limits
    )
    assert done.returncode == 0, done.stderr[-2000:]
    content = content_of(run / "predictions.html")
    ends = {row["id"]: row["status"] for row in content["rows"]}  # type: ignore[attr-defined]
    small = {"a.png", "b.JPG", "trip/day 1/ü.webp"}
    assert set(ends) == {*small, "broken.png", "china.jpg", "flower.jpg"}
    assert [name for name, status in ends.items() if status == "failed"] == ["broken.png"]
    assert ["checkpoint", str(checkpoint)] in content["facts"]  # type: ignore[operator]
    tokens = {row["id"]: row.get("n_image_tokens") for row in read_rows(run / "predictions.jsonl")}
    # 640 x 427 shrinks by sqrt(273,280 / 100,352) = 1.65 to 387 x 258: 13 x 9 squares of 28.
    assert tokens["china.jpg"] == tokens["flower.jpg"] == 13 * 9
    # 30 x 20 grows by sqrt(50,176 / 600) = 9.14 to 275 x 183: 10 x 7 squares of 28.
    assert {tokens[name] for name in small} == {10 * 7}
