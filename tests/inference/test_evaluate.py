"""The command that evaluates: golden logs byte for byte, every row kept, mistakes told in one line.

The numbers in the golden logs were worked out by hand from `golden/merged.jsonl`; the derivations are in
`test_the_golden_numbers_by_hand`.
"""

import gzip
import importlib.util
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
COMMAND = ROOT / "inference" / "evaluate.py"
LOGS = ("metric.log", "metric_conf.log")


@pytest.fixture(scope="module")
def command():
    specification = importlib.util.spec_from_file_location("evaluate_command", COMMAND)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def without_figures(command, monkeypatch):
    # Drawing takes most of the time, and most tests do not look at the figures.
    monkeypatch.setattr(command, "draw_figures", lambda evaluation: {})


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(command, *predictions, into: Path) -> int:
    return command.main(["--predictions", *map(str, predictions), "--output-dir", str(into)])


def test_a_published_file_gives_the_golden_logs_and_prints_both_tables(tmp_path):
    packed = tmp_path / "merged.jsonl.gz"
    packed.write_bytes(gzip.compress((GOLDEN / "merged.jsonl").read_bytes()))
    out = tmp_path / "new" / "run"
    ran = subprocess.run(
        [sys.executable, COMMAND, "--predictions", packed, "--output-dir", out],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for log in LOGS:
        assert (out / log).read_bytes() == (GOLDEN / log).read_bytes()
        table = (GOLDEN / log).read_text(encoding="utf-8").split("\n\n")[0]
        assert table in ran.stdout
    assert {path.name for path in out.iterdir()} == {
        *LOGS,
        "metrics.json",
        "merged_conf.jsonl",
        *(f"reliability_{name}.png" for name in ("id_vsa", "id_ver", "ood_ver", "overall")),
        *(
            f"{name}.png"
            for name in ("accuracy_vs_threshold", "coverage_vs_threshold", "accuracy_vs_coverage")
        ),
    }


def test_the_golden_numbers_by_hand(command, without_figures, tmp_path):
    run(command, GOLDEN / "merged.jsonl", into=tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    # FI-2: 0.90 right, 0.30 wrong, 1.0 right, 0.6 wrong.
    # ECE: bins |2 - 1.9| + 0.3 + 0.6, over 4. Brier: (0.01 + 0.09 + 0 + 0.36) / 4.
    # F1: both labels have one hit, two true, two predicted. Truth: (0.15 + 0.1 + 0.1 + 0.1) / 4.
    check(metrics["tasks"]["FI-2"], n=4, acc=0.5, f1=0.5, ece=1 / 4, brier=0.46 / 4, auroc=1.0)
    truth = {"bayes_acc": 2.75 / 4, "mean_abs_confidence_minus_posterior": 0.45 / 4, "n": 4}
    check(metrics["groups"]["ID VSA"]["samples"]["truth"], **truth)
    # EmoSet-8: 0.7 right; 0.7 not a candidate; failed; 85 (percent) for the synonym `sad` right.
    # ECE: |1 - 1.4| + 0.15, over 3. Brier: (0.09 + 0.49 + 0.0225) / 3. AUROC: (1/2 + 1) / 2.
    check(metrics["tasks"]["EmoSet-8"], n=4, acc=0.5, f1=0.5, ece=0.55 / 3, brier=0.6025 / 3, auroc=0.75)
    check(metrics["tasks"]["EmoSet-8"], answered=2, unparsed=1, failed=1, n_with_confidence=3)
    # UnbiasedEmo-6, spelt as the data set spells it: right without a number; 0.5 wrong.
    # F1: joy has one hit, one true, two predicted: 2/3, with weight 1/2.
    check(metrics["tasks"]["UnbiasedEmo-6"], n=2, acc=0.5, f1=1 / 3, ece=0.5, brier=0.25, auroc=None)
    # Colour-3, a task of one's own: 95% right; cut off before the answer.
    check(metrics["tasks"]["Colour-3"], n=2, acc=0.5, f1=0.5, ece=0.05, brier=0.0025, auroc=None)
    # Overall: bins 0.3, 0.5, 0.6, |1 - 1.4|, 0.15, |3 - 2.85| over 9 rows; 6 of 12 right.
    # F1: 2 * 1/2 + 2 * 1/2 + 1 (awe) + 1 (sadness) + 2/3 (joy) + 1 (red), over 12.
    # AUROC: of 5 * 4 pairs all won but one tie (0.7 and 0.7): 19.5 / 20.
    overall = {"acc": 0.5, "f1": (17 / 3) / 12, "ece": 2.1 / 9, "brier": 1.315 / 9, "auroc": 19.5 / 20}
    check(metrics["overall"]["samples"], n=12, answered=9, unparsed=2, failed=1, **overall)
    check(metrics["overall"]["task_mean"], acc=0.5, ece=(0.25 + 0.55 / 3 + 0.5 + 0.05) / 4, auroc=0.875)
    reasons = {"failed": 1, "missing": 1, "not_a_number": 1}
    assert metrics["overall"]["samples"]["no_confidence_reasons"] == reasons


def check(found: dict, **expected) -> None:
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-15) if value is not None else None), name


