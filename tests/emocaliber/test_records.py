"""Published files are taken as they are; a mistake in the data is one line that says where and what to do."""

import copy
import json

import pytest

from emocaliber.prompts import conversation, user_prompt
from emocaliber.records import (
    RECORD_INVALID,
    UNREADABLE_TASK,
    RecordError,
    content_id,
    faults,
    is_invalid_record,
    iterate_with_places,
    merge_by_id,
    most_probable,
    read_records,
    read_records_keeping_invalid,
    record_images,
    record_text,
    soft_truth,
    validate_record,
    write_jsonl_atomic,
)
from emocaliber.report.paper import PaperProtocol
from emocaliber.report.summary import evaluate
from emocaliber.scoring import UNKNOWN_TRUTH, score
from emocaliber.taxonomy import MIKELS_8, WEBEMO_25

PUBLISHED = {
    "conversations": conversation("VECBench/FI/0.jpg", MIKELS_8),
    "task": "FI-8",
    "ground_truth": "awe",
    "candidates": list(MIKELS_8),
}


def changed(**fields):
    record = {**copy.deepcopy(PUBLISHED), **fields}
    return {name: value for name, value in record.items() if value is not ...}


def read(tmp_path, *records, **options):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_records(path, **options)


def test_the_published_form_is_taken_as_it_is(tmp_path):
    (record,) = read(tmp_path, PUBLISHED)
    assert {name: value for name, value in record.items() if name != "id"} == PUBLISHED
    assert record_images(record) == ["VECBench/FI/0.jpg"]
    assert record_text(record) == user_prompt(MIKELS_8)


def test_rows_come_with_their_places(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(["", json.dumps(changed(id="a")), "", json.dumps(changed(id="b"))]))
    placed = list(iterate_with_places(path))
    assert [place for place, _ in placed] == [f"{path}:2", f"{path}:4"]
    assert [row for _, row in placed] == read_records(path)


def test_the_id_is_fixed():
    """Kept runs are resumed by id: a change of the rule would compute every row again."""
    record = {
        "conversations": [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}],
        "image": "a.jpg",
        "task": "FI-2",
        "ground_truth": "positive",
        "candidates": ["positive", "negative"],
    }
    # sha256 of '[["a.jpg"], "FI-2", "Which?", ["positive", "negative"]]', the first 16 digits
    assert content_id(record) == "FI-2-643ac2a0c469dbd2"


def test_predictions_without_ids_get_the_ids_of_their_data(tmp_path):
    other = changed(ground_truth="fear", conversations=conversation("b.jpg", MIKELS_8))
    data = read(tmp_path, PUBLISHED, other)
    merged = read(
        tmp_path,
        changed(**other, response="<answer>fear</answer>"),
        changed(response="x", ground_truth="sad"),
    )
    assert [row["id"] for row in merged] == [row["id"] for row in reversed(data)]
    assert merged[0]["response"] == "<answer>fear</answer>"


@pytest.mark.parametrize(
    "fields",
    [
        {"task": "FI-2"},
        {"image": "other.jpg"},
        {"candidates": ["awe", "fear"]},
        {"conversations": conversation("VECBench/FI/0.jpg", MIKELS_8, with_confidence=False)},
    ],
)
def test_the_id_depends_on_what_is_asked(tmp_path, fields):
    first, second = read(tmp_path, PUBLISHED, changed(**fields))
    assert first["id"] != second["id"]


def test_exact_repeats_are_numbered(tmp_path):
    ids = [record["id"] for record in read(tmp_path, PUBLISHED, PUBLISHED, PUBLISHED)]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]


def test_task_names_are_repaired_and_own_ones_allowed(tmp_path):
    records = read(
        tmp_path, changed(task="UnbaisedEmo-6"), changed(task="UnbiasedEmo-6 "), changed(task="Zoo-3")
    )
    assert [record["task"] for record in records] == ["UnbiasedEmo-6", "UnbiasedEmo-6", "Zoo-3"]
    assert records[1]["id"] == f"{records[0]['id']}-2"


def test_own_ids_are_kept_as_text(tmp_path):
    assert [record["id"] for record in read(tmp_path, changed(id=7), changed(id="a"))] == ["7", "a"]


