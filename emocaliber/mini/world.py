"""The true label distribution p(label | scene) of every task of VECBench-mini.

A scene scores each of eight moods by adding up what its parts suggest; a softmax makes that a distribution
over moods, and each task spreads the moods over its own labels. The numbers are this world's laws: they are
chosen, not estimated from people.
"""

import math
from collections.abc import Mapping

from emocaliber.mini.scene import MOODS, Scene
from emocaliber.taxonomy import DERIVED_LABELS, MIKELS_TO_POLARITY, TASKS

# Sharpness of the softmax over moods: larger makes every label more certain.
SHARPNESS = 1.3

# In UnbiasedEmo-6 the object says nothing of the emotion; the rest has to speak louder.
UNBIASED_SHARPNESS = 3.5

# A colour field holds few signs; each one counts for more.
ABSTRACT_SHARPNESS = 5.5

MARK_WEIGHT = 0.7


def _marked(polarity: str) -> dict[str, float]:
    return {mood: MARK_WEIGHT for mood in MOODS if MIKELS_TO_POLARITY[mood] == polarity}


WEIGHTS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "light": {
        "sunny": {"amusement": 0.7, "excitement": 0.6, "contentment": 0.3, "sadness": -0.5, "fear": -0.5},
        "golden": {"awe": 0.8, "contentment": 0.8, "anger": -0.4, "disgust": -0.4},
        "overcast": {"sadness": 0.8, "disgust": 0.4, "excitement": -0.5, "amusement": -0.3},
        "stormy": {"anger": 0.8, "fear": 0.5, "contentment": -0.6, "amusement": -0.4},
        "night": {"fear": 0.8, "awe": 0.5, "disgust": -0.2, "amusement": -0.3},
    },
    "ground": {
        "meadow": {"contentment": 0.3},
        "beach": {"excitement": 0.2, "amusement": 0.2},
        "snow": {"awe": 0.2, "sadness": 0.2},
        "street": {"disgust": 0.3, "anger": 0.2},
    },
    "object": {
        "balloon": {"amusement": 2.1, "excitement": 0.6, "contentment": 0.3},
        "firework": {"excitement": 2.1, "awe": 0.6, "amusement": 0.3},
        "mountain": {"awe": 2.1, "contentment": 0.5, "fear": 0.2},
        "flower": {"contentment": 2.0, "amusement": 0.3, "awe": 0.2},
        "fire": {"anger": 1.9, "fear": 0.8, "awe": 0.2},
        "gravestone": {"sadness": 2.1, "fear": 0.5},
        "snake": {"fear": 1.9, "disgust": 0.8},
        "garbage": {"disgust": 2.3, "anger": 0.4, "sadness": 0.2},
    },
    "posture": {
        "standing": {"awe": 0.2, "anger": 0.2},
        "jumping": {"excitement": 1.1, "amusement": 0.6, "sadness": -0.6},
        "crouching": {"fear": 0.8, "sadness": 0.5, "disgust": 0.4, "excitement": -0.5},
        "lying": {"contentment": 0.8, "sadness": 0.5, "anger": -0.5, "excitement": -0.4},
    },
    "face": {
        "smiling": {
            **{"amusement": 1.0, "contentment": 1.0, "excitement": 0.9, "awe": 0.5},
            **{"anger": -0.8, "sadness": -0.8},
        },
        "crying": {"sadness": 1.7, "fear": 0.7, "amusement": -0.8, "contentment": -0.6, "excitement": -0.5},
        "shouting": {"anger": 1.6, "fear": 0.9, "excitement": 0.6, "disgust": 0.5, "contentment": -0.8},
        "neutral": {"awe": 0.3, "disgust": 0.2, "contentment": 0.2},
    },
    "mark": {"none": {}, "hearts": _marked("positive"), "scratches": _marked("negative")},
    "strokes": {
        "waves": {"contentment": 0.7, "awe": 0.5, "sadness": 0.4},
        "spikes": {"anger": 0.9, "fear": 0.6, "excitement": 0.4},
        "dots": {"amusement": 0.8, "excitement": 0.5, "disgust": 0.4},
    },
}

# How much of the object reaches the mood: what one touches counts for more than what is far away.
DISTANCE_FACTOR = {None: 1.0, "touching": 1.2, "near": 1.0, "far": 0.7}

