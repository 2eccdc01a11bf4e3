"""What a scene of VECBench-mini is made of, and how scenes are drawn at random."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emocaliber.taxonomy import MIKELS_8, MIKELS_TO_POLARITY

LIGHTS = ("sunny", "golden", "overcast", "stormy", "night")
GROUNDS = ("meadow", "beach", "snow", "street")
OBJECTS = ("balloon", "firework", "mountain", "flower", "fire", "gravestone", "snake", "garbage")
POSTURES = ("standing", "jumping", "crouching", "lying")
FACES = ("smiling", "crying", "shouting", "neutral")
DISTANCES = ("touching", "near", "far")
MARKS = ("none", "hearts", "scratches")
STROKES = ("waves", "spikes", "dots")
STYLES = ("photo", "ink", "abstract")

VALUES: Mapping[str, Sequence[str]] = {
    **{"light": LIGHTS, "ground": GROUNDS, "object": OBJECTS, "posture": POSTURES, "face": FACES},
    **{"distance": DISTANCES, "mark": MARKS, "strokes": STROKES},
}
"""What each attribute of a scene can be."""

MOODS = MIKELS_8


def _habit(light: str, ground: str, thing: str, posture: str, face: str) -> dict[str, list[str]]:
    habit = {"light": light, "ground": ground, "object": thing, "posture": posture, "face": face}
    return {attribute: values.split() for attribute, values in habit.items()}


# What a scene made for a mood tends to contain: the values that suggest this mood most.
HABITS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "amusement": _habit("sunny", "beach", "balloon", "jumping standing", "smiling"),
    "anger": _habit("stormy", "street", "fire", "standing", "shouting"),
    "awe": _habit("golden night", "snow", "mountain", "standing", "neutral smiling"),
    "contentment": _habit("golden sunny", "meadow", "flower", "lying", "smiling"),
    "disgust": _habit("overcast", "street", "garbage", "crouching", "neutral shouting"),
    "excitement": _habit("sunny", "beach", "firework", "jumping", "smiling shouting"),
    "fear": _habit("night stormy", "meadow street", "snake", "crouching", "shouting crying"),
    "sadness": _habit("overcast", "snow", "gravestone", "crouching lying", "crying"),
}


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn. `None` means that the scene has no such thing.

    `side` is the half of the picture in which the figure stands (-1 left, 1 right); `look_seed`
    decides shapes and shades that carry no meaning.
    """

    style: str
    light: str
    ground: str | None
    object: str | None
    posture: str | None
    face: str | None
    distance: str | None
    mark: str
    strokes: str | None
    side: int
    look_seed: int

    def to_json(self) -> dict[str, Any]:
        """Give the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scene":
        """Read what `to_json` gave."""
        return cls(**value)


def draw_value(
    rng: random.Random, attribute: str, mood: str, coherence: float, *, against: bool = False
) -> str:
    """One value: with chance `coherence` the habit of the mood (or, `against`, of any other), else any."""
    values, habit = VALUES[attribute], HABITS[mood][attribute]
    if rng.random() >= coherence:
        return rng.choice(values)
    return rng.choice([value for value in values if value not in habit] if against else habit)


def sample_scene(rng: random.Random, style: str = "photo", object_against_habit: bool = False) -> Scene:
    """A scene made with a mood in mind, followed more or less: `coherence` varies from scene to scene.

    That spread is what makes some pictures plain and others truly ambiguous.
    """
    mood = rng.choice(MOODS)
    coherence = rng.choice((0.35, 0.7, 0.9, 1.0))
    light = draw_value(rng, "light", mood, coherence)
    # A mark usually contradicts the mood: hearts over something grim, scratches over something pleasant.
    mark = "none"
    if rng.random() < 0.3:
        contradicting, agreeing = "hearts", "scratches"
        if MIKELS_TO_POLARITY[mood] == "positive":
            contradicting, agreeing = agreeing, contradicting
        mark = contradicting if rng.random() < 0.75 else agreeing
    side = rng.choice((-1, 1))
    look_seed = rng.getrandbits(32)
    if style == "abstract":
        strokes = rng.choice(STROKES)
        return Scene(style, light, None, None, None, None, None, mark, strokes, side, look_seed)
    ground = draw_value(rng, "ground", mood, 0.5 * coherence)
    thing = draw_value(rng, "object", mood, coherence, against=object_against_habit)
    posture = face = distance = None
    if rng.random() < 0.7:
        posture = draw_value(rng, "posture", mood, 0.8 * coherence)
        face = draw_value(rng, "face", mood, coherence)
        distance = rng.choice(DISTANCES)
    return Scene(style, light, ground, thing, posture, face, distance, mark, None, side, look_seed)
