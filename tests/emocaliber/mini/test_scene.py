"""Scenes: what they can hold, how they follow a mood, and the way to JSON and back."""

import json
import random
from collections import Counter

import pytest

from emocaliber.mini.scene import HABITS, MOODS, STYLES, VALUES, Scene, draw_value, sample_scene


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_holds_values_of_its_attributes_and_goes_to_json_and_back(style: str) -> None:
    rng = random.Random(1)
    for _ in range(200):
        scene = sample_scene(rng, style)
        assert scene.style == style
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
        for attribute, values in VALUES.items():
            assert getattr(scene, attribute) in (None, *values)
        # Strokes in place of things; a face and a distance only where somebody is.
        assert (scene.strokes is None) == (scene.object is not None) == (style != "abstract")
        assert (scene.posture is None) == (scene.face is None) == (scene.distance is None)


def test_the_same_seed_gives_the_same_scenes() -> None:
    first, again, other = (sample_scene(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_every_mood_has_habits_among_the_values() -> None:
    assert set(HABITS) == set(MOODS)
    for habit in HABITS.values():
        assert set(habit) == {"light", "ground", "object", "posture", "face"}
        assert all(values and set(values) <= set(VALUES[attribute]) for attribute, values in habit.items())


def test_a_value_follows_the_mood_with_the_chance_of_the_coherence() -> None:
    rng = random.Random(3)
    follows = Counter(draw_value(rng, "object", "anger", 1.0) for _ in range(100))
    against = Counter(draw_value(rng, "object", "anger", 1.0, against=True) for _ in range(400))
    any_value = Counter(draw_value(rng, "object", "anger", 0.0, against=True) for _ in range(400))
    assert set(follows) == {"fire"}
    assert set(against) == set(VALUES["object"]) - {"fire"}
    assert set(any_value) == set(VALUES["object"])
