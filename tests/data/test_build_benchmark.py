"""Emotion6 and MultiEmo-Bench from imitated releases: soft truth as given, the rest listed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import raw_trees as trees
from in_process import Result, run

from data import build_benchmark as script
from data import validate
from emocaliber import image_scan
from emocaliber.records import read_records, soft_truth
from emocaliber.taxonomy import MIKELS_8
from inference import evaluate

ROOT = Path(__file__).resolve().parents[2]


Row = dict[str, Any]
LABELS = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
EMOTION6 = (  # image, valence, arousal, the seven probabilities
    "anger/1.jpg 2.9 6.1 0.6 0.2 0.1 0 0.1 0 0",
    "anger/2.jpg 3.5 5 0.502 0.251 0.251 0 0 0 0",  # rounded: the sum is 1.004
    "joy/1.jpg 7.25 4 0 0 0 0.8 0 0 0.2",
    "surprise/1.jpg 5 5 0 0 0 0.2 0 0.4 0.4",
)
MULTIEMO = (  # image, votes for the eight emotions in the order of MIKELS_8
    ("a.jpg", 0, 0, 12, 0, 0, 0, 10, 0),  # 22 votes of 20 raters
    ("b.jpg", 0, 0, 0, 0, 0, 0, 5, 15),
    ("c.jpg", 10, 0, 0, 10, 0, 0, 0, 0),
)


def build(benchmark: str, raw: Path, output: Path, *flags: str) -> Result:
    arguments = ("--benchmark", benchmark, "--raw", raw, "--output-dir", output, "--workers", "1")
    return run(script.main, *arguments, *flags)


def make_emotion6(root: Path, more: Sequence[str] = (), *, mark: str = "\t", folder: str = "images") -> Path:
    """Emotion6: ground_truth.txt with a header, images by search word."""
    header = mark.join(f"[{name}]" for name in ("image_filename", "valence", "arousal", *LABELS))
    lines = [mark.join(line.split(" ")) for line in (*EMOTION6, *more)]
    for number, line in enumerate(EMOTION6):
        trees.save(root / folder / line.split(" ")[0], number)
    (root / "ground_truth.txt").write_text("\r\n".join([header, *lines]) + "\r\n")
    return root


def make_multiemo(root: Path, more: Sequence[tuple[Any, ...]] = (), name: str = "votes.csv") -> Path:
    """MultiEmo-Bench as it is supposed to be: a csv of votes, images beside it."""
    for number, row in enumerate(MULTIEMO):
        trees.save(root / row[0], 100 + number)
    lines = [",".join(map(str, row)) for row in (("Image", *map(str.title, MIKELS_8)), *MULTIEMO, *more)]
    (root / name).write_text("\n".join(lines) + "\n")
    return root


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def reasons(output: Path) -> list[tuple[str, str]]:
    return sorted((row["where"].partition(":")[2], row["reason"]) for row in read(output / "rejected.jsonl"))


def is_valid(output: Path) -> bool:
    return run(validate.main, output / "test.jsonl", "--check-images").returncode == 0


@pytest.mark.parametrize("mark", ["\t", " ", ","])
@pytest.mark.parametrize("folder", ["images", ""])
def test_emotion6_gives_probabilities_that_sum_to_one(tmp_path: Path, mark: str, folder: str) -> None:
    raw, output = make_emotion6(tmp_path / "raw", mark=mark, folder=folder), tmp_path / "out"
    result = build("emotion6", raw, output)
    assert result.returncode == 0, result.stderr
    records = read_records(output / "test.jsonl")
    assert [record["image"] for record in records] == [
        str(Path("images/Emotion6") / folder / line.split(" ")[0]) for line in EMOTION6
    ]
    assert all((output / record["image"]).is_file() for record in records)
    assert {record["task"] for record in records} == {"Emotion6-7"}
    assert all(record["candidates"] == list(LABELS) and "ground_truth" not in record for record in records)
    assert records[0]["posterior"] == dict(zip(LABELS, (0.6, 0.2, 0.1, 0, 0.1, 0, 0), strict=True))
    assert records[1]["posterior"] == pytest.approx(
        dict(zip(LABELS, (0.5, 0.25, 0.25, 0, 0, 0, 0), strict=True))
    )
    assert (records[2]["valence"], records[2]["arousal"]) == (7.25, 4.0)
    assert is_valid(output)


def test_a_name_that_is_too_long_costs_its_own_row(tmp_path: Path) -> None:
    raw = make_emotion6(tmp_path / "raw", [f"{'x' * 300}.jpg 2 5 0 0 1 0 0 0 0"])
    result = build("emotion6", raw, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert [reason for _, reason in reasons(tmp_path / "out")] == ["bad_path"]
    assert len(read(tmp_path / "out" / "test.jsonl")) == len(EMOTION6)


def test_every_line_of_emotion6_is_a_record_or_is_listed(tmp_path: Path) -> None:
    more = [
        "joy/1.jpg 7.25 4 0 0 0 0.8 0 0 0.2 ",  # line 6: the same as line 4, with a separator at its end
        "fear/1.jpg 2 5 0 0 1 0 0 0 0",
        "./fear/1.jpg 2 5 0 1 0 0 0 0 0",  # another truth for one image: neither
        "fear/2.jpg 2 5 0 n/a 1 0 0 0 0",
        "fear/3.jpg 2 5 0 -0.1 0.6 0.5 0 0 0",
        "fear/4.jpg nan 5 0 0 1 0 0 0 0",
        "fear/5.jpg 2 5 0 0 0.9 0 0 0 0",
        "fear/6.jpg 2 5 0 0 0 0 0 0 0",
        "fear/7.jpg 2 5 0 0 1 0 0 0",
        "../raw/images/joy/1.jpg 2 5 0 0 1 0 0 0 0",
        "fear/8.jpg 2 5 0 0 1 0 0 0 0",  # line 16: no file
        "fear/9.jpg 2 5 0 0 1 0 0 0 0",  # no bytes
        "fear/10.jpg 2 5 0 0 1 0 0 0 0",  # cut off
        "fear/11.jpg 2 5 0 0 1 0 0 0 0",  # a web page
        "fear/12.jpg 2 5 0 0 1 0 0 0 0 surplus",
        " ",
    ]
    raw, output = make_emotion6(tmp_path / "raw", more), tmp_path / "out"
    images = raw / "images" / "fear"
    for name in ("1", "10"):
        trees.save(images / f"{name}.jpg", int(name))
    (images / "9.jpg").write_bytes(b"")
    (images / "10.jpg").write_bytes((images / "10.jpg").read_bytes()[:300])
    (images / "11.jpg").write_text("<html>gone</html>")
    assert build("emotion6", raw, output).returncode == 0
    assert reasons(output) == sorted(
        {
            **{"6": "duplicate_row", "7": "conflicting_rows", "8": "conflicting_rows"},
            **{"9": "bad_number", "10": "bad_number", "11": "bad_number", "12": "bad_sum", "13": "bad_sum"},
            **{"14": "bad_row", "15": "bad_path", "16": "image_missing", "17": "image_empty"},
            **{"18": "image_truncated", "19": "not_an_image", "20": "bad_row"},
        }.items()
    )
    assert all(row["message"] for row in read(output / "rejected.jsonl"))
    assert len(read(output / "test.jsonl")) == 4
    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["rows"], manifest["published_rows"]) == (4, 1980)
    assert sum(manifest["left_out"].values()) == 15
    assert is_valid(output)


def test_the_tolerance_decides_about_sums(tmp_path: Path) -> None:
    raw = make_emotion6(tmp_path / "raw")
    assert build("emotion6", raw, tmp_path / "out", "--sum-tolerance", "0.003").returncode == 0
    assert reasons(tmp_path / "out") == [("3", "bad_sum")]
    assert build("emotion6", raw, tmp_path / "out", "--sum-tolerance", "0.004").returncode == 0
    assert reasons(tmp_path / "out") == []


def test_multiemo_gives_votes_and_lists_what_are_none(tmp_path: Path) -> None:
    more = [
        ("d.jpg", 21, 0, 0, 0, 0, 0, 0, 0),  # line 5: more than there are raters
        ("e.jpg", 2.5, 0, 0, 0, 0, 0, 0, 0),
        ("f.jpg", -1, 20, 0, 0, 0, 0, 0, 0),
        ("g.jpg", "", 20, 0, 0, 0, 0, 0, 0),
        ("h.jpg", 0, 0, 0, 0, 0, 0, 0, 0),
        ("i.jpg", 20, 0, 0),
        ("", 20, 0, 0, 0, 0, 0, 0, 0),
        ("j.jpg", 20, 0, 0, 0, 0, 0, 0, 0),  # no file
        ("c.jpg", "10.0", 0, 0, 10, 0, 0, 0, 0),
    ]
    raw, output = make_multiemo(tmp_path / "raw", more), tmp_path / "out"
    assert build("multiemo", raw, output).returncode == 0
    records = read_records(output / "test.jsonl")
    assert [record["image"] for record in records] == [f"images/MultiEmo/{name}.jpg" for name in "abc"]
    assert {record["task"] for record in records} == {"MultiEmo-8"}
    assert records[0]["votes"] == dict(zip(MIKELS_8, MULTIEMO[0][1:], strict=True))
    assert soft_truth(records[0], MIKELS_8)["awe"] == pytest.approx(12 / 22)
    assert reasons(output) == sorted(
        {
            **dict.fromkeys(("5", "6", "7", "8"), "bad_number"),
            **{"9": "no_votes", "10": "bad_row", "11": "bad_path"},
            **{"12": "image_missing", "13": "duplicate_row"},
        }.items()
    )
    assert is_valid(output)


def test_a_release_of_other_names_is_read_by_settings(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    trees.save(raw / "pictures" / "7.png", 7)
    (raw / "v").mkdir()
    (raw / "v" / "all.csv").write_text('n_joy;n_grief;file\n3;40;"7"\n')
    flags = ("--table", "v/all.csv", "--image-column", "File", "--image-name", "pictures/{image}.png")
    flags += ("--labels", "grief=n_grief", "joy=n_joy", "--raters", "40")
    result = build("multiemo", raw, tmp_path / "out", *flags)
    assert result.returncode == 0, result.stderr
    (record,) = read_records(tmp_path / "out" / "test.jsonl")
    assert (record["task"], record["image"]) == ("MultiEmo-2", "images/MultiEmo/pictures/7.png")
    assert record["votes"] == {"grief": 40, "joy": 3}


def test_the_same_release_gives_the_same_files_and_images_are_read_once(tmp_path: Path) -> None:
    raw, output = make_emotion6(tmp_path / "raw", ["no/1.jpg 2 5 0 0 1 0 0 0 0"]), tmp_path / "out"
    names = ("test.jsonl", "rejected.jsonl", "manifest.json")
    with patch.object(image_scan, "inspect_image", side_effect=KeyboardInterrupt):
        interrupted = build("emotion6", raw, output)
    assert (interrupted.returncode, [name for name in names if (output / name).exists()]) == (130, [])
    assert build("emotion6", raw, output).returncode == 0
    first = [(output / name).read_bytes() for name in names]
    with patch.object(image_scan, "inspect_image", side_effect=AssertionError("decoded again")):
        assert build("emotion6", raw, output).returncode == 0
    assert [(output / name).read_bytes() for name in names] == first
    assert build("emotion6", raw, output, "--image-name", "elsewhere/{image}").returncode == 2
    assert not (output / "manifest.json").exists()  # the files are no longer those of one build


@pytest.mark.parametrize(
    ("benchmark", "flags", "message"),
    [
        ("emotion6", ["--table", "truth.txt"], "truth.txt: cannot be read (No such file or directory); set"),
        ("emotion6", ["--labels", *sorted(LABELS)], "the header names anger disgust fear joy sadness surp"),
        ("emotion6", ["--sum-tolerance", "2"], "--sum-tolerance from 0 to below 1; see --help"),
        ("emotion6", ["--image-name", "a.jpg"], "--image-name: put {image} where the table's name stands"),
        ("emotion6", ["--image-name", "a/{image}"], "no row can be used (image_missing 4; listed in "),
        ("multiemo", ["--labels", "joy", "joy"], "--labels: a label is given twice"),
        ("multiemo", ["--labels", "Awe", "awe"], "candidates hold 'awe' twice"),
        ("multiemo", ["--labels", "awe", "joy"], "not one column joy in Image, Amusement, Anger"),
        ("multiemo", ["--image-column", "file"], "not one column file in Image, Amusement"),
        ("multiemo", ["--separator", "tab"], "not one column image in Image,Amusement,Anger"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, benchmark: str, flags: list[str], message: str) -> None:
    make_emotion6(tmp_path / "raw")
    make_multiemo(tmp_path / "raw")
    result = build(benchmark, tmp_path / "raw", tmp_path / "out", *flags)
    assert result.returncode == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not list((tmp_path / "out").glob("[mt]*"))  # neither test.jsonl nor manifest.json


@pytest.mark.parametrize("text", ["", "image,awe\n", "\xff\xfe"])
def test_a_table_without_rows_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "votes.csv").write_bytes(text.encode("latin-1"))
    result = build("multiemo", tmp_path, tmp_path / "out")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "votes.csv: " in result.stderr


def evaluated(output: Path, folder: Path, answers: Sequence[tuple[str, str]]) -> tuple[Row, str]:
    """Metrics and log of given (label, confidence), row by row, without a model."""
    folder.mkdir()
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for record, (label, confidence) in zip(read(output / "test.jsonl"), answers, strict=True):
            response = f"<answer>{label}</answer><confidence>{confidence}</confidence>"
            file.write(json.dumps(record | {"response": response}) + "\n")
    arguments = ["--predictions", str(folder / "predictions.jsonl"), "--output-dir", str(folder / "out")]
    assert evaluate.main([*arguments, "--draws", "0", "--no-figures", "--no-page"]) == 0
    log = (folder / "out" / "metric_conf.log").read_text(encoding="utf-8")
    return json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8")), log


def cells_of(log: str, task: str) -> list[list[str]]:
    lines = [line for line in log.splitlines() if line.startswith(f"| {task} ")]
    return [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines]


def test_emotion6_is_evaluated_against_its_distributions(tmp_path: Path) -> None:
    raw, output = make_emotion6(tmp_path / "raw"), tmp_path / "out"
    assert build("emotion6", raw, output).returncode == 0
    # p of the answers: 0.6, 0.25, 0.8, 0.4. The last has two most probable labels, of which the first counts.
    answers = [("anger", "0.6"), ("disgust", "0.75"), ("joy", "0.9"), ("neutral", "0.4")]
    metrics, log = evaluated(output, tmp_path / "run", answers)
    truth = metrics["tasks"]["Emotion6-7"]["truth"]
    assert (truth["n"], truth["acc"]) == (4, 0.5)
    assert truth["bayes_acc"] == pytest.approx((0.6 + 0.5 + 0.8 + 0.4) / 4)
    assert truth["mean_abs_confidence_minus_posterior"] == pytest.approx((0 + 0.5 + 0.1 + 0) / 4)
    forecast = truth["forecast"]
    assert forecast["expected_acc"] == pytest.approx((0.6 + 0.25 + 0.8 + 0.4) / 4)
    assert forecast["soft_ece"] == pytest.approx((0 + 0.5 + 0.1 + 0) / 4)  # four bins of one row
    # Sums of (q - p)^2, q being c on the answer and (1 - c) / 6 on the others.
    first = (0.2 - 0.4 / 6) ** 2 + 2 * (0.1 - 0.4 / 6) ** 2 + 3 * (0.4 / 6) ** 2
    second = 0.5**2 + (0.5 - 0.25 / 6) ** 2 + (0.25 - 0.25 / 6) ** 2 + 4 * (0.25 / 6) ** 2
    third = 0.1**2 + (0.2 - 0.1 / 6) ** 2 + 5 * (0.1 / 6) ** 2
    fourth = 0.3**2 + 0.1**2 + 4 * 0.1**2
    assert forecast["brier_over_labels"] == pytest.approx((first + second + third + fourth) / 4)
    assert ["50.00", "57.50", "86.96", "15.00", "4"] in cells_of(log, "Emotion6-7")


def test_multiemo_is_evaluated_against_its_votes(tmp_path: Path) -> None:
    raw, output = make_multiemo(tmp_path / "raw"), tmp_path / "out"
    assert build("multiemo", raw, output).returncode == 0
    answers = [("awe", "0.5"), ("fear", "0.75"), ("amusement", "0.5")]
    metrics, log = evaluated(output, tmp_path / "run", answers)
    truth = metrics["tasks"]["MultiEmo-8"]["truth"]
    assert truth["acc"] == pytest.approx(2 / 3)
    assert truth["bayes_acc"] == pytest.approx((12 / 22 + 15 / 20 + 10 / 20) / 3)
    assert truth["forecast"]["expected_acc"] == pytest.approx((12 / 22 + 5 / 20 + 10 / 20) / 3)
    # One bin holds the first and the third row, their gaps 1/22 and 0; the other 0.25 - 0.75.
    assert truth["forecast"]["soft_ece"] == pytest.approx((1 / 22 + 0.5) / 3)
    assert "known for 3 of 3 rows" in log
    assert any(cells[1:2] == ["59.85"] for cells in cells_of(log, "MultiEmo-8"))
