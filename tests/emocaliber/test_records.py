"""Published files are taken as they are; a mistake in the data is one line that says where and what to do."""

import copy
import json

import pytest

from emocaliber.prompts import conversation, user_prompt
from emocaliber.records import (
    RecordError,
    content_id,
    iterate_with_places,
    merge_by_id,
    read_records,
    record_images,
    record_text,
    write_jsonl_atomic,
)
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
