"""The command that evaluates: golden logs byte for byte, every row kept, mistakes told in one line.

The numbers in the golden logs were worked out by hand from `golden/merged.jsonl`; the derivations are in
`test_the_golden_numbers_by_hand`.
"""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emocaliber.prompts import conversation
from inference import evaluate

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
COMMAND = ROOT / "inference" / "evaluate.py"
LOGS = ("metric.log", "metric_conf.log")


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Drawing takes most of the time, and most tests look at neither figures, page nor intervals.
PLAIN = ("--draws", "0", "--no-figures", "--no-page")


def run(*predictions, into: Path, options=PLAIN) -> int:
    return evaluate.main(["--predictions", *map(str, predictions), "--output-dir", str(into), *options])


def test_a_published_file_gives_the_golden_logs_and_prints_both_tables(tmp_path):
    packed = tmp_path / "merged.jsonl.gz"
    packed.write_bytes(gzip.compress((GOLDEN / "merged.jsonl").read_bytes()))
    out = tmp_path / "new" / "run"
    ran = subprocess.run(
        [sys.executable, COMMAND, "--predictions", packed, "--output-dir", out, "--draws", "0"],
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
    figures = [f"reliability_{name}" for name in ("id_vsa", "id_ver", "ood_ver", "overall", "tasks")]
    figures += ["accuracy_vs_threshold", "coverage_vs_threshold", "accuracy_vs_coverage", "risk_vs_coverage"]
    assert {path.name for path in out.iterdir()} == {
        *LOGS,
        *("metrics.json", "merged_conf.jsonl", "report.html"),
        *(f"{name}.png" for name in figures),
    }


def test_the_golden_numbers_by_hand(tmp_path):
    run(GOLDEN / "merged.jsonl", into=tmp_path)
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


def test_images_of_one_cluster_are_drawn_together(tmp_path):
    """A copy under another name says nothing new: the interval must not shrink by it."""
    row = {"task": "FI-2", "candidates": ["positive", "negative"], "ground_truth": "positive"}
    rows = []
    for number in range(100):
        label = "positive" if number % 3 else "negative"
        response = f"<answer>{label}</answer><confidence>0.7</confidence>"
        for copy in "ab":
            image = f"{number}{copy}.jpg"
            asked = conversation(image, row["candidates"])
            rows.append(row | {"id": image, "image": image, "conversations": asked, "response": response})
    file = write_rows(tmp_path / "predictions.jsonl", rows)
    clusters = tmp_path / "clusters.json"
    same = {f"{number}{copy}.jpg": f"group-{number}" for number in range(100) for copy in "ab"}
    clusters.write_text(json.dumps({"images": same}))
    options = ("--draws", "400", "--no-figures", "--no-page")
    width = {}
    for name, more in (("apart", ()), ("together", ("--clusters", str(clusters)))):
        assert run(file, into=tmp_path / name, options=(*options, *more)) == 0
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        low, high = metrics["tasks"]["FI-2"]["intervals"]["acc"]
        width[name] = high - low
    assert width["together"] > 1.25 * width["apart"]


def test_clusters_that_are_none_are_one_line(tmp_path, capsys):
    clusters = tmp_path / "clusters.json"
    for text in ("", "[]", "{}", '{"images": [1]}', '{"images": {"a.jpg": 3}}'):
        clusters.write_text(text)
        options = (*PLAIN, "--clusters", str(clusters))
        assert run(GOLDEN / "merged.jsonl", into=tmp_path / "out", options=options) == 2
        assert capsys.readouterr().err.startswith(f"error: {clusters}: no clusters.json with `images`")
    clusters.write_text('{"images": {"of another benchmark.jpg": "group-0"}}')
    assert run(GOLDEN / "merged.jsonl", into=tmp_path / "out", options=options) == 2
    assert "none of its images occurs in the predictions" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def check(found: dict, **expected) -> None:
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-15) if value is not None else None), name


def test_merged_conf_holds_every_row_with_what_was_read(tmp_path):
    run(GOLDEN / "merged.jsonl", into=tmp_path)
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