def test_several_files_are_one_set_of_rows(tmp_path):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl.gz"
    other = changed(image="other.jpg")
    write_jsonl_atomic(first, [PUBLISHED, changed(id="a")])
    write_jsonl_atomic(second, [other, other])
    one, own, two, again = read_records(first, second)
    assert (own["id"], again["id"]) == ("a", f"{two['id']}-2")
    assert one["id"] != two["id"]
    write_jsonl_atomic(second, [other, changed(id="a")])
    with pytest.raises(RecordError) as error:
        read_records(first, second)
    assert str(error.value) == f"{second}:2: id 'a' is also that of {first}:2; make ids unique"


@pytest.mark.parametrize("has_id", [False, True])
def test_the_same_rows_in_another_file_are_refused(tmp_path, has_id):
    shard, merged = tmp_path / "shard.jsonl", tmp_path / "merged.jsonl"
    identity = content_id(PUBLISHED)
    row = changed(response="a", id=identity) if has_id else changed(response="a")
    write_jsonl_atomic(shard, [row])
    write_jsonl_atomic(merged, [changed(image="other.jpg"), changed(response="b")])
    with pytest.raises(RecordError) as error:
        read_records(shard, merged)
    assert str(error.value) == (
        f"{merged}:2: id '{identity}' is also that of {shard}:1; "
        "give each row in one file only, or give repeats ids of their own"
    )


@pytest.mark.parametrize("truth", ["sad", "Sadness", "sadness"])
def test_ground_truth_may_be_a_synonym(tmp_path, truth):
    assert read(tmp_path, changed(ground_truth=truth))[0]["ground_truth"] == truth


def test_ground_truth_may_be_spelt_correctly(tmp_path):
    read(tmp_path, changed(ground_truth="cheerfulness", candidates=list(WEBEMO_25)))


@pytest.mark.parametrize("soft", [{"posterior": {"awe": 1}}, {"votes": {"awe": 2, "fear": 1}}])
def test_ground_truth_may_be_missing_where_a_distribution_is_in_its_place(tmp_path, soft):
    (record,) = read(tmp_path, changed(ground_truth=..., **soft))
    assert "ground_truth" not in record
    assert read(tmp_path, changed(ground_truth=None, **soft))[0]["ground_truth"] is None


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        (
            {"votes": {}},
            "no ground_truth; give the true label, one of the candidates, or its posterior or votes",
        ),
        ({"votes": {"awe": 0}}, "votes sum to 0; give at least one rater's vote, or leave them out"),
        ({"posterior": {"awe": 0.5}}, "posterior sums to 0.5, not 1; correct it, or leave it out"),
    ],
)
def test_a_distribution_in_its_place_is_checked_with_its_line(tmp_path, soft, message):
    with pytest.raises(RecordError) as error:
        read(tmp_path, PUBLISHED, changed(ground_truth=..., image="b.jpg", **soft))
    assert str(error.value) == f"{tmp_path / 'data.jsonl'}:2: {message}"


def test_truth_is_needed_for_scoring_only(tmp_path):
    assert "ground_truth" not in read(tmp_path, changed(ground_truth=...), need_truth=False)[0]
    with pytest.raises(RecordError, match="not among the candidates"):
        read(tmp_path, changed(ground_truth="joy"), need_truth=False)


