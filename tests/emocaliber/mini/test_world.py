"""The laws of the mini world: sums, mappings, the ambiguity that was aimed at."""

import math
import random
from dataclasses import replace

import pytest

from emocaliber.mini.chains import main_mood
from emocaliber.mini.scene import Scene, sample_scene
from emocaliber.mini.world import (
    MOOD_TO_UNBIASED_6,
    MOOD_TO_WEBEMO_25,
    SHARPNESS,
    mood_distribution,
    mood_scores,
    posterior,
)
from emocaliber.taxonomy import TASKS, WEBEMO_25_TO_2, WEBEMO_25_TO_7

GRAVE = Scene(
    style="photo",
    light="overcast",
    ground="snow",
    object="gravestone",
    posture="crouching",
    face="crying",
    distance="touching",
    mark="none",
    strokes=None,
    side=-1,
    look_seed=1,
)


def scenes(task: str, n: int) -> list[Scene]:
    rng = random.Random(f"test/{task}")
    style = {"Abstract-8": "abstract", "Artphoto-8": "ink"}.get(task, "photo")
    return [sample_scene(rng, style, task == "UnbiasedEmo-6") for _ in range(n)]


@pytest.mark.parametrize("task", TASKS)
def test_posterior_is_a_distribution_over_the_tasks_own_labels(task: str) -> None:
    for scene in scenes(task, 200):
        distribution = posterior(task, scene)
        assert tuple(distribution) == TASKS[task].labels
        assert math.isclose(math.fsum(distribution.values()), 1.0, abs_tol=1e-12)
        assert min(distribution.values()) >= 0.0


@pytest.mark.parametrize("table", [MOOD_TO_WEBEMO_25, MOOD_TO_UNBIASED_6])
def test_every_mood_is_spread_whole(table: dict[str, dict[str, float]]) -> None:
    for row in table.values():
        assert math.isclose(math.fsum(row.values()), 1.0, abs_tol=1e-12)


def test_every_webemo_label_can_occur() -> None:
    reachable = {label for row in MOOD_TO_WEBEMO_25.values() for label in row}
    assert reachable == set(TASKS["WebEmo-25"].labels)


def test_webemo_7_and_2_follow_from_25() -> None:
    for scene in scenes("WebEmo-25", 100):
        fine = posterior("WebEmo-25", scene)
        for task, mapping in (("WebEmo-7", WEBEMO_25_TO_7), ("WebEmo-2", WEBEMO_25_TO_2)):
            for label, p in posterior(task, scene).items():
                assert math.isclose(p, sum(q for name, q in fine.items() if mapping[name] == label))


# The neighbourhood of what real models reach on tasks of this size.
@pytest.mark.parametrize(
    ("task", "low", "high"),
    [
        *((task, 0.85, 0.90) for task in ("FI-2", "WebEmo-2")),
        *((task, 0.65, 0.75) for task in ("EmoSet-8", "FI-8", "Artphoto-8", "Abstract-8", "WebEmo-7")),
        ("UnbiasedEmo-6", 0.60, 0.75),
        ("WebEmo-25", 0.35, 0.45),
    ],
)
def test_bayes_accuracy_is_where_it_was_aimed(task: str, low: float, high: float) -> None:
    top = [max(posterior(task, scene).values()) for scene in scenes(task, 3000)]
    assert low <= math.fsum(top) / len(top) <= high


def test_scores_add_up_by_hand() -> None:
    # sadness: overcast 0.8, snow 0.2, gravestone 2.1 x 1.2 (touched), crouching 0.5, crying 1.7
    assert math.isclose(mood_scores(GRAVE)["sadness"], 0.8 + 0.2 + 2.1 * 1.2 + 0.5 + 1.7)
    far = mood_scores(replace(GRAVE, distance="far"))["sadness"]
    assert math.isclose(far, 0.8 + 0.2 + 2.1 * 0.7 + 0.5 + 1.7)
    assert mood_distribution(GRAVE, SHARPNESS)["sadness"] > 0.9


def test_hearts_over_a_grave_make_it_less_certain() -> None:
    plain = posterior("FI-2", replace(GRAVE, face="neutral", posture="standing"))
    contradicted = posterior("FI-2", replace(GRAVE, face="neutral", posture="standing", mark="hearts"))
    assert contradicted["negative"] < plain["negative"]


def test_objects_of_unbiased_emo_go_against_the_habit() -> None:
    def share_of_fitting_objects(task: str) -> float:
        members = scenes(task, 1000)
        tops = [mood_distribution(scene, SHARPNESS, object_counts=False) for scene in members]
        fits = [
            main_mood("object", scene.object) == max(top, key=lambda mood: top[mood])
            for scene, top in zip(members, tops, strict=True)
            if scene.object
        ]
        return sum(fits) / len(fits)

    assert share_of_fitting_objects("FI-8") > 0.35
    assert share_of_fitting_objects("UnbiasedEmo-6") < 0.15


def test_the_object_says_nothing_in_unbiased_emo() -> None:
    assert posterior("UnbiasedEmo-6", GRAVE) == posterior("UnbiasedEmo-6", replace(GRAVE, object="balloon"))
    assert posterior("EmoSet-8", GRAVE) != posterior("EmoSet-8", replace(GRAVE, object="balloon"))