MOOD_TO_WEBEMO_25: Mapping[str, Mapping[str, float]] = {
    "amusement": {"cheerfullness": 0.72, "zest": 0.10, "affection": 0.06, "optimism": 0.04, "surprise": 0.08},
    "anger": {"rage": 0.68, "exasperation": 0.12, "irritabilty": 0.11, "envy": 0.06, "confusion": 0.03},
    "awe": {"surprise": 0.48, "enthrallment": 0.26, "optimism": 0.10, "pride": 0.08, "gratitude": 0.08},
    "contentment": {
        "contentment": 0.42,
        "affection": 0.2,
        "gratitude": 0.14,
        "relief": 0.14,
        "optimism": 0.1,
    },
    "disgust": {"disgust": 0.76, "irritabilty": 0.08, "shame": 0.06, "neglect": 0.06, "confusion": 0.04},
    "excitement": {"zest": 0.52, "enthrallment": 0.14, "cheerfullness": 0.14, "pride": 0.12, "lust": 0.08},
    "fear": {"horror": 0.56, "nervousness": 0.26, "confusion": 0.13, "suffering": 0.05},
    "sadness": {
        **{"sadness": 0.40, "suffering": 0.20, "disappointment": 0.13},
        **{"neglect": 0.11, "sympathy": 0.09, "shame": 0.07},
    },
}
MOOD_TO_UNBIASED_6: Mapping[str, Mapping[str, float]] = {
    "amusement": {"joy": 0.80, "surprise": 0.15, "love": 0.05},
    "anger": {"anger": 0.95, "fear": 0.05},
    "awe": {"surprise": 0.75, "joy": 0.15, "love": 0.10},
    "contentment": {"love": 0.75, "joy": 0.25},
    "disgust": {"anger": 0.65, "sadness": 0.20, "fear": 0.15},
    "excitement": {"joy": 0.65, "surprise": 0.30, "love": 0.05},
    "fear": {"fear": 0.90, "surprise": 0.10},
    "sadness": {"sadness": 0.95, "fear": 0.05},
}


def mood_scores(scene: Scene, object_counts: bool = True) -> dict[str, float]:
    """Sum of what the parts of the scene suggest, per mood (arbitrary log-odds units)."""
    totals = dict.fromkeys(MOODS, 0.0)
    for attribute, table in WEIGHTS.items():
        value = getattr(scene, attribute)
        if value is None or (attribute == "object" and not object_counts):
            continue
        factor = DISTANCE_FACTOR[scene.distance] if attribute == "object" else 1.0
        for mood, weight in table[value].items():
            totals[mood] += factor * weight
    return totals


def mood_distribution(scene: Scene, sharpness: float, object_counts: bool = True) -> dict[str, float]:
    """Softmax of the mood scores."""
    scores = mood_scores(scene, object_counts)
    top = max(scores.values())
    weights = {mood: math.exp(sharpness * (score - top)) for mood, score in scores.items()}
    total = math.fsum(weights.values())
    return {mood: weight / total for mood, weight in weights.items()}


def posterior(task: str, scene: Scene) -> dict[str, float]:
    """p(label | scene) over the labels of one of the nine tasks, in the task's label order; sums to 1.

    Args:
        task: name of one of the nine tasks (KeyError otherwise).
    """
    if task == "UnbiasedEmo-6":
        moods = mood_distribution(scene, UNBIASED_SHARPNESS, object_counts=False)
        return _spread(task, moods, MOOD_TO_UNBIASED_6)
    moods = mood_distribution(scene, ABSTRACT_SHARPNESS if scene.style == "abstract" else SHARPNESS)
    fine = _spread("WebEmo-25", moods, MOOD_TO_WEBEMO_25) if task.startswith("WebEmo-") else moods
    labels, coarse = TASKS[task].labels, DERIVED_LABELS.get(task)
    if coarse is None:
        return {label: fine[label] for label in labels}
    return {label: math.fsum(p for name, p in fine.items() if coarse[name] == label) for label in labels}


def _spread(
    task: str, moods: Mapping[str, float], table: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    labels = TASKS[task].labels
    return {label: math.fsum(moods[mood] * table[mood].get(label, 0.0) for mood in MOODS) for label in labels}
