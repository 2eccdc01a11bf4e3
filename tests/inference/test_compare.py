"""The command that compares runs: what it reads, prints and writes; mistakes told in one line."""

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from emocaliber.report.comparison import N_DRAWS
from inference import compare

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "inference" / "compare.py"
WRITTEN = {"comparison.txt", "comparison.md", "comparison.tex", "comparison.json"}


def rows(rights, confidence="0.8", **fields):
    made = []
    for number, right in enumerate(rights):
        label = "positive" if right else "negative"
        made.append(
            {
                "id": f"row-{number}",
                "image": f"{number}.jpg",
                "conversations": [{"role": "user", "content": "Which emotion: positive, negative?"}],
                "task": "FI-2",
                "ground_truth": "positive",
                "candidates": ["positive", "negative"],
                "response": f"<answer>{label}</answer><confidence>{confidence}</confidence>",
                **fields,
            }
        )
    return made


def write_rows(path: Path, made) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in made)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def two(tmp_path):
    first = write_rows(tmp_path / "runs" / "stage2" / "predictions.jsonl", rows([True, False, False, False]))
    other = write_rows(tmp_path / "runs" / "stage3" / "predictions.jsonl", rows([True, True, True, False]))
    return first.parent, other.parent


def run(*arguments, draws=100):
    return compare.main([*map(str, arguments), "--draws", str(draws)])


def test_the_command_itself_on_two_small_runs(two, tmp_path):
    arguments = [sys.executable, COMMAND, *two, "--output-dir", tmp_path / "new" / "out", "--draws", "100"]
    ran = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == WRITTEN
    text = (tmp_path / "new" / "out" / "comparison.txt").read_text(encoding="utf-8")
    assert text in ran.stdout
    assert "| stage2          |         25.00  |       25.00  |" in text
    assert "| stage3          |         75.00* |       75.00* |" in text
    assert "Accuracy: stage3 minus stage2 (higher is better)" in text
    assert "| FI-2            |  25.00 |  75.00 |     +50.00 |" in text
    # Two rows that only stage3 has right: p = 2 / 4.
    assert "|                 0 |                 2 |     0.5000 |" in text


@pytest.mark.parametrize(
    ("format_", "file", "told"),
    [
        ("text", "comparison.txt", "Accuracy: stage3 minus stage2"),
        ("markdown", "comparison.md", "### Accuracy: stage3 minus stage2"),
        ("latex", "comparison.tex", r"\caption{Accuracy: stage3 minus stage2"),
        ("json", "comparison.json", '"difference": 0.5,'),
    ],
)
def test_each_format_is_printed_and_written_alike(two, tmp_path, capsys, format_, file, told):
    assert run(*two, "--format", format_) == 0
    printed = capsys.readouterr().out
    assert told in printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert run(*two, "--format", format_, "--output-dir", tmp_path / "out") == 0
    assert (tmp_path / "out" / file).read_text(encoding="utf-8") == printed
    again = capsys.readouterr()
    assert again.out.startswith(printed)
    if format_ == "json":
        json.loads(again.out)
    assert "Written to" in (again.err if format_ == "json" else again.out)