IMAGE_ITEM = {"type": "image", "image": "a.jpg"}
ASKING = [{"role": "user", "content": "Which emotion?"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"candidates": ...}, "no candidates; give the list of labels to choose from"),
        ({"candidates": []}, "candidates is []; make it a list of at least one label"),
        ({"candidates": "awe"}, "candidates is 'awe'; make it a list of at least one label"),
        ({"candidates": ["awe", 1]}, "candidates hold 1; make every one a word"),
        ({"candidates": ["awe", " "]}, "candidates hold ' '; make every one a word"),
        ({"candidates": ["awe", "Awe"]}, "candidates hold 'Awe' twice; name each label once"),
        (
            {"ground_truth": ...},
            "no ground_truth; give the true label, one of the candidates, or its posterior or votes",
        ),
        (
            {"ground_truth": "joy", "candidates": ["awe", "fear"]},
            "ground_truth 'joy' is not among the candidates ['awe', 'fear']; correct one of them",
        ),
        (
            {"ground_truth": ["awe"], "candidates": ["awe"]},
            "ground_truth ['awe'] is not among the candidates ['awe']; correct one of them",
        ),
        ({"task": ...}, "no task; give its name, such as EmoSet-8 (names of your own are allowed)"),
        ({"task": " "}, "no task; give its name, such as EmoSet-8 (names of your own are allowed)"),
        (
            {"conversations": ASKING},
            "no image; give its path as `image` or as an image item of conversations",
        ),
        ({"images": [""]}, "an image is ''; make it a path relative to the data root"),
        (
            {"conversations": [{"role": "user", "content": [{"type": "image"}]}]},
            "an image is None; make it a path relative to the data root",
        ),
        (
            {"conversations": ..., "image": "a.jpg"},
            "no conversations; give a list of chat messages with `role` and `content`",
        ),
        (
            {"conversations": [{"role": "user", "content": [IMAGE_ITEM]}]},
            "conversations ask nothing; put the question in as a text item of a user message",
        ),
        ({"id": ""}, "id is empty; leave it out to have one derived"),
        ({"id": 1.5}, "id is 1.5; make it a text or a whole number, or leave it out"),
        ({"id": True}, "id is True; make it a text or a whole number, or leave it out"),
        ({"response": 5}, "response is 5; make it the text of the model"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path, fields, message):
    with pytest.raises(RecordError) as error:
        read(tmp_path, PUBLISHED, changed(**fields))
    assert str(error.value) == f"{tmp_path / 'data.jsonl'}:2: {message}"


def test_messages_stay_short_and_on_one_line(tmp_path):
    with pytest.raises(RecordError) as error:
        read(tmp_path, changed(ground_truth="joy\n" * 10_000))
    assert len(str(error.value)) < 500 + len(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_file_given_twice_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    write_jsonl_atomic(path, [changed(id="a")])
    with pytest.raises(RecordError, match="id 'a' is also that of"):
        read_records(path, path)


def test_a_repeated_id_names_both_places(tmp_path):
    with pytest.raises(RecordError) as error:
        read(tmp_path, changed(id="1"), changed(id="2"), changed(id=1))
    path = tmp_path / "data.jsonl"
    assert str(error.value) == f"{path}:3: id '1' is also that of {path}:1; make ids unique"


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(PUBLISHED) + "\n{oops\n")
    with pytest.raises(RecordError, match=r"data\.jsonl:2: not JSON \("):
        read_records(path)


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({"images": ["a.jpg", "b.jpg"]}, ["a.jpg", "b.jpg"]),
        ({"image": "c.jpg"}, ["c.jpg"]),
        ({"images": [], "image": None}, ["VECBench/FI/0.jpg"]),
    ],
)
def test_named_images_go_before_those_of_the_messages(fields, images):
    assert record_images(changed(**fields)) == images


def test_text_is_what_the_user_asks():
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [IMAGE_ITEM, {"type": "text", "text": "Look."}]},
        {"role": "user", "content": "Which emotion?"},
        {"role": "assistant", "content": "<answer>awe</answer>"},
    ]
    assert record_text(changed(conversations=messages)) == "Look.\nWhich emotion?"


# merge_by_id


def test_merge_keeps_the_order_of_the_inputs_and_every_field():
    inputs = [{"id": "1", "task": "a"}, {"id": "2", "task": "b"}, {"id": "3", "task": "c"}]
    outputs = [{"id": "3", "response": "z"}, {"id": "1", "error": {"type": "x", "message": "y"}}]
    assert merge_by_id(inputs, outputs) == [
        {"id": "1", "task": "a", "error": {"type": "x", "message": "y"}},
        {"id": "2", "task": "b"},
        {"id": "3", "task": "c", "response": "z"},
    ]


def test_old_answers_in_the_inputs_do_not_stay_beside_new_ones():
    assert merge_by_id(
        [{"id": "1", "error": "old"}, {"id": "2", "response": "old"}], [{"id": "1", "response": "r"}]
    ) == [
        {"id": "1", "response": "r"},
        {"id": "2"},
    ]


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        ([{"id": "1", "response": "a"}, {"id": "1", "response": "b"}], {"id": "1", "response": "b"}),
        ([{"id": "1", "response": "a"}, {"id": "1", "error": "x"}], {"id": "1", "response": "a"}),
        ([{"id": "1", "error": "x"}, {"id": "1", "response": "a"}], {"id": "1", "response": "a"}),
        ([{"id": "1", "error": "x"}, {"id": "1", "error": "y"}], {"id": "1", "error": "y"}),
    ],
)
def test_of_several_outputs_a_response_goes_first_then_the_last(outputs, kept):
    assert merge_by_id([{"id": "1"}], outputs) == [kept]


