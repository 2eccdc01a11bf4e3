"""The chains: every statement is true of the scene and can be read back."""

import random

import pytest

from emocaliber.mini.chains import FACT_SECTIONS, caption, main_mood, read_facts, reasoning, true_facts
from emocaliber.mini.scene import Scene, sample_scene
from emocaliber.response import SECTIONS, parse, render

SCENE = Scene("photo", "stormy", "street", "fire", "jumping", "shouting", "far", "scratches", None, 1, 7)
ALONE = Scene("photo", "golden", "meadow", "flower", None, None, None, "none", None, 1, 7)


@pytest.mark.parametrize("scene", [SCENE, ALONE])
def test_all_wordings_state_the_scene(scene: Scene) -> None:
    texts = set()
    for seed in range(300):
        sections = reasoning(scene, "anger", random.Random(seed))
        assert tuple(sections) == SECTIONS
        assert read_facts(sections) == true_facts(scene)
        texts.add(sections["context"] + sections["element"])
    assert len(texts) > 20


def test_random_scenes_survive_the_way_through_the_grammar() -> None:
    rng = random.Random(5)
    for _ in range(500):
        scene = sample_scene(rng)
        text = render(reasoning(scene, "awe", rng), "awe")
        assert read_facts(parse(text, ["awe", "fear"]).reasoning) == true_facts(scene)


def test_a_false_or_missing_statement_is_seen() -> None:
    sections = reasoning(SCENE, "anger", random.Random(0))
    assert read_facts(sections | {"element": "A green snake. Pink hearts."})["object"] == "snake"
    assert read_facts(sections | {"element": "A green snake by a fire."})["object"] is None
    assert read_facts({}) == dict.fromkeys(FACT_SECTIONS)


def test_analysis_names_what_the_parts_suggest() -> None:
    assert main_mood("object", "fire") == "anger"
    assert main_mood("light", "stormy") == "anger"
    assert main_mood("face", "shouting") == "anger"
    assert main_mood("posture", "jumping") == "excitement"
    analysis = reasoning(SCENE, "disgust", random.Random(0))["analysis"]
    assert "The signs agree in part." in analysis
    assert analysis.rstrip(".").endswith("disgust")


def test_captions_hold_the_bare_attributes() -> None:
    assert caption(SCENE) == "stormy street fire scratches jumping shouting far"
    assert caption(ALONE) == "golden meadow flower none nobody"