def test_a_folder_gives_its_file_of_the_first_name(tmp_path, capsys):
    names = ("merged_conf.jsonl", "predictions.jsonl", "merged.jsonl")
    for n_files in (1, 2, 3):
        for place in reversed(range(3 - n_files, 3)):
            name = names[place] + (".gz" if n_files > 1 else "")
            write_rows(tmp_path / str(n_files) / name, rows([True] * 4 if place else [False] * 4))
    assert run(*(tmp_path / n for n in "123"), "--format", "json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name.removesuffix(".gz") for one in content["runs"]] == list(names[::-1])
    assert [one["name"] for one in content["runs"]] == ["1", "2", "3"]
    assert [content["sets"][-1]["scores"][name]["acc"] for name in "123"] == [1, 1, 0]


def test_predictions_that_were_not_evaluated_yet_go_before_an_evaluation_of_older_ones(two, tmp_path, capsys):
    merged = write_rows(two[0] / "merged_conf.jsonl", rows([False] * 4))
    for age_s, read in ((-9, "merged_conf.jsonl"), (9, "predictions.jsonl")):
        written = merged.stat().st_mtime + age_s
        os.utime(two[0] / "predictions.jsonl", (written, written))
        assert run(*two, "--format", "json") == 0
        assert Path(json.loads(capsys.readouterr().out)["runs"][0]["file"]).name == read


def test_rows_in_another_order_and_packed_give_the_same_digits(two, tmp_path, capsys):
    made = rows([True, True, True, False])
    random.Random(1).shuffle(made)
    packed = write_rows(tmp_path / "other" / "stage3" / "merged.jsonl.gz", made)
    printed = []
    for other, file in ((two[1], two[1] / "predictions.jsonl"), (packed, packed)):
        assert run(two[0], other, "--names", "a", "b") == 0
        # Text is wrapped at a width: where, depends on the length of the path in it.
        out = " ".join(capsys.readouterr().out.split())
        assert str(file) in out
        printed.append(out.replace(str(file), "FILE"))
    assert printed[0] == printed[1]


def test_names_come_from_folders_files_or_the_user(two, tmp_path, capsys):
    file = write_rows(tmp_path / "mine.v2.jsonl", rows([True] * 4))
    same = write_rows(tmp_path / "again" / "stage2" / "merged.jsonl", rows([True] * 4))

    def names(*arguments):
        assert run(*arguments, "--format", "json") == 0
        return [one["name"] for one in json.loads(capsys.readouterr().out)["runs"]]

    assert names(two[0] / "predictions.jsonl", file) == ["stage2", "mine.v2"]
    assert names(two[0], file, "--names", "after\nstage 2", "x_y") == ["after stage 2", "x_y"]
    assert names(two[0], same) == [str(two[0]), str(same)]


def test_a_failed_row_counts_as_wrong_and_is_accounted_for(two, tmp_path, capsys):
    made = rows([True] * 4)
    del made[3]["response"]
    failed = write_rows(tmp_path / "failed.jsonl", [*made[:3], {**made[3], "error": {"type": "OSError"}}])
    assert run(two[0], failed) == 0
    printed = capsys.readouterr().out
    assert f"failed: {failed}, 4 rows = 3 answered + 0 unparsed + 1 failed; 3 state" in " ".join(
        printed.split()
    )
    assert "|         75.00* |" in printed


MISMATCHES = {
    "ids": (
        rows([True] * 5)[2:],
        "do not hold the same rows: 2 ids (first 'row-0') only in stage2, 1 id (first",
    ),
    "truth": (
        rows([True] * 4, ground_truth="negative"),
        "id 'row-0' has the true label 'positive' in stage2",
    ),
    "candidates": (rows([True] * 4, candidates=["negative", "positive"]), "candidates"),
    "task": (rows([True] * 4, task="WebEmo-2"), "task 'FI-2' in stage2 and 'WebEmo-2' in b"),
    "image": (rows([True] * 4, image="one.jpg"), "'row-1' shares its image"),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_runs_over_other_rows_are_one_line_and_write_nothing(two, tmp_path, capsys, kind):
    made, told = MISMATCHES[kind]
    assert run(two[0], write_rows(tmp_path / "b.jsonl", made), "--output-dir", tmp_path / "out") == 2
    assert_one_line(capsys, told)
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_runs_are_one_line(two, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    bad = rows([True] * 4, posterior={"positive": 2})
    for other, told in {
        tmp_path / "missing": "no such run",
        tmp_path / "empty": "holds none of merged_conf.jsonl, predictions.jsonl, merged.jsonl",
        two[0] / "predictions.jsonl": "given twice",
        two[0] / ".." / "stage2": "given twice",
        write_rows(tmp_path / "blank.jsonl", []): "blank.jsonl: no rows",
        write_rows(tmp_path / "bad.jsonl", bad): "bad.jsonl:1: posterior",
        write_rows(tmp_path / "twice.jsonl", 2 * rows([True])): "twice.jsonl:2: id 'row-0' is also",
    }.items():
        assert run(two[0], other) == 2
        assert_one_line(capsys, told)
    assert run(*two, "--names", "a", " a") == 2
    assert_one_line(capsys, "name 'a' is empty or given twice")


def test_an_output_folder_that_cannot_be_is_refused(two, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(*two, "--output-dir", tmp_path / "file") == 2
    assert_one_line(capsys, "not a folder")
    assert run(*two, "--output-dir", tmp_path / "file" / "below") == 2
    assert_one_line(capsys, "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_as_many_draws_as_the_library_takes():
    assert compare.parse_arguments(["a", "b"]).draws == N_DRAWS


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "RUN"),
        (["a"], "at least two runs"),
        (["a", "b", "--draws", "-1"], "0 or at least 100"),
        (["a", "b", "--draws", "99"], "0 or at least 100"),
        (["a", "b", "--seed", "-1"], "0 or above"),
        (["a", "b", "--format", "csv"], "csv"),
        (["a", "b", "--names", "x"], "1 names for 2 runs"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(capsys, arguments, told):
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments)
    assert stop.value.code == 2
    assert_one_line(capsys, told)


def assert_one_line(capsys, told: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_pipe_that_is_closed_ends_it_quietly(two, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, COMMAND, *two, "--draws", "0", "--format", "json"]
    ran = subprocess.run(arguments, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")