def test_outputs_of_other_data_are_refused():
    with pytest.raises(RecordError, match="row '2': an output of other data"):
        merge_by_id([{"id": "1"}], [{"id": "2", "response": "a"}])


def test_every_fault_of_a_row_is_told_and_reading_raises_the_first():
    row = changed(id=True, task=" ", ground_truth="bliss", votes={"awe": -1}, response=5, conversations=[])
    found = list(faults(row))
    assert [reason for reason, _ in found] == [
        *("bad_id", "no_task", "soft_truth", "truth_not_a_candidate", "no_image", "no_question"),
        "bad_response",
    ]
    with pytest.raises(RecordError) as error:
        validate_record(row, need_truth=False)
    assert str(error.value) == found[0][1]
    assert list(faults(changed(ground_truth=...), need_truth=False)) == []
    assert [reason for reason, _ in faults(changed(ground_truth=...))] == ["no_truth"]


def test_a_distribution_that_cannot_be_read_is_a_fault_also_beside_a_truth(tmp_path):
    with pytest.raises(RecordError, match=r"data\.jsonl:1: posterior sums to 0\.5"):
        read(tmp_path, changed(posterior={"awe": 0.5}))


LABELS = ("joy", "great joy", "sadness")


def test_votes_become_shares_of_all_candidates_in_their_spelling_and_order():
    read = soft_truth({"votes": {"Sad": 1, "Great-Joy": 2.5, "joy": 0}}, LABELS)
    assert read == {"joy": 0.0, "great joy": 2.5 / 3.5, "sadness": 1 / 3.5}
    assert list(read) == list(LABELS)


def test_one_vote_is_a_sure_truth():
    assert soft_truth({"votes": {"joy": 7}, "posterior": None}, LABELS) == dict.fromkeys(LABELS, 0.0) | {
        "joy": 1
    }


def test_a_posterior_is_taken_as_written():
    assert soft_truth({"posterior": {"sad": 0.3, "joy": 0.6995}, "votes": {}}, LABELS) == {
        "joy": 0.6995,
        "great joy": 0.0,
        "sadness": 0.3,
    }


@pytest.mark.parametrize("record", [{}, {"votes": None}, {"votes": {}, "posterior": None}, {"posterior": {}}])
def test_nothing_written_is_nothing_known(record):
    assert soft_truth(record, LABELS) is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"votes": ["joy"]}, "votes is not an object; make it label -> number of raters, or leave it out"),
        ({"votes": 0}, "votes is not an object; make it label -> number of raters, or leave it out"),
        ({"votes": {"awe": 1}}, "votes give 'awe' 1; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": -1}}, "votes give 'joy' -1; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": True}}, "votes give 'joy' True; use candidates and numbers of raters, 0 or more"),
        ({"votes": {"joy": "3"}}, "votes give 'joy' '3'; use candidates and numbers of raters, 0 or more"),
        (
            {"votes": {"joy": 10**400}},
            f"votes give 'joy' 1{'0' * 39}…; use candidates and numbers of raters, 0 or more",
        ),
        (
            {"votes": {"joy": 0, "sad": 0}},
            "votes sum to 0; give at least one rater's vote, or leave them out",
        ),
        (
            {"votes": {"sad": 1, "Sadness": 1}},
            "votes give 'sadness' twice, once as 'Sadness'; name each label once",
        ),
        (
            {"votes": {"joy": 1}, "posterior": {"joy": 1}},
            "posterior and votes are both there; keep the one that is the truth",
        ),
    ],
)
def test_votes_that_cannot_be_read_are_told_exactly(record, message):
    with pytest.raises(RecordError) as error:
        soft_truth(record, LABELS)
    assert str(error.value) == message


def test_the_most_probable_of_equals_is_the_first_candidate():
    assert most_probable({"joy": 0.2, "great joy": 0.4, "sadness": 0.4}) == "great joy"
    assert (
        most_probable(soft_truth({"votes": {"sadness": 2, "great joy": 2, "joy": 1}}, LABELS)) == "great joy"
    )


