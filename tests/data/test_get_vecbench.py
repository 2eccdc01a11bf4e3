"""Taking the published benchmark: three layouts give the same records, and whatever differs is told."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import in_process
import pytest
from in_process import Result
from PIL import Image

from data import get_vecbench
from emocaliber.prompts import conversation, user_prompt
from emocaliber.records import read_records
from emocaliber.taxonomy import PUBLISHED_TEST_ROWS, PUBLISHED_TRAIN_ROWS, TASKS

SCRIPT = Path(__file__).parents[2] / "data" / "get_vecbench.py"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def get(folder: Path, *flags: str, **environment: str) -> Result:
    """The command in that folder; in a process of its own where its environment matters."""
    if not environment:
        before = Path.cwd()
        os.chdir(folder)
        try:
            return in_process.run(get_vecbench.main, "--output-dir", "out", "--workers", "1", *flags)
        finally:
            os.chdir(before)
    command = [sys.executable, str(SCRIPT), "--output-dir", "out", *flags]
    env = os.environ | environment
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return Result(ended.returncode, ended.stdout, ended.stderr)


def report_of(folder: Path) -> dict[str, dict[str, Any]]:
    """reason -> finding of the report."""
    report = json.loads((folder / "out" / "report.json").read_text())
    return {finding["reason"]: finding for finding in report["findings"]}


def listed(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "out" / "differences.jsonl").read_text().splitlines()]


def row(task: str, number: int, /, **changes: Any) -> dict[str, Any]:
    """A record as published: no id, the question with the candidates."""
    labels = list(TASKS[task].labels)
    image = f"images/{task}/{number}.png"
    record = {
        "conversations": conversation(image, labels),
        "task": task,
        "ground_truth": labels[number % len(labels)],
        "candidates": labels,
    }
    return record | changes


def image_of(record: dict[str, Any]) -> str:
    return str(record["conversations"][0]["content"][0]["image"])


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (10, 20, 30)).save(path)


def write_jsonl(path: Path, rows: list[dict[str, Any]], *, with_images: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in rows))
    for record in rows if with_images else []:
        make_image(path.parent / image_of(record))
    return path


def write_std(path: Path, rows: list[dict[str, Any]], indent: int | None = None) -> None:
    entries = {
        f"std-{number}": {
            "image_path": image_of(record),
            "prompt": f"<image>{record['conversations'][0]['content'][1]['text']}",
            "ground_truth": record["ground_truth"],
            "other_info": {"candidates": record["candidates"], "task": record["task"]},
        }
        for number, record in enumerate(rows)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, indent=indent))


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


HEADER = ("image_path", "task", "label", "split")


@pytest.fixture
def few() -> list[dict[str, Any]]:
    return [row(task, number) for task in TASKS for number in range(2)]


def test_the_whole_benchmark_in_each_layout_is_as_published(tmp_path: Path) -> None:
    rows = [row(task, number) for task, n in PUBLISHED_TEST_ROWS.items() for number in range(n)]
    write_jsonl(tmp_path / "jsonl" / "test.jsonl", rows, with_images=False)
    write_std(tmp_path / "std" / "Std-VECBench.json", rows)
    table = [(image_of(one), one["task"], one["ground_truth"], "test") for one in rows]
    more = [("t.png", "FI-2", "positive", "train")]
    write_csv(tmp_path / "csv" / "test_metadata.csv", table + more, HEADER)
    found = {}
    for layout, flags in {"jsonl": [], "std": [], "csv": ["--split", "train=skip"]}.items():
        result = get(tmp_path, "--source", layout, "--skip-images", *flags)
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.endswith("as published\n") and "8032       8032" in result.stdout
        assert not (tmp_path / "out" / "differences.jsonl").exists()
        found[layout] = read_records(tmp_path / "out" / "test.jsonl")
    assert "1, skipped by --split" not in result.stdout and "skipped by --split 1" in result.stdout
    assert report_of(tmp_path)["candidates_added"]["count"] == 8032
    for layout in ("std", "csv"):
        for one, other in zip(found["jsonl"], found[layout], strict=True):
            assert {**one, "id": ""} == {**other, "id": ""}
    assert found["jsonl"] == [
        {"id": read["id"], "image": image_of(given), **given}
        for read, given in zip(found["jsonl"], rows, strict=True)
    ]
    assert [read["id"] for read in found["jsonl"]] == [
        read["id"] for read in read_records(tmp_path / "jsonl" / "test.jsonl")
    ]
    assert found["std"][3]["id"] == "std-3"


def test_the_published_counts_add_up_to_the_published_sums() -> None:
    groups = dict.fromkeys(("ID VSA", "ID VER", "OOD VER"), 0)
    for task, count in PUBLISHED_TEST_ROWS.items():
        groups[TASKS[task].group] += count
    assert groups == {"ID VSA": 2000, "ID VER": 3997, "OOD VER": 2035}
    assert sum(PUBLISHED_TRAIN_ROWS.values()) == 360_404
    assert {TASKS[task].group for task in PUBLISHED_TRAIN_ROWS} == {"ID VSA", "ID VER"}


def test_other_counts_are_told_per_task_and_split(tmp_path: Path, few: list[dict[str, Any]]) -> None:
    rows = [one | {"split": "train" if one["task"] == "FI-2" else "test"} for one in few]
    write_jsonl(tmp_path / "source" / "all.jsonl", rows)
    result = get(tmp_path, "--source", "source")
    assert result.returncode == 1, result.stderr
    told = [difference["message"] for difference in listed(tmp_path)]
    assert "FI-2, test: 0 rows, 1000 published" in told
    assert "FI-2, train: 2 rows, 10382 published" in told
    assert "WebEmo-25, test: 2 rows, 997 published" in told
    assert len(told) == len(TASKS) + len(PUBLISHED_TRAIN_ROWS)
    assert [read["task"] for read in read_records(tmp_path / "out" / "train.jsonl")] == ["FI-2", "FI-2"]
    assert len(read_records(tmp_path / "out" / "test.jsonl")) == len(few) - 2
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(manifest["sha256_written"]) == {"test.jsonl", "train.jsonl"}
    (tmp_path / "out" / "notes.txt").touch()
    assert get(tmp_path, "--source", "source", "--split", "train=skip").returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(
            "differences.jsonl",
            "image_checks.jsonl",
            "manifest.json",
            "notes.txt",
            "report.json",
            "test.jsonl",
        )
    ]


def test_rows_that_cannot_be_records_are_left_out_each_by_its_reason(tmp_path: Path) -> None:
    bad = {
        "no_task": row("FI-8", 0, task=" "),
        "no_truth": row("FI-8", 1, ground_truth=None),
        "truth_not_a_candidate": row("FI-8", 2, ground_truth="joy"),
        "no_candidates": row("FI-8", 3, candidates="anger"),
        "bad_id": row("FI-8", 4, id=["x"]),
        "no_image": row("FI-8", 5, conversations=[{"role": "user", "content": "What is it?"}]),
        "no_question": row(
            "FI-8", 6, conversations=[{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]
        ),
        "image_outside_root": row("FI-8", 7, image="../a.png"),
        "unknown_split": row("FI-8", 8, split="dev"),
        "repeated_id": row("FI-8", 10, id="same"),
    }
    path = tmp_path / "test.jsonl"
    write_jsonl(path, [row("FI-8", 9, id="same"), *bad.values()], with_images=False)
    with path.open("ab") as file:
        file.write(b'{"task": NaN}\n[1]\n{"task": "\xff"}\n')
    result = get(tmp_path, "--source", "test.jsonl", "--skip-images")
    assert result.returncode == 1, result.stderr
    left_out = [one for one in listed(tmp_path) if one["reason"] != "task_count"]
    assert [one["reason"] for one in left_out] == [*bad, "not_json", "not_an_object", "not_json"]
    assert [one["where"] for one in left_out] == [f"test.jsonl:{number}" for number in range(2, 15)]
    assert "is also that of test.jsonl:1" in left_out[9]["message"]
    assert [read["id"] for read in read_records(tmp_path / "out" / "test.jsonl")] == ["same"]
    assert "left out 13" in result.stdout


def test_what_differs_from_the_taxonomy_is_told_and_kept(tmp_path: Path) -> None:
    labels = list(TASKS["UnbiasedEmo-6"].labels)
    rows = [
        row("UnbiasedEmo-6", 0, task="UnbaisedEmo-6"),
        row("Artphoto-8", 0, ground_truth="Sad"),
        row("FI-8", 0, candidates=[*labels], ground_truth="joy"),
        row("FI-8", 1, task="Emotion6"),
        row("FI-8", 2),
        row("FI-8", 2, ground_truth="fear"),
        row("FI-8", 2),
    ]
    rows[4]["conversations"][0]["content"][1]["text"] = "Which one?"
    write_jsonl(tmp_path / "test.jsonl", rows)
    result = get(tmp_path, "--source", "test.jsonl")
    assert result.returncode == 1, result.stderr
    found = report_of(tmp_path)
    assert {reason: finding["count"] for reason, finding in found.items()} == {
        "task_count": 9,
        "task_respelt": 1,
        "label_respelt": 1,
        "candidates_differ": 1,
        "label_not_in_taxonomy": 1,
        "unknown_task": 1,
        "question_differs": 2,
        "conflicting_labels": 1,
        "repeated_row": 1,
    }
    assert [name for name in found if found[name]["is_note"]] == sorted(
        ["task_respelt", "label_respelt", "question_differs"], key=list(found).index
    )
    read = read_records(tmp_path / "out" / "test.jsonl")
    assert [one["task"] for one in read[:2]] == ["UnbiasedEmo-6", "Artphoto-8"]
    assert read[1]["ground_truth"] == "sadness" and len(read) == len(rows)


def test_images_that_cannot_be_used_are_told_and_changed_ones_are(tmp_path: Path) -> None:
    rows = [row("FI-8", number) for number in range(6)]
    path = write_jsonl(tmp_path / "source" / "test.jsonl", rows)
    files = [path.parent / image_of(one) for one in rows]
    files[0].unlink()
    files[1].write_bytes(b"")
    files[2].write_bytes(b"<html>not found</html>")
    whole = Image.effect_noise((64, 64), 50)
    whole.save(files[3])
    files[3].write_bytes(files[3].read_bytes()[:-600])
    Image.new("CMYK", (8, 8)).save(files[4], "JPEG")
    assert get(tmp_path, "--source", "source").returncode == 1
    found = report_of(tmp_path)
    for reason in ("image_missing", "image_empty", "not_an_image", "image_truncated", "wrong_extension"):
        assert found[reason]["count"] == 1, found
    images = json.loads((tmp_path / "out" / "report.json").read_text())["images"]
    assert (images["checked"], images["usable"], images["CMYK"]) == (6, 2, 1)
    kept = (tmp_path / "out" / "image_checks.jsonl").read_text()
    assert len(kept.splitlines()) == 5  # all but the missing one
    assert get(tmp_path, "--source", "source").returncode == 1
    assert (tmp_path / "out" / "image_checks.jsonl").read_text() == kept
    Image.new("RGB", (9, 9)).save(files[5])
    assert get(tmp_path, "--source", "source").returncode == 1
    assert report_of(tmp_path)["sum_changed"]["count"] == 1
    assert report_of(tmp_path)["sum_changed"]["first"].startswith("source/test.jsonl:6: images/FI-8/5.png")


def test_images_of_another_root_are_not_taken_for_those_checked_before(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "source" / "test.jsonl", [row("FI-2", 0)])
    image = image_of(row("FI-2", 0))
    size, times = (path.parent / image).stat().st_size, (1e9, 1e9)
    (tmp_path / "other" / image).parent.mkdir(parents=True)
    (tmp_path / "other" / image).write_bytes(b"?" * size)
    for root in ("source", "other"):
        os.utime(tmp_path / root / image, times)
    assert get(tmp_path, "--source", "source").returncode == 1
    assert set(report_of(tmp_path)) == {"task_count"}
    assert get(tmp_path, "--source", "source", "--image-root", "other").returncode == 1
    assert report_of(tmp_path)["not_an_image"]["count"] == 1


@pytest.fixture
def get_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command in this process and its exit status."""

    def run(*flags: str) -> int:
        return get_vecbench.main(["--output-dir", str(tmp_path / "out"), *flags])

    return run


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path,
    get_here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_jsonl(tmp_path / "source" / "test.jsonl", [row("FI-2", 0)])
    (tmp_path / "source" / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert get_here("--source", str(tmp_path / "source")) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'source' / 'closed'}: cannot be read (Permission denied); ")


