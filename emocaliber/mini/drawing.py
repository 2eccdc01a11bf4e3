"""Draws a scene: sky and ground in the mood of the light, an object, a figure, marks."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from emocaliber.mini import shapes
from emocaliber.mini.scene import Scene

Colour = tuple[int, int, int]

# Scenes are laid out on a square of 112 units and drawn at four pixels a unit, then reduced.
UNITS = 112
SCALE = 4
HORIZON = 58

SKY: dict[str, tuple[Colour, Colour]] = {
    "sunny": ((70, 160, 245), (185, 225, 255)),
    "golden": ((240, 140, 60), (255, 215, 130)),
    "overcast": ((140, 145, 152), (190, 193, 197)),
    "stormy": ((58, 52, 82), (104, 96, 128)),
    "night": ((8, 10, 38), (28, 34, 84)),
}
GROUND: dict[str, Colour] = {
    "meadow": (86, 168, 72),
    "beach": (236, 206, 138),
    "snow": (240, 244, 250),
    "street": (112, 108, 106),
}
# How much of its own colour the ground keeps, and what the light adds to it.
GROUND_LIGHT: dict[str, tuple[float, Colour]] = {
    "sunny": (1.0, (255, 255, 255)),
    "golden": (0.82, (255, 170, 80)),
    "overcast": (0.80, (120, 122, 126)),
    "stormy": (0.62, (60, 54, 84)),
    "night": (0.48, (16, 20, 60)),
}


def draw(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels; the same scene and size give the same pixels."""
    rng = random.Random(scene.look_seed)
    image = _colour_field(scene, rng) if scene.style == "abstract" else _landscape(scene, rng)
    pen = shapes.Pen(ImageDraw.Draw(image), SCALE)
    if scene.object is not None:
        _place_things(pen, scene, rng)
    shapes.draw_mark(pen, scene.mark, rng)
    if scene.style == "ink":
        image = _as_ink(image)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _mix(a: Colour, b: Colour, share_of_a: float) -> Colour:
    r, g, b_ = (round(x * share_of_a + y * (1 - share_of_a)) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _jitter(colour: Colour, rng: random.Random, by: int = 8) -> Colour:
    r, g, b = (max(0, min(255, value + rng.randint(-by, by))) for value in colour)
    return r, g, b


def _gradient(top: Colour, bottom: Colour, height: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((UNITS * SCALE, height), Image.Resampling.BILINEAR)
    return ImageOps.colorize(ramp, top, bottom)


def _landscape(scene: Scene, rng: random.Random) -> Image.Image:
    assert scene.ground is not None
    side = UNITS * SCALE
    top, bottom = SKY[scene.light]
    image = _gradient(_jitter(top, rng), _jitter(bottom, rng), side)
    keep, tint = GROUND_LIGHT[scene.light]
    ground = _jitter(_mix(GROUND[scene.ground], tint, keep), rng, 6)
    pen = shapes.Pen(ImageDraw.Draw(image), SCALE)
    # The light's own sign hangs in the corner away from the figure.
    sky_x = 56 - scene.side * 40 + rng.randint(-3, 3)
    shapes.draw_sky_sign(pen, scene.light, sky_x, 14 + rng.randint(-2, 2), rng)
    pen.rectangle(0, HORIZON, UNITS, UNITS, ground)
    shapes.draw_ground_sign(pen, scene.ground, ground, HORIZON, rng)
    return image


def _colour_field(scene: Scene, rng: random.Random) -> Image.Image:
    """An abstract picture: fields in the colours of the light, with strokes of one kind."""
    top, bottom = SKY[scene.light]
    image = _gradient(_jitter(top, rng, 14), _jitter(bottom, rng, 14), UNITS * SCALE)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.ROTATE_90)
    pen = shapes.Pen(ImageDraw.Draw(image), SCALE)
    for _ in range(3):
        x, y = rng.randint(0, 84), rng.randint(0, 84)
        field = _jitter(_mix(top, bottom, rng.random()), rng, 26)
        pen.rectangle(x, y, x + rng.randint(16, 44), y + rng.randint(16, 44), field)
    assert scene.strokes is not None
    ink = (245, 240, 225) if sum(top) < 330 else (40, 36, 60)
    shapes.draw_strokes(pen, scene.strokes, ink, rng)
    return image


def _place_things(pen: shapes.Pen, scene: Scene, rng: random.Random) -> None:
    """Object and figure at the stated distance; a lone object stands near the middle."""
    assert scene.object is not None
    base = 92 + rng.randint(-2, 2)
    if scene.posture is None or scene.face is None:
        shapes.draw_object(pen, scene.object, 56 + rng.randint(-14, 14), base, rng)
        return
    gap = {"touching": 27, "near": 43, "far": 62}[scene.distance or "near"]
    figure_x = 56 - gap // 2 if scene.side < 0 else 56 + gap // 2
    object_x = figure_x - scene.side * gap
    shapes.draw_object(pen, scene.object, object_x, base, rng)
    reach = -scene.side if scene.distance == "touching" else 0
    shapes.draw_figure(pen, scene.posture, scene.face, figure_x, base + 2, reach, rng)


def _as_ink(image: Image.Image) -> Image.Image:
    """A drawing on paper: dark outlines over a washed-out, few-coloured picture."""
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 - min(255, value * 4))
    edges = edges.filter(ImageFilter.MinFilter(3))
    wash = ImageOps.posterize(image.filter(ImageFilter.GaussianBlur(5)), 3)
    paper = Image.new("RGB", image.size, (244, 232, 205))
    washed = Image.blend(ImageOps.grayscale(wash).convert("RGB"), wash, 0.6)
    return ImageChops.multiply(Image.blend(paper, washed, 0.65), edges.convert("RGB"))
