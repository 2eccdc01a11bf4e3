"""The check of what a model perceives: hand-made rows with known shares."""

from emocaliber.mini.chains import reasoning
from emocaliber.mini.scene import Scene
from emocaliber.prompts import conversation
from emocaliber.response import render
from train.stages import perception

SCENE = Scene("photo", "sunny", "meadow", "flower", "standing", "smiling", "near", "none", None, -1, 3)


def row(number: int, answer: str, confidence: str, sections: dict[str, str], task: str = "FI-2") -> dict:
    return {
        "id": f"r{number}",
        "image": f"{number}.jpg",
        "conversations": conversation(f"{number}.jpg", ["positive", "negative"]),
        "task": task,
        "ground_truth": "positive",
        "candidates": ["positive", "negative"],
        "posterior": {"positive": 0.8, "negative": 0.2},
        "response": render(sections, answer, float(confidence)),
    }


def test_shares_by_hand() -> None:
    import random

    truth = reasoning(SCENE, "positive", random.Random(0))
    wrong = truth | {"element": "A green snake can be seen. There are no marks on it."}
    rows = [
        row(0, "positive", "0.9", truth),
        row(1, "positive", "0.6", truth),
        row(2, "negative", "0.7", truth),
        row(3, "positive", "0.8", wrong),
        row(4, "negative", "0.1", wrong, task="Abstract-8"),  # another group: left out
    ]
    scenes = {f"r{number}": SCENE.to_json() for number in range(5)}
    measured = perception.measure(rows, scenes)
    assert measured["rows"] == 4
    assert measured["parse_rate"] == 1.0
    assert abs(measured["share_of_bayes"]["all"] - 0.75 / 0.8) < 1e-12
    assert measured["facts"]["object"] == 0.75
    assert measured["facts"]["light"] == measured["facts"]["mark"] == 1.0
    # Right at 0.9, 0.8, 0.6, wrong at 0.7: two of three pairs are ranked right.
    assert abs(measured["auroc"]["ID VSA"] - 2 / 3) < 1e-12
    assert measured["auroc"]["ID VER"] is None
    missed = perception.missed_aims(measured)
    assert missed == ["missed: AUROC, ID VER is 0.000, aim 0.6"]


def test_every_aim_can_be_missed() -> None:
    nothing = perception.measure([], {})
    assert len(perception.missed_aims(nothing)) == 5