def test_a_build_that_stops_half_way_leaves_no_manifest_over_other_files(
    tmp_path: Path, get_here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(write_jsonl(tmp_path / "test.jsonl", [row("FI-2", 0)]))
    assert get_here("--source", source) == 1 and (tmp_path / "out" / "manifest.json").exists()
    from data.published import conversion as vecbench_conversion

    there = []

    def full(*_: object) -> None:
        there.append((tmp_path / "out" / "manifest.json").exists())
        raise OSError(28, "No space left on device", "test.jsonl")

    monkeypatch.setattr(vecbench_conversion, "write_jsonl_atomic", full)
    assert get_here("--source", source) == 2
    assert there == [False]


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [("/home/them/VECBench/", ""), ("VECBench/raw/", "--strip-prefix VECBench/raw would find images")],
)
def test_image_paths_of_another_machine(tmp_path: Path, prefix: str, advice: str) -> None:
    rows = [row("FI-8", number) for number in range(2)]
    path = write_jsonl(tmp_path / "source" / "test.jsonl", rows)
    for one in rows:
        one["conversations"][0]["content"][0]["image"] = prefix + image_of(one)
    write_jsonl(path, rows, with_images=False)
    assert get(tmp_path, "--source", "source").returncode == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report.get("advice", "") == advice
    assert bool(advice) == ("image_missing" in report_of(tmp_path))
    assert bool(advice) != ("image_outside_root" in report_of(tmp_path))
    assert get(tmp_path, "--source", "source", "--strip-prefix", prefix).returncode == 1
    assert set(report_of(tmp_path)) == {"task_count"}
    read = read_records(tmp_path / "out" / "test.jsonl")
    assert [(one["image"], image_of(one)) for one in read] == [(f"images/FI-8/{n}.png",) * 2 for n in (0, 1)]