GOOD = {
    "id": "good",
    "image": "a.png",
    "conversations": conversation("a.png", MIKELS_8),
    "task": "EmoSet-8",
    "candidates": list(MIKELS_8),
    "ground_truth": "awe",
}


def good(**fields):
    return {name: value for name, value in {**GOOD, **fields}.items() if value is not ...}


def read_all(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return read_records_keeping_invalid(path)


def test_a_sound_file_is_read_as_it_always_is(tmp_path):
    rows = read_all(tmp_path, GOOD, good(id=7), good(id=..., image="b.png"), good(id=..., image="b.png"), b"")
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
        (good(extra=json.loads("[" * 101 + "]" * 101)), "nested more than 100 levels deep"),
        (good(task=3), "no task"),
        (good(candidates="joy"), "make it a list of at least one label"),
        (good(ground_truth=["awe"]), "is not among the candidates"),
        (good(image=..., conversations=[{"role": "user", "content": "What?"}]), "no image"),
        (good(image=[1]), "make it a path"),
        (good(conversations=None), "no conversations"),
        (good(id={}), "make it a text or a whole number"),
        (good(posterior="awe"), "posterior is not an object"),
        (good(votes={"awe": -1}), "votes give 'awe' -1"),
    ],
)
def test_a_line_that_is_no_record_is_a_row_that_says_why(line, reason, tmp_path):
    rows = read_all(tmp_path, GOOD, line, good(id="last"))
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
    [row] = read_all(tmp_path, good(conversations=3, votes={"awe": 2}, response="x", error="y", extra=1))
    assert row == {
        **{name: GOOD[name] for name in ("id", "image", "task", "candidates", "ground_truth")},
        "votes": {"awe": 2},
        "error": row["error"],
    }
    [row] = read_all(tmp_path, good(id="  ", task=[], candidates=3, image=[], conversations=[3]))
    assert row == {"id": "line-1", "task": UNREADABLE_TASK, "error": row["error"]}


def test_ids_are_unique_and_valid_rows_have_theirs_first(tmp_path):
    rows = read_all(
        tmp_path,
        good(id="a", task=3),
        good(id="a"),
        good(id="a"),
        good(id="b", task=3),
        good(id=True),
        good(id="line-5"),
        b"{",
        good(id="x" * 2000, task=3),
        good(id=9, task=3),
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
    [row] = read_all(tmp_path, good(posterior={"x" * 100_000: 1}))
    assert len(row["error"]["message"]) <= 400


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_records_keeping_invalid(tmp_path / "gone.jsonl")


def test_predictions_hold_such_rows_and_they_are_scored_as_failed(tmp_path):
    rows = read_all(tmp_path, GOOD, b"{", good(id="dup"), good(id="dup", ground_truth="fear"))
    rows[0]["response"] = rows[2]["response"] = "<answer>awe</answer><confidence>0.5</confidence>"
    write_jsonl_atomic(tmp_path / "predictions.jsonl", rows)
    scored = [score(row) for _, row in iterate_with_places(tmp_path / "predictions.jsonl")]
    assert [row.status for row in scored] == ["answered", "failed", "answered", "failed"]
    assert [row.truth for row in scored] == ["awe", UNKNOWN_TRUTH, "awe", "fear"]
    assert [row.task for row in scored] == ["EmoSet-8", UNREADABLE_TASK, "EmoSet-8", "EmoSet-8"]
    assert not scored[1].correct and scored[1].candidates == ()
    paper = PaperProtocol()
    paper.add(rows[1], scored[1])
    assert (paper.scores()["n_errors"], paper.scores()["overall"]["n"]) == (1, 0)
    [summary] = evaluate(scored[1:2], n_draws=0).tasks
    assert (summary.failed, summary.acc, summary.f1) == (1, 0, 0)


def test_data_cannot_call_itself_invalid(tmp_path):
    row = {"id": "a", "task": "FI-2", "error": {"type": RECORD_INVALID, "message": "so it says"}}
    assert "no candidates" in read_all(tmp_path, row)[0]["error"]["message"]
    with pytest.raises(RecordError, match="no candidates"):
        read_records(tmp_path / "data.jsonl", need_truth=False)
    with pytest.raises(RecordError, match="no task"):
        write_jsonl_atomic(tmp_path / "no_task.jsonl", [{**row, "task": 3}])
        list(iterate_with_places(tmp_path / "no_task.jsonl"))
