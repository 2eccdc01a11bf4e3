"""Words for a scene: the caption, the five reasoning sections in several wordings, and reading them back."""

import random
import re
from collections.abc import Mapping

from emocaliber.mini.scene import VALUES, Scene
from emocaliber.mini.world import WEIGHTS

CAPTION_PROMPT = "Describe the image."

# The attributes that a chain states and that `read_facts` finds again, with the section that holds each.
FACT_SECTIONS: Mapping[str, str] = {
    **dict.fromkeys(("object", "mark"), "element"),
    **dict.fromkeys(("posture", "face"), "human"),
    **dict.fromkeys(("light", "ground"), "context"),
    "distance": "interaction",
}
_THINGS = {
    "balloon": ("colourful balloon", "bunch of balloon"),
    "firework": ("bright firework", "bursting firework"),
    "mountain": ("high mountain", "snowy mountain"),
    "flower": ("pink flower", "blooming flower"),
    "fire": ("burning fire", "hot fire"),
    "gravestone": ("old gravestone", "silent gravestone"),
    "snake": ("green snake", "coiled snake"),
    "garbage": ("pile of garbage", "smelly garbage"),
}
_MARK_SENTENCES = {
    "none": ("There are no marks on it.", "Nothing is drawn over it."),
    "hearts": ("Pink hearts are drawn over it.", "There are hearts all around."),
    "scratches": ("Red scratches run across it.", "There are scratches all over."),
}
_NO_ONE = ("There are no people present in the image.", "No people are present.")
_HUMAN = (
    "One person is {posture} with a {face} face.",
    "A {face} person is {posture}.",
    "There is a person, {posture} and {face}.",
)
_CONTEXT = (
    "The scene is a {light} {ground}.",
    "A {light} sky lies above a {ground}.",
    "It is a {ground} in {light} light.",
)
_INTERACTION = {
    "touching": ("The person is touching the {object}.", "The {object} and the person are touching."),
    "near": ("The person stays near the {object}.", "The {object} is near the person."),
    "far": ("The person is far from the {object}.", "The {object} is far away from the person."),
}
_ALONE = ("The {object} is alone.", "Nothing interacts with the {object}.")
_CONCLUSIONS = (
    "So the most likely emotion conveyed by the image is {label}.",
    "Taken together, the image most likely conveys {label}.",
    "Overall, the emotion is most likely {label}.",
)


def main_mood(attribute: str, value: str) -> str:
    """The mood that one part of a scene suggests most; the first in order where two are equal."""
    table = WEIGHTS[attribute][value]
    return max(table, key=lambda mood: table[mood])


def caption(scene: Scene) -> str:
    """The bare attributes of the scene: what a model has to see before it can reason."""
    words = [scene.light, scene.ground, scene.object, scene.mark]
    words += [scene.posture, scene.face, scene.distance] if scene.posture else ["nobody"]
    return " ".join(word for word in words if word)


def reasoning(scene: Scene, label: str, rng: random.Random) -> dict[str, str]:
    """The five sections for a scene with an object; every statement is true of the scene.

    The analysis ends with `label`, which is drawn from the posterior and may be an unlikely one; nothing else
    depends on it.
    """
    assert scene.object is not None and scene.ground is not None
    thing = rng.choice(_THINGS[scene.object])
    element = rng.choice(("The image shows a {thing}.", "A {thing} can be seen.", "There is a {thing}."))
    human, interaction = rng.choice(_NO_ONE), rng.choice(_ALONE)
    if scene.posture is not None and scene.face is not None and scene.distance is not None:
        human = rng.choice(_HUMAN).format(posture=scene.posture, face=scene.face)
        interaction = rng.choice(_INTERACTION[scene.distance])
    return {
        "element": element.format(thing=thing) + " " + rng.choice(_MARK_SENTENCES[scene.mark]),
        "human": human,
        "context": rng.choice(_CONTEXT).format(light=scene.light, ground=scene.ground),
        "interaction": interaction.format(object=scene.object),
        "analysis": _analysis(scene, rng) + " " + rng.choice(_CONCLUSIONS).format(label=label),
    }


def _analysis(scene: Scene, rng: random.Random) -> str:
    """What each part suggests, and whether the parts agree."""
    signs = [(f"the {scene.object}", "object"), (f"the {scene.light} light", "light")]
    if scene.face is not None:
        signs.append((f"the {scene.face} face", "face"))
    if scene.posture is not None:
        signs.append((f"the {scene.posture} posture", "posture"))
    moods = [main_mood(attribute, getattr(scene, attribute)) for _, attribute in signs]
    verb = rng.choice(("suggests", "points to"))
    clauses = [f"{name} {verb} {mood}" for (name, _), mood in zip(signs, moods, strict=True)]
    text = ", ".join(clauses) + "."
    n_moods = len(set(moods))
    agreement = "agree" if n_moods == 1 else "agree in part" if n_moods == 2 else "disagree"
    return f"{text[0].upper()}{text[1:]} The signs {agreement}."


def read_facts(sections: Mapping[str, str]) -> dict[str, str | None]:
    """The attributes that reasoning states, by name; None where a section states none of the values.

    An absent figure reads as `nobody` in posture and face and `alone` in distance.
    """
    facts: dict[str, str | None] = {}
    for attribute, section in FACT_SECTIONS.items():
        words = set(re.findall(r"[a-z]+", sections.get(section, "").lower()))
        found = [value for value in VALUES[attribute] if value in words]
        if attribute in ("posture", "face") and "no" in words:
            found = ["nobody"]
        elif attribute == "distance" and words & {"alone", "nothing"}:
            found = ["alone"]
        elif attribute == "mark" and not found and words & {"no", "nothing"}:
            found = ["none"]
        facts[attribute] = found[0] if len(found) == 1 else None
    return facts


def true_facts(scene: Scene) -> dict[str, str | None]:
    """The same attributes as `read_facts`, from the scene itself."""
    facts = {attribute: getattr(scene, attribute) for attribute in FACT_SECTIONS}
    if scene.posture is None:
        facts |= {"posture": "nobody", "face": "nobody", "distance": "alone"}
    return facts