def test_a_broken_dictionary_is_read_up_to_its_fault(tmp_path: Path, few: list[dict[str, Any]]) -> None:
    write_std(tmp_path / "Std-VECBench.json", few, indent=1)
    path = tmp_path / "Std-VECBench.json"
    text = path.read_text()
    second = text.index('"std-1"')
    line = text.count("\n", 0, second) + 1
    path.write_text(text[: second + 20])
    result = get(tmp_path, "--source", path.name, "--skip-images")
    assert result.returncode == 1, result.stderr
    assert [one["id"] for one in read_records(tmp_path / "out" / "test.jsonl")] == ["std-0"]
    assert report_of(tmp_path)["not_json"]["first"].startswith(f"Std-VECBench.json:{line}: ")
    path.write_text(
        json.dumps({"a": json.loads(text)["std-0"]})[:-1] + "," + json.dumps(json.loads(text))[1:]
    )
    path.write_text(path.read_text().replace('"std-2"', '"a"'))
    result = get(tmp_path, "--source", path.name, "--skip-images")
    assert result.returncode == 1, result.stderr
    found = report_of(tmp_path)
    assert found["repeated_id"]["first"].startswith("Std-VECBench.json:1 (a): id 'a' is also that of")
    assert (
        found["sum_changed"]["count"] == found["repeated_row"]["count"] == found["repeated_id"]["count"] == 1
    )


