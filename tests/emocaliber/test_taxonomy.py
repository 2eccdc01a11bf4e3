"""Tasks and label sets are the published ones; a label is matched whole or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emocaliber import taxonomy
from emocaliber.taxonomy import (
    LabelMatch,
    canonical_task,
    labels_equal_to,
    labels_named_in,
    match_label,
    normalise_label,
    task_group,
    task_sort_key,
)


def test_nine_tasks_in_table_order():
    assert {name: (task.group, len(task.labels)) for name, task in taxonomy.TASKS.items()} == {
        "Abstract-8": ("OOD VER", 8),
        "Artphoto-8": ("OOD VER", 8),
        "EmoSet-8": ("ID VER", 8),
        "FI-2": ("ID VSA", 2),
        "FI-8": ("ID VER", 8),
        "UnbiasedEmo-6": ("OOD VER", 6),
        "WebEmo-2": ("ID VSA", 2),
        "WebEmo-7": ("ID VER", 7),
        "WebEmo-25": ("ID VER", 25),
    }
    assert list(taxonomy.TASKS) == sorted(taxonomy.TASKS, key=task_sort_key)
    assert {task.group for task in taxonomy.TASKS.values()} == set(taxonomy.GROUPS)


def test_webemo_25_in_index_order_with_its_own_spelling():
    assert taxonomy.WEBEMO_25[0] == "affection"
    assert taxonomy.WEBEMO_25[1] == "cheerfullness"
    assert taxonomy.WEBEMO_25[11] == "irritabilty"
    assert taxonomy.WEBEMO_25[24] == "zest"
    assert list(taxonomy.WEBEMO_25) == sorted(set(taxonomy.WEBEMO_25))
    assert len(taxonomy.WEBEMO_25) == 25


def test_mappings_cover_their_label_sets():
    assert set(taxonomy.MIKELS_TO_POLARITY) == set(taxonomy.MIKELS_8)
    assert set(taxonomy.WEBEMO_25_TO_7) == set(taxonomy.WEBEMO_25) == set(taxonomy.WEBEMO_25_TO_2)
    assert set(taxonomy.WEBEMO_25_TO_7.values()) == set(taxonomy.WEBEMO_7) == set(taxonomy.WEBEMO_7_TO_2)
    for mapping in (taxonomy.MIKELS_TO_POLARITY, taxonomy.WEBEMO_7_TO_2, taxonomy.WEBEMO_25_TO_2):
        assert set(mapping.values()) == set(taxonomy.POLARITY_2)


@pytest.mark.parametrize(
    ("fine", "coarse", "polarity"),
    [
        ("lust", "love", "positive"),
        ("cheerfullness", "joy", "positive"),
        ("surprise", "surprise", "positive"),
        ("confusion", "confusion", "negative"),
        ("sympathy", "sadness", "negative"),
        ("envy", "anger", "negative"),
        ("nervousness", "fear", "negative"),
    ],
)
def test_webemo_25_to_7_to_2(fine, coarse, polarity):
    assert taxonomy.WEBEMO_25_TO_7[fine] == coarse
    assert taxonomy.WEBEMO_7_TO_2[coarse] == polarity
    assert taxonomy.WEBEMO_25_TO_2[fine] == polarity


def test_mikels_polarity():
    positive = {label for label, polarity in taxonomy.MIKELS_TO_POLARITY.items() if polarity == "positive"}
    assert positive == {"amusement", "awe", "contentment", "excitement"}


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("UnbaisedEmo-6", "UnbiasedEmo-6"),
        ("unbaisedemo-6", "UnbiasedEmo-6"),
        (" webemo-25\n", "WebEmo-25"),
        ("ArtPhoto-8", "Artphoto-8"),
        (" MyTask ", "MyTask"),
    ],
)
def test_canonical_task(written, canonical):
    assert canonical_task(written) == canonical


def test_unknown_tasks_have_no_group_and_come_last():
    assert task_group("fi-2") == "ID VSA"
    assert task_group("Zoo-3") is None
    names = ["Zoo-3", "WebEmo-25", "Ape-2", "UnbaisedEmo-6", "Abstract-8"]
    assert sorted(names, key=task_sort_key) == ["Abstract-8", "UnbaisedEmo-6", "WebEmo-25", "Ape-2", "Zoo-3"]


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  Joy.\n", "joy"),
        ("“Great-Joy”!", "great joy"),
        ("**awe**", "awe"),
        ("'sad_ness'", "sad ness"),
        ("\uff21\uff37\uff25", "awe"),
        ("a\u00adwe\u200b", "awe"),
        ("´joy´", "joy"),
        ("ÄRGER", "ärger"),
        ("A\u0308rger", "ärger"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("😀", "😀"),
        ("…!?", ""),
        ("", ""),
    ],
)
def test_normalise_label(text, normalised):
    assert normalise_label(text) == normalised


@given(st.text())
def test_normalise_label_is_idempotent(text):
    once = normalise_label(text)
    assert normalise_label(once) == once


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_normalised_as_any_other_text(text):
    # A letter outside ASCII takes the general way; the rest must come out the same.
    assert normalise_label(text + " ä") == f"{normalise_label(text)} ä".strip()


@pytest.mark.parametrize(
    ("text", "candidates", "label"),
    [
        ("Sadness.", taxonomy.MIKELS_8, "sadness"),
        ("sad", taxonomy.MIKELS_8, "sadness"),
        ("Content", taxonomy.MIKELS_8, "contentment"),
        ("cheerfulness", taxonomy.WEBEMO_25, "cheerfullness"),
        ("cheerfullness", ["Cheerfulness"], "Cheerfulness"),
        ("irritability", taxonomy.WEBEMO_25, "irritabilty"),
        ("irritabilty", ["irritability"], "irritability"),
        ("sadness", ["sad", "happy"], "sad"),
        ("contentment", ["content"], "content"),
        ("joy", taxonomy.MIKELS_8, None),
        ("sad and lonely", taxonomy.MIKELS_8, None),
        ("aw", taxonomy.MIKELS_8, None),
        ("", taxonomy.MIKELS_8, None),
        ("GREAT  JOY", ["joy", "great joy"], "great joy"),
        ("joy", [], None),
    ],
)
def test_match_label(text, candidates, label):
    assert match_label(text, candidates) == label


@pytest.mark.parametrize("label", ["sad", "sadness"])
def test_candidates_that_are_synonyms_of_each_other_stay_apart(label):
    assert match_label(label.upper(), ["sad", "sadness"]) == label
    assert labels_named_in(f"It is {label}, I think", ["sad", "sadness"]) == LabelMatch((label,), False)


def test_candidates_that_differ_in_case_only_need_the_exact_case():
    assert match_label("Joy", ["joy", "Joy"]) == "Joy"
    assert labels_equal_to("JOY", ["joy", "Joy"]).labels == ("joy", "Joy")
    assert match_label("JOY", ["joy", "Joy"]) is None


@pytest.mark.parametrize("labels", [task.labels for task in taxonomy.TASKS.values()])
def test_every_label_is_itself_and_named_alone(labels):
    for label in labels:
        assert labels_equal_to(label, labels) == LabelMatch((label,), False)
        assert labels_named_in(f"I feel {label}.", labels) == LabelMatch((label,), False)


@pytest.mark.parametrize(
    ("text", "candidates", "labels"),
    [
        ("The answer is awe", taxonomy.MIKELS_8, ("awe",)),
        ("awesome, awful", taxonomy.MIKELS_8, ()),
        ("awe-inspiring", taxonomy.MIKELS_8, ()),
        ("awe_inspiring", taxonomy.MIKELS_8, ()),
        ("jaw__awe", taxonomy.MIKELS_8, ()),
        ("__awe__, _not_ fear_ful", taxonomy.MIKELS_8, ("awe",)),
        ("one great_joy here", ["joy", "great joy"], ("great joy",)),
        ("non-positive", taxonomy.POLARITY_2, ()),
        ("unhappy", ["happy", "sad"], ()),
        ("fear or anger", taxonomy.MIKELS_8, ("anger", "fear")),
        ("fear/anger", taxonomy.MIKELS_8, ("anger", "fear")),
        ("fear, fear, FEAR", taxonomy.MIKELS_8, ("fear",)),
        ("so sad", taxonomy.MIKELS_8, ("sadness",)),
        ("the content of the image", taxonomy.MIKELS_8, ()),
        ("one joy", ["joy", "great joy"], ("joy",)),
        ("one great joy", ["joy", "great joy"], ("great joy",)),
        ("one great-joy here", ["joy", "great joy"], ("great joy",)),
        ("great joy, and joy", ["joy", "great joy"], ("joy", "great joy")),
        ("a great joy ride", ["great joy", "joy ride"], ("great joy", "joy ride")),
        ("the very great joy ride", ["joy", "great joy", "very great joy ride"], ("very great joy ride",)),
        ("a great joy", ["great", "great joy"], ("great joy",)),
        ("the great joyride", ["great joy"], ()),
    ],
)
def test_labels_named_in(text, candidates, labels):
    assert labels_named_in(text, candidates).labels == labels


def test_synonyms_are_told():
    assert labels_equal_to("sad", ["sadness"]).by_synonym
    assert labels_named_in("so sad", ["sadness"]).by_synonym
    assert not labels_named_in("sad, this sadness", ["sadness"]).by_synonym
    assert not labels_named_in("this sadness, so sad", ["sadness"]).by_synonym
    assert not labels_equal_to("Sadness!", ["sadness"]).by_synonym


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_matches_are_candidates(text, candidates):
    assert match_label(text, candidates) in [None, *candidates]
    assert set(labels_named_in(text, candidates).labels) <= set(candidates)


@given(
    st.lists(st.sampled_from(["joy", "great", "ride", "sad", "-", "_", " ", "/"]), max_size=12).map("".join)
)
def test_a_named_label_stands_in_the_text(text):
    for label in labels_named_in(text, ["joy", "great joy", "joy ride", "great"]).labels:
        assert label in normalise_label(text)


@pytest.mark.parametrize(
    "unit",
    ["joy ", "a-", "_", "a_", "great ", "ä", "a\u0316\u0301", "\u0316\u0301", "\ufdfa", "- ", "\u200b", "😀"],
)
@pytest.mark.usefixtures("in_linear_time")
def test_linear_time(unit):
    labels_named_in(unit * (50_000 // len(unit)), ["joy", "great joy", "great great great joy"])
