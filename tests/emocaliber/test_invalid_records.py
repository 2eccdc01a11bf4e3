"""Every line of a file becomes a row; one that is no record says why, and evaluation counts it as failed."""

import json

import pytest

from emocaliber.prompts import conversation
from emocaliber.records import (
    RECORD_INVALID,
    UNREADABLE_TASK,
    RecordError,
    is_invalid_record,
    iterate_with_places,
    read_records,
    read_records_keeping_invalid,
    write_jsonl_atomic,
)
from emocaliber.report.paper import PaperProtocol
from emocaliber.report.summary import evaluate
from emocaliber.scoring import UNKNOWN_TRUTH, score
from emocaliber.taxonomy import MIKELS_8

GOOD = {
    "id": "good",
    "image": "a.png",
    "conversations": conversation("a.png", MIKELS_8),
    "task": "EmoSet-8",
    "candidates": list(MIKELS_8),
    "ground_truth": "awe",
}


def changed(**fields):
    return {name: value for name, value in {**GOOD, **fields}.items() if value is not ...}


def read(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return read_records_keeping_invalid(path)


def test_a_sound_file_is_read_as_it_always_is(tmp_path):
    rows = read(
        tmp_path, GOOD, changed(id=7), changed(id=..., image="b.png"), changed(id=..., image="b.png"), b""
    )
    assert rows == read_records(tmp_path / "data.jsonl", need_truth=False)
    assert not any(map(is_invalid_record, rows))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[1]", "a JSON list, not an object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": ' + b"[" * 100_000, "not JSON (RecursionError)"),
        (changed(extra=json.loads("[" * 101 + "]" * 101)), "nested more than 100 levels deep"),
        (changed(task=3), "no task"),
        (changed(candidates="joy"), "make it a list of at least one label"),
        (changed(ground_truth=["awe"]), "is not among the candidates"),
        (changed(image=..., conversations=[{"role": "user", "content": "What?"}]), "no image"),
        (changed(image=[1]), "make it a path"),
        (changed(conversations=None), "no conversations"),
        (changed(id={}), "make it a text or a whole number"),
        (changed(posterior="awe"), "posterior is not an object"),
        (changed(votes={"awe": -1}), "votes give 'awe' -1"),
    ],
)
def test_a_line_that_is_no_record_is_a_row_that_says_why(line, reason, tmp_path):
    rows = read(tmp_path, GOOD, line, changed(id="last"))
    assert [row["id"] for row in rows if not is_invalid_record(row)] == ["good", "last"]
    [row] = filter(is_invalid_record, rows)
    assert row["id"] == "line-2"
    assert row["error"]["type"] == RECORD_INVALID
    assert row["error"]["message"].startswith(f"{tmp_path / 'data.jsonl'}:2: ")
    assert reason in row["error"]["message"] and "\n" not in row["error"]["message"]
    write_jsonl_atomic(tmp_path / "written.jsonl", rows)
    with pytest.raises(RecordError):
        read_records(tmp_path / "data.jsonl", need_truth=False)


def test_what_is_valid_by_itself_is_kept(tmp_path):
    [row] = read(tmp_path, changed(conversations=3, votes={"awe": 2}, response="x", error="y", extra=1))
    assert row == {
        **{name: GOOD[name] for name in ("id", "image", "task", "candidates", "ground_truth")},
        "votes": {"awe": 2},
        "error": row["error"],
    }
    [row] = read(tmp_path, changed(id="  ", task=[], candidates=3, image=[], conversations=[3]))
    assert row == {"id": "line-1", "task": UNREADABLE_TASK, "error": row["error"]}


def test_ids_are_unique_and_valid_rows_have_theirs_first(tmp_path):
    rows = read(
        tmp_path,
        changed(id="a", task=3),
        changed(id="a"),
        changed(id="a"),
        changed(id="b", task=3),
        changed(id=True),
        changed(id="line-5"),
        b"{",
        changed(id="x" * 2000, task=3),
        changed(id=9, task=3),
    )
    assert [row["id"] for row in rows] == [
        "line-1",
        "a",
        "line-3",
        "b",
        "line-5-2",
        "line-5",
        "line-7",
        "line-8",
        "9",
    ]
    assert "its id is also that of line 2" in rows[2]["error"]["message"]
    assert rows[2]["candidates"] == GOOD["candidates"]


def test_reasons_are_short(tmp_path):
    [row] = read(tmp_path, changed(posterior={"x" * 100_000: 1}))
    assert len(row["error"]["message"]) <= 400


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_records_keeping_invalid(tmp_path / "gone.jsonl")


def test_predictions_hold_such_rows_and_they_are_scored_as_failed(tmp_path):
    rows = read(tmp_path, GOOD, b"{", changed(id="dup"), changed(id="dup", ground_truth="fear"))
    rows[0]["response"] = rows[2]["response"] = "<answer>awe</answer><confidence>0.5</confidence>"
    write_jsonl_atomic(tmp_path / "predictions.jsonl", rows)
    scored = [score(row) for _, row in iterate_with_places(tmp_path / "predictions.jsonl")]
    assert [row.status for row in scored] == ["answered", "failed", "answered", "failed"]
    assert [row.truth for row in scored] == ["awe", UNKNOWN_TRUTH, "awe", "fear"]
    assert [row.task for row in scored] == ["EmoSet-8", UNREADABLE_TASK, "EmoSet-8", "EmoSet-8"]
    assert not scored[1].correct and scored[1].candidates == ()
    paper = PaperProtocol()
    paper.add(rows[1], scored[1])
    assert (paper.scores()["overall"]["acc"], paper.scores()["overall"]["f1"]) == (0, 0)
    [summary] = evaluate(scored[1:2], n_draws=0).tasks
    assert (summary.failed, summary.acc, summary.f1) == (1, 0, 0)


def test_data_cannot_call_itself_invalid(tmp_path):
    row = {"id": "a", "task": "FI-2", "error": {"type": RECORD_INVALID, "message": "so it says"}}
    assert "no candidates" in read(tmp_path, row)[0]["error"]["message"]
    with pytest.raises(RecordError, match="no candidates"):
        read_records(tmp_path / "data.jsonl", need_truth=False)
    with pytest.raises(RecordError, match="no task"):
        write_jsonl_atomic(tmp_path / "no_task.jsonl", [{**row, "task": 3}])
        list(iterate_with_places(tmp_path / "no_task.jsonl"))