def test_evaluating_its_own_output_again_gives_the_same_logs(tmp_path):
    run(GOLDEN / "merged.jsonl", into=tmp_path / "a")
    run(tmp_path / "a" / "merged_conf.jsonl", into=tmp_path / "b")
    for file in (*LOGS, "merged_conf.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_neither_the_order_nor_the_split_into_files_changes_a_digit(tmp_path):
    rows = rows_of(GOLDEN / "merged.jsonl")
    random.Random(3).shuffle(rows)
    halves = [write_rows(tmp_path / "x.jsonl", rows[:5]), write_rows(tmp_path / "y.jsonl", rows[5:])]
    assert run(*halves, into=tmp_path / "out") == 0
    for log in LOGS:
        assert (tmp_path / "out" / log).read_bytes() == (GOLDEN / log).read_bytes()


def test_a_response_of_five_megabytes_is_a_row_like_any_other(tmp_path):
    rows = [{**row, "id": str(number)} for number, row in enumerate(rows_of(GOLDEN / "merged.jsonl"))]
    for row in (rows[0], rows[1]):
        row["response"] = "<think>" * 700_000 + "x" * 300_000 + "<answer>positive</answer>"
    rows[1]["response"] += "<confidence>" + "9" * 5_000_000 + "</confidence>"
    assert run(write_rows(tmp_path / "p.jsonl", rows), into=tmp_path) == 0
    log = (tmp_path / "metric_conf.log").read_text(encoding="utf-8")
    assert "Rows: 12 = 9 answered + 2 unparsed + 1 failed" in log
    assert "without confidence, not_a_number: 2 (FI-2 1, UnbiasedEmo-6 1)" in log


def test_rows_without_response_or_with_a_plain_error_are_counted_with_a_reason(tmp_path):
    row = rows_of(GOLDEN / "merged.jsonl")[4]
    bare = {name: value for name, value in row.items() if name != "response"}
    rows = [
        {**row, "id": "1"},
        {**bare, "id": "2"},
        {**bare, "id": "3", "error": "CUDA out of\nmemory " + "x" * 100},
        {**row, "id": "4", "error": {"message": "torn", "type": None}},
        {**bare, "id": "5", "error": {}},
    ]
    assert run(write_rows(tmp_path / "p.jsonl", rows), into=tmp_path) == 0
    log = (tmp_path / "metric.log").read_text(encoding="utf-8")
    assert "Rows: 5 = 1 answered + 0 unparsed + 4 failed" in log
    assert "| EmoSet-8        |  20.00 |" in log
    for reason in ("no_response", "torn", "error", "CUDA out of memory xxx"):
        assert f"  failed, {reason}" in log
    assert max(map(len, log.splitlines())) < 120


def test_a_model_without_confidence_has_tables_and_no_figures(tmp_path, capsys):
    rows = [row for row in rows_of(GOLDEN / "merged.jsonl") if "response" in row]
    for row in rows:
        row["response"] = row["response"].split("<confidence>")[0]
    for kind in ("png", "pdf"):  # of an earlier evaluation
        (tmp_path / f"reliability_overall.{kind}").write_bytes(b"old")
    path = write_rows(tmp_path / "p.jsonl", rows)
    assert run(path, into=tmp_path, options=("--draws", "100")) == 0
    assert "No figures: no row states a confidence." in capsys.readouterr().out
    assert "| Overall         |  54.55 |  51.52 | N/A      | N/A        | N/A        | 11        |" in (
        tmp_path / "metric_conf.log"
    ).read_text(encoding="utf-8")
    assert list(tmp_path.glob("reliability*")) == []


def test_both_protocols_stand_side_by_side_and_say_what_differs(tmp_path, capsys):
    merged = GOLDEN / "merged.jsonl"
    assert run(merged, into=tmp_path, options=(*PLAIN, "--protocol", "both")) == 0
    assert "protocol_difference: default -> paper" in capsys.readouterr().out
    for log in LOGS:
        own = (GOLDEN / log).read_text(encoding="utf-8")
        assert (tmp_path / log).read_text(encoding="utf-8").startswith(own)
    # By hand: 0.6 lies on a float edge, so (0.3 wrong) and (0.6 wrong) move one bin low, and 1.0 falls out:
    # |1 - 0.9| + 0.3 + 0.6, over 4.
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["paper"]["groups"]["ID VSA"]["ece"] == pytest.approx(0.25)
    assert content["protocol"] == "default"
    moved = {(one["name"], one["score"]): one for one in content["protocol_difference"]}
    # Overall scans the reasoning too; the row of 85 (percent) is clipped to 1 by the published evaluator.
    assert moved["ID VER", "brier"]["rows"]["clipped"] == 1

    assert run(merged, into=tmp_path / "paper", options=(*PLAIN, "--protocol", "paper")) == 0
    assert rows_of(tmp_path / "paper" / "merged_conf.jsonl") == rows_of(tmp_path / "merged_conf.jsonl")
    for log, beside in zip(LOGS, ("metric_paper.log", "metric_conf_paper.log"), strict=True):
        assert (tmp_path / "paper" / log).read_bytes() == (tmp_path / beside).read_bytes()
    assert json.loads((tmp_path / "paper" / "metrics.json").read_text())["protocol"] == "paper"

    assert run(merged, into=tmp_path) == 0  # the default again: nothing that contradicts it stays
    assert not list(tmp_path.glob("*_paper.log"))


def test_the_page_takes_its_images_from_the_run_and_a_large_run_has_none(tmp_path, capsys, monkeypatch):
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / "1.jpg")
    (tmp_path / "run.json").write_text(json.dumps({"identity": {"image_root": str(tmp_path)}}))
    path = write_rows(tmp_path / "p.jsonl", rows_of(GOLDEN / "merged.jsonl"))
    options = ("--draws", "0", "--no-figures")
    assert run(path, into=tmp_path / "a", options=options) == 0
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert page.count("/9j/") == 1  # one JPEG in base64: the other images are not there
    monkeypatch.setattr("inference.outputs.evaluation.MOST_ROWS", 11)
    assert run(path, into=tmp_path / "a", options=options) == 0
    assert "No page: 12 rows, more than the 11 that it holds." in capsys.readouterr().out
    assert not (tmp_path / "a" / "report.html").exists()


