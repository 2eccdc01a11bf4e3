"""The pictures: sizes, repeatability, and that every attribute can be seen."""

from dataclasses import replace

import numpy as np
import pytest

from emocaliber.mini.drawing import draw
from emocaliber.mini.scene import (
    DISTANCES,
    FACES,
    GROUNDS,
    LIGHTS,
    MARKS,
    OBJECTS,
    POSTURES,
    STROKES,
    STYLES,
    Scene,
)

SCENE = Scene("photo", "sunny", "meadow", "balloon", "standing", "smiling", "near", "none", None, -1, 3)
FIELD = Scene("abstract", "night", None, None, None, None, None, "none", "waves", 1, 3)


def pixels(scene: Scene, size: int = 112) -> np.ndarray:
    return np.asarray(draw(scene, size), dtype=float)


@pytest.mark.parametrize("size", [112, 168, 224])
def test_size_and_mode(size: int) -> None:
    assert draw(SCENE, size).size == (size, size)
    assert draw(SCENE, size).mode == "RGB"


def test_the_same_scene_gives_the_same_pixels() -> None:
    assert np.array_equal(pixels(SCENE), pixels(SCENE))
    assert not np.array_equal(pixels(SCENE), pixels(replace(SCENE, look_seed=4)))


@pytest.mark.parametrize(
    ("scene", "attribute", "values"),
    [
        (SCENE, "object", OBJECTS),
        (SCENE, "posture", POSTURES),
        (SCENE, "face", FACES),
        (SCENE, "distance", DISTANCES),
        (SCENE, "mark", MARKS),
        (FIELD, "strokes", STROKES),
    ],
)
def test_every_value_looks_different(scene: Scene, attribute: str, values: tuple[str, ...]) -> None:
    """At 112 pixels any two values differ clearly in at least 30 pixels (a mouth is small)."""
    pictures = [pixels(replace(scene, **{attribute: value})) for value in values]
    for number, first in enumerate(pictures):
        for second in pictures[number + 1 :]:
            assert (np.abs(first - second).max(axis=2) > 40).sum() > 30


@pytest.mark.parametrize(
    ("attribute", "values", "top", "bottom"),
    [("light", LIGHTS, 0, 40), ("ground", GROUNDS, 98, 112)],
)
def test_lights_and_grounds_have_colours_of_their_own(
    attribute: str, values: tuple[str, ...], top: int, bottom: int
) -> None:
    """The commonest colour of the sky's, or the ground's, part of the picture."""
    pictures = [pixels(replace(SCENE, **{attribute: value})) for value in values]
    medians = [np.median(picture[top:bottom], axis=(0, 1)) for picture in pictures]
    for number, first in enumerate(medians):
        for second in medians[number + 1 :]:
            assert np.abs(first - second).max() > 20


def test_ink_is_another_style() -> None:
    photo, ink = pixels(SCENE), pixels(replace(SCENE, style="ink"))
    saturation = [np.ptp(picture, axis=2).mean() for picture in (photo, ink)]
    assert saturation[1] < 0.5 * saturation[0]
    assert set(STYLES) == {"photo", "ink", "abstract"}