def test_merged_conf_holds_every_row_with_what_was_read(command, without_figures, tmp_path):
    run(command, GOLDEN / "merged.jsonl", into=tmp_path)
    given, written = rows_of(GOLDEN / "merged.jsonl"), rows_of(tmp_path / "merged_conf.jsonl")
    assert len(written) == len(given) == 12
    for before, after in zip(given, written, strict=True):
        kept = {name: value for name, value in before.items() if name != "task"}
        assert {name: after[name] for name in kept} == kept
    assert [row["prediction"] for row in written[:8]] == [
        *("positive", "positive", "negative", "negative", "awe", None, None, "sadness"),
    ]
    assert [row["confidence"] for row in written] == [
        *(0.9, 0.3, 1.0, 0.6, 0.7, 0.7, None, 0.85, None, 0.5, 0.95, None),
    ]
    assert len({row["id"] for row in written}) == 12
    assert written[8]["task"] == "UnbiasedEmo-6"


def test_evaluating_its_own_output_again_gives_the_same_logs(command, without_figures, tmp_path):
    run(command, GOLDEN / "merged.jsonl", into=tmp_path / "a")
    run(command, tmp_path / "a" / "merged_conf.jsonl", into=tmp_path / "b")
    for file in (*LOGS, "merged_conf.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_neither_the_order_nor_the_split_into_files_changes_a_digit(command, without_figures, tmp_path):
    rows = rows_of(GOLDEN / "merged.jsonl")
    random.Random(3).shuffle(rows)
    halves = [write_rows(tmp_path / "x.jsonl", rows[:5]), write_rows(tmp_path / "y.jsonl", rows[5:])]
    assert run(command, *halves, into=tmp_path / "out") == 0
    for log in LOGS:
        assert (tmp_path / "out" / log).read_bytes() == (GOLDEN / log).read_bytes()


def test_rows_without_response_or_with_a_plain_error_are_counted_with_a_reason(
    command, without_figures, tmp_path
):
    row = rows_of(GOLDEN / "merged.jsonl")[4]
    bare = {name: value for name, value in row.items() if name != "response"}
    rows = [
        {**row, "id": "1"},
        {**bare, "id": "2"},
        {**bare, "id": "3", "error": "CUDA out of\nmemory " + "x" * 100},
        {**row, "id": "4", "error": {"message": "torn", "type": None}},
        {**bare, "id": "5", "error": {}},
    ]
    assert run(command, write_rows(tmp_path / "p.jsonl", rows), into=tmp_path) == 0
    log = (tmp_path / "metric.log").read_text(encoding="utf-8")
    assert "Rows: 5 = 1 answered + 0 unparsed + 4 failed" in log
    assert "| EmoSet-8        |  20.00 |" in log
    for reason in ("no_response", "torn", "error", "CUDA out of memory xxx"):
        assert f"  failed, {reason}" in log
    assert max(map(len, log.splitlines())) < 120


def test_a_model_without_confidence_has_tables_and_no_figures(command, tmp_path, capsys):
    rows = [row for row in rows_of(GOLDEN / "merged.jsonl") if "response" in row]
    for row in rows:
        row["response"] = row["response"].split("<confidence>")[0]
    shutil.copy(GOLDEN / "merged.jsonl", tmp_path / "reliability_overall.png")  # of an earlier evaluation
    assert run(command, write_rows(tmp_path / "p.jsonl", rows), into=tmp_path) == 0
    assert "No figures: no row states a confidence." in capsys.readouterr().out
    assert "| Overall         |  54.55 |  51.52 | N/A      | N/A        | N/A        | 11        |" in (
        tmp_path / "metric_conf.log"
    ).read_text(encoding="utf-8")
    assert list(tmp_path.glob("*.png")) == []


MISTAKES = {
    "no such file": ("missing.jsonl", None, "missing.jsonl"),
    "not JSON": ("bad.jsonl", '{"id": 1,\n', "bad.jsonl:1: not JSON"),
    "empty": ("empty.jsonl", "", "no rows"),
    "only blank lines": ("blank.jsonl", "\n\n", "no rows"),
    "not an object": ("list.jsonl", "[1]\n", "list.jsonl:1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file_is_one_line_and_writes_nothing(command, tmp_path, capsys, mistake):
    name, content, told = MISTAKES[mistake]
    if content is not None:
        (tmp_path / name).write_text(content)
    assert run(command, tmp_path / name, into=tmp_path / "out") == 2
    assert_one_line(capsys, told)
    assert not (tmp_path / "out").exists()


def test_a_row_without_candidates_and_a_repeated_id_are_told_with_their_place(command, tmp_path, capsys):
    row = rows_of(GOLDEN / "merged.jsonl")[0]
    bare = {name: value for name, value in row.items() if name != "candidates"}
    assert run(command, write_rows(tmp_path / "p.jsonl", [row, bare]), into=tmp_path / "out") == 2
    assert_one_line(capsys, "p.jsonl:2: no candidates")
    twice = [{**row, "id": "a"}, {**row, "id": "a"}]
    assert run(command, write_rows(tmp_path / "p.jsonl", twice), into=tmp_path / "out") == 2
    assert_one_line(capsys, "p.jsonl:2: id 'a'")
    assert not (tmp_path / "out").exists()


def test_a_file_given_twice_is_refused(command, tmp_path, capsys):
    merged = GOLDEN / "merged.jsonl"
    assert run(command, merged, GOLDEN / "." / "merged.jsonl", into=tmp_path / "out") == 2
    assert_one_line(capsys, "given twice")


def test_an_output_folder_that_cannot_be_is_refused(command, without_figures, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(command, GOLDEN / "merged.jsonl", into=tmp_path / "file") == 2
    assert_one_line(capsys, "not a folder")
    assert run(command, GOLDEN / "merged.jsonl", into=tmp_path / "file" / "below") == 2
    assert_one_line(capsys, "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_while_writing_leaves_the_earlier_results_whole(command, without_figures, tmp_path, capsys):
    (tmp_path / "metrics.json").mkdir()
    (tmp_path / "metric.log").write_text("earlier")
    assert run(command, GOLDEN / "merged.jsonl", into=tmp_path) == 2
    assert_one_line(capsys, "metrics.json in it is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metric.log", "metrics.json"]
    assert (tmp_path / "metric.log").read_text() == "earlier"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--predictions", "x.jsonl"], ["--predictions", "x", "--output-dir", "y", "--protocol", "z"]],
)
def test_a_mistake_in_the_arguments_is_one_line(command, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert_one_line(capsys, "--help")


def assert_one_line(capsys, told: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_asking_for_help_loads_nothing_heavy():
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['evaluate.py', '--help']\n"
        f"try:\n    runpy.run_path({str(COMMAND)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'numpy', 'sklearn', 'matplotlib', 'torch', 'pandas'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert "--predictions FILE" in ran.stdout