def test_a_table_with_other_headers_needs_to_be_told(tmp_path: Path) -> None:
    rows = [("a.png", "FI-2", "positive", "val"), ("b.png", "FI-2", "negative"), ("c.png", "X", "y", "val")]
    write_csv(tmp_path / "meta.csv", rows, ("file", "task", "emotion", "part"))
    result = get(tmp_path, "--source", "meta.csv")
    assert result.returncode == 2 and not (tmp_path / "out").exists()
    assert re.match(r"error: meta\.csv: .*without the column 'image_path'; it has file, task", result.stderr)
    columns = [f"--column={pair}" for pair in ("image_path=file", "label=emotion", "split=part")]
    result = get(tmp_path, "--source", "meta.csv", *columns, "--split", "val=test", "--skip-images")
    assert result.returncode == 1, result.stderr
    found = [(one["where"], one["reason"]) for one in listed(tmp_path) if one["reason"] != "task_count"]
    assert found == [("meta.csv:3", "wrong_columns"), ("meta.csv:4", "no_candidates")]
    (read,) = read_records(tmp_path / "out" / "test.jsonl")
    assert read["conversations"] == conversation("a.png", ["positive", "negative"])


def test_a_source_that_cannot_be_read_on_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = [("a.png", "FI-2", "positive", "test"), ("b" * 200_000, "FI-2", "positive", "test")]
    write_csv(tmp_path / "meta.csv", rows, HEADER)
    result = get(tmp_path, "--source", "meta.csv")
    assert result.returncode == 2 and "error: meta.csv:3: not a table" in result.stderr, result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_splits_by_folder_and_ids_that_each_split_counts_anew(
    tmp_path: Path, few: list[dict[str, Any]]
) -> None:
    """And a list of checked images that was cut off is mended, not an error."""
    for split, rows in (("train", few[:4]), ("test", few)):
        numbered = [one | {"id": str(number)} for number, one in enumerate(rows)]
        write_jsonl(tmp_path / "source" / split / "records.jsonl", numbered)
    for _ in range(2):
        result = get(tmp_path, "--source", "source", "--image-root", str(tmp_path / "source" / "test"))
        assert result.returncode == 1, result.stderr  # not the published counts
        out = tmp_path / "out"
        counts = {name: len((out / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "test")}
        assert counts == {"train": 4, "test": len(few)}
        with (out / "image_checks.jsonl").open("a") as file:
            file.write('{"image": "im')


def test_questions_can_be_ours(tmp_path: Path) -> None:
    rows = [row("FI-2", 0), row("FI-2", 1)]
    rows[0]["conversations"][0]["content"][1]["text"] = "Which one?"
    write_jsonl(tmp_path / "test.jsonl", rows)
    flags = ["--source", "test.jsonl", "--skip-images", "--questions", "without_confidence"]
    assert get(tmp_path, *flags).returncode == 1
    asked = [
        one["conversations"][0]["content"][1]["text"] for one in read_records(tmp_path / "out" / "test.jsonl")
    ]
    assert asked == [user_prompt(["positive", "negative"], with_confidence=False)] * 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --revision"),
        (["--source", "absent"], "absent is missing"),
        (["--source", "empty"], "no VECBench in any"),
        (["--source", "chats.jsonl"], "JSON of another form"),
        (["--source", "both"], "more than one layout"),
        (["--source", "test.jsonl", "--split", "val=dev"], "means test, train or skip"),
        (["--source", "test.jsonl", "--column", "path=x"], "give one of image_path"),
        (["--source", "test.jsonl", "--output-dir", "."], "is the folder of the source"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, flags: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    write_jsonl(tmp_path / "test.jsonl", [row("FI-2", 0)])
    write_jsonl(tmp_path / "chats.jsonl", [{"messages": []}], with_images=False)
    write_jsonl(tmp_path / "both" / "test.jsonl", [row("FI-2", 0)])
    write_std(tmp_path / "both" / "std.json", [row("FI-2", 0)])
    result = get(tmp_path, *flags)
    assert result.returncode == 2 and said in result.stderr, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Hub(BaseHTTPRequestHandler):
    """What `snapshot_download` asks a hub for: the commit of a revision, its files, and their bytes."""

    protocol_version = "HTTP/1.1"
    folder: Path
    asked: list[str]
    fails: set[str]

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        prefix, found = "/datasets/wudq/VECBench/resolve/" + COMMIT + "/", None
        if path == "/api/datasets/wudq/VECBench/revision/v1":
            found = json.dumps({"id": "wudq/VECBench", "sha": COMMIT, "siblings": []}).encode()
        elif path == f"/api/datasets/wudq/VECBench/tree/{COMMIT}":
            files = sorted(file for file in self.folder.rglob("*") if file.is_file())
            sizes = {file.relative_to(self.folder).as_posix(): file.stat().st_size for file in files}
            rows = [{"type": "file", "path": p, "size": n, "oid": f"{n:040x}"} for p, n in sizes.items()]
            found = json.dumps(rows).encode()
        elif path.startswith(prefix):
            name = path.removeprefix(prefix)
            found = (self.folder / name).read_bytes()
            if with_body:
                self.asked.append(name)
                if name in self.fails:
                    found = None
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(found or b"")))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(found or b""):040x}"')
        self.send_header("Content-Type", "application/json" if "/api/" in path else "text/plain")
        self.end_headers()
        if with_body:
            self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, type[Hub]]]:
    """A hub on loopback over tmp_path/remote: its address and its class, which says what was asked."""

    class Handler(Hub):
        folder, asked, fails = tmp_path / "remote", [], set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_from_the_hub_at_one_commit_going_on_after_a_failure(
    tmp_path: Path, hub: tuple[str, type[Hub]], few: list[dict[str, Any]]
) -> None:
    address, handler = hub
    write_jsonl(tmp_path / "remote" / "test.jsonl", few)
    write_jsonl(tmp_path / "remote" / "VEC-CoT" / "stage1_86k.jsonl", [{"messages": []}], with_images=False)
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    broken = image_of(few[5])
    handler.fails = {broken}
    result = get(tmp_path, "--revision", "v1", **environment)
    assert result.returncode == 2 and "wudq/VECBench at v1: cannot be taken" in result.stderr, result.stderr
    assert not (tmp_path / "out" / "test.jsonl").exists()
    taken = set(handler.asked) - {broken}
    handler.fails, handler.asked[:] = set(), []
    result = get(tmp_path, "--revision", "v1", **environment)
    assert result.returncode == 1, result.stderr
    assert broken in handler.asked and not taken & set(handler.asked)
    assert set(report_of(tmp_path)) == {"task_count"}
    assert len(read_records(tmp_path / "out" / "test.jsonl")) == len(few)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"] == {"repository": "wudq/VECBench", "revision": "v1", "commit": COMMIT}
    handler.asked[:] = []
    assert get(tmp_path, "--revision", COMMIT, **environment).returncode == 1
    assert handler.asked == []
    result = get(tmp_path, "--revision", "v2", **environment)
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: wudq/VECBench at v2")