MISTAKES = {
    "no such file": ("missing.jsonl", None, "missing.jsonl"),
    "not JSON": ("bad.jsonl", '{"id": 1,\n', "bad.jsonl:1: not JSON"),
    "empty": ("empty.jsonl", "", "no rows"),
    "only blank lines": ("blank.jsonl", "\n\n", "no rows"),
    "not an object": ("list.jsonl", "[1]\n", "list.jsonl:1"),
    "not a number": ("nan.jsonl", '{"id": 1, "confidence": NaN}\n', "nan.jsonl:1: not JSON"),
    "not UTF-8": ("latin.jsonl", b'{"id": "\xe9"}\n', "latin.jsonl:1: not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_file_is_one_line_and_writes_nothing(tmp_path, capsys, mistake):
    name, content, told = MISTAKES[mistake]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(tmp_path / name, into=tmp_path / "out") == 2
    assert_one_line(capsys, told)
    assert not (tmp_path / "out").exists()


def test_a_row_without_candidates_and_a_repeated_id_are_told_with_their_place(tmp_path, capsys):
    row = rows_of(GOLDEN / "merged.jsonl")[0]
    bare = {name: value for name, value in row.items() if name != "candidates"}
    assert run(write_rows(tmp_path / "p.jsonl", [row, bare]), into=tmp_path / "out") == 2
    assert_one_line(capsys, "p.jsonl:2: no candidates")
    twice = [{**row, "id": "a"}, {**row, "id": "a"}]
    assert run(write_rows(tmp_path / "p.jsonl", twice), into=tmp_path / "out") == 2
    assert_one_line(capsys, "p.jsonl:2: id 'a'")
    assert not (tmp_path / "out").exists()


def test_a_data_file_is_not_taken_for_predictions(tmp_path, capsys):
    given = rows_of(GOLDEN / "merged.jsonl")[0]
    row = {name: value for name, value in given.items() if name not in ("response", "samples", "error")}
    assert run(write_rows(tmp_path / "test.jsonl", [row]), into=tmp_path / "out") == 2
    assert_one_line(
        capsys, "test.jsonl: no row has one of error, response, samples; give the predictions.jsonl"
    )
    assert not (tmp_path / "out").exists()


def test_a_file_given_twice_is_refused(tmp_path, capsys):
    merged = GOLDEN / "merged.jsonl"
    assert run(merged, GOLDEN / "." / "merged.jsonl", into=tmp_path / "out") == 2
    assert_one_line(capsys, "given twice")


def test_an_output_folder_that_cannot_be_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(GOLDEN / "merged.jsonl", into=tmp_path / "file") == 2
    assert_one_line(capsys, "not a folder")
    assert run(GOLDEN / "merged.jsonl", into=tmp_path / "file" / "below") == 2
    assert_one_line(capsys, "cannot be written (Not a directory)")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failure_while_writing_leaves_the_earlier_results_whole(tmp_path, capsys):
    (tmp_path / "metrics.json").mkdir()
    (tmp_path / "metric.log").write_text("earlier")
    assert run(GOLDEN / "merged.jsonl", into=tmp_path) == 2
    assert_one_line(capsys, "metrics.json in it is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metric.log", "metrics.json"]
    assert (tmp_path / "metric.log").read_text() == "earlier"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("no room"), "OUT: cannot be written (no room)"),
        (PermissionError(13, "Denied", "OUT/new"), "OUT: cannot be written (Denied)"),
        (
            PermissionError(13, "Denied", "/elsewhere/fonts"),
            "error: /elsewhere/fonts: Denied, on writing OUT",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, capsys, monkeypatch, error, told):
    def failing(*_):
        if error.filename:
            error.filename = error.filename.replace("OUT", str(tmp_path / "out"))
        raise error

    monkeypatch.setattr("inference.outputs.evaluation.summarise", failing)
    assert run(GOLDEN / "merged.jsonl", into=tmp_path / "out") == 2
    assert_one_line(capsys, told.replace("OUT", str(tmp_path / "out")))


def test_a_failed_run_leaves_none_of_the_folders_that_it_made(tmp_path):
    (tmp_path / "mine").mkdir()
    assert run(tmp_path / "missing.jsonl", into=tmp_path / "mine" / "a" / "b" / "c") == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_what_a_killed_run_left_goes_and_what_a_running_one_writes_stays(tmp_path):
    for name, age_s in (("killed", 4000), ("running", 3000)):
        folder = tmp_path / f".evaluation-{name}"
        folder.mkdir()
        (folder / "merged_conf.jsonl").write_text("{}")
        for path in (folder / "merged_conf.jsonl", folder):
            os.utime(path, (time.time() - age_s,) * 2)
    os.utime(folder, (0, 0))  # nothing new in it, but its file grows
    assert run(GOLDEN / "merged.jsonl", into=tmp_path) == 0
    assert [path.name for path in tmp_path.glob(".evaluation-*")] == [".evaluation-running"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly_and_leaves_nothing(tmp_path, number):
    pipe, out = tmp_path / "rows.jsonl", tmp_path / "new" / "out"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, COMMAND, "--predictions", pipe, "--output-dir", out],
        stderr=subprocess.PIPE,
        # A shell's background job ignores Ctrl-C, and its children do.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with open(pipe, "wb"):  # the other end is open now: the run waits for its first row
        assert list(out.glob(".evaluation-*"))
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (128 + number, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_pipe_that_is_closed_ends_it_quietly_with_its_results(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, COMMAND, "--predictions", GOLDEN / "merged.jsonl", "--output-dir", tmp_path]
    ran = subprocess.run([*arguments, *PLAIN], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, b"")
    assert (tmp_path / "metric.log").read_bytes() == (GOLDEN / "metric.log").read_bytes()


def test_a_row_that_cannot_be_scored_is_told_with_its_place(tmp_path, capsys):
    good, bad = ({**row, "id": str(n)} for n, row in enumerate(rows_of(GOLDEN / "merged.jsonl")[4:6]))
    for fields, told in (
        ({"posterior": {"awe": 2}}, "posterior"),
        ({"samples": "awe"}, "row '1': samples is not"),
    ):
        path = write_rows(tmp_path / "p.jsonl", [good, {**bad, **fields}])
        assert run(path, into=tmp_path / "out") == 2
        assert_one_line(capsys, f"{path}:2: {told}")


def test_the_paper_protocol_takes_a_task_as_it_is_spelt_in_the_file(tmp_path):
    path = GOLDEN / "paper_protocol" / "task_spelling.jsonl"  # four rows of EmoSet-8, one of UnbaisedEmo-6
    assert run(path, into=tmp_path, options=(*PLAIN, "--protocol", "both")) == 0
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert {name: task["n"] for name, task in content["tasks"].items()} == {"EmoSet-8": 4, "UnbiasedEmo-6": 1}
    assert {name: task["n"] for name, task in content["paper"]["tasks"].items()} == {"EmoSet-8": 4}
    assert content["paper"]["overall"]["n"] == 5
    assert rows_of(tmp_path / "merged_conf.jsonl")[-1]["task"] == "UnbiasedEmo-6"


def test_the_paper_protocol_alone_makes_no_other_evaluation(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.outputs.evaluation.summarise", None)
    options = (*PLAIN, "--protocol", "paper")
    assert run(GOLDEN / "merged.jsonl", into=tmp_path, options=options) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--predictions", "x.jsonl"],
        ["--predictions", "x", "--output-dir", "y", "--protocol", "z"],
        ["--predictions", "x", "--output-dir", "y", "--draws", "-1"],
        ["--predictions", "x", "--output-dir", "y", "--draws", "99"],
        ["--predictions", "x", "--output-dir", "y", "--seed", "-1"],
        ["--predictions", "x", "--output-dir", "y", "--image-root", "no-such-folder"],
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2
    assert_one_line(capsys, "--help")


def assert_one_line(capsys, told: str) -> None:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
