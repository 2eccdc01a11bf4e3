"""Draws a scene: sky and ground in the mood of the light, an object, a figure, marks.

Positions and sizes are in units of the layout, a square of 112 with y downwards.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from emocaliber.mini.scene import Scene

Colour = tuple[int, int, int]

UNITS = 112
SCALE = 4  # pixels a unit; the picture is reduced to its size at the end
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

DARK: Colour = (32, 28, 34)
SKIN: Colour = (250, 214, 172)

# A crying face is pale, a shouting one flushed.
FACE_SKIN: dict[str, Colour] = {"crying": (222, 214, 222), "shouting": (248, 158, 128)}


@dataclass(frozen=True)
class _Pen:
    """Draws in layout units on a canvas of `SCALE` pixels a unit."""

    canvas: ImageDraw.ImageDraw

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> list[float]:
        return [SCALE * value for value in (x0, y0, x1, y1)]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """Fill from corner to corner."""
        self.canvas.rectangle(self._box(x0, y0, x1, y1), fill=fill)

    def circle(self, x: float, y: float, radius: float, fill: Colour, outline: Colour | None = None) -> None:
        """Fill around a centre."""
        self.ellipse(x - radius, y - radius, x + radius, y + radius, fill, outline)

    def ellipse(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, outline: Colour | None = None
    ) -> None:
        """Fill the ellipse inside the box."""
        self.canvas.ellipse(self._box(x0, y0, x1, y1), fill=fill, outline=outline, width=SCALE)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Fill between the corners."""
        self.canvas.polygon([(SCALE * x, SCALE * y) for x, y in points], fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: float = 2.0) -> None:
        """Draw through the points, `width` units wide."""
        scaled = [(SCALE * x, SCALE * y) for x, y in points]
        self.canvas.line(scaled, fill=fill, width=round(SCALE * width), joint="curve")

    def arc(
        self, x: float, y: float, radius: float, start: float, end: float, fill: Colour, width: float = 1.5
    ) -> None:
        """Draw a part of a circle, angles in degrees clockwise from the right."""
        box = self._box(x - radius, y - radius, x + radius, y + radius)
        self.canvas.arc(box, start, end, fill=fill, width=round(SCALE * width))


def draw(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels; the same scene and size give the same pixels."""
    rng = random.Random(scene.look_seed)
    image = _colour_field(scene, rng) if scene.style == "abstract" else _landscape(scene, rng)
    pen = _Pen(ImageDraw.Draw(image))
    if scene.object is not None:
        _place_things(pen, scene, rng)
    _mark(pen, scene.mark, rng)
    if scene.style == "ink":
        image = _as_ink(image)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def _mix(a: Colour, b: Colour, share_of_a: float) -> Colour:
    r, g, b_ = (round(x * share_of_a + y * (1 - share_of_a)) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _jitter(colour: Colour, rng: random.Random, by: int = 8) -> Colour:
    r, g, b = (max(0, min(255, value + rng.randint(-by, by))) for value in colour)
    return r, g, b


def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((UNITS * SCALE, UNITS * SCALE), Image.Resampling.BILINEAR)
    return ImageOps.colorize(ramp, top, bottom)


def _landscape(scene: Scene, rng: random.Random) -> Image.Image:
    assert scene.ground is not None
    top, bottom = SKY[scene.light]
    image = _gradient(_jitter(top, rng), _jitter(bottom, rng))
    keep, tint = GROUND_LIGHT[scene.light]
    ground = _jitter(_mix(GROUND[scene.ground], tint, keep), rng, 6)
    pen = _Pen(ImageDraw.Draw(image))
    # The light's own sign hangs in the corner away from the figure.
    sky_x = 56 - scene.side * 40 + rng.randint(-3, 3)
    _sky_sign(pen, scene.light, sky_x, 14 + rng.randint(-2, 2), rng)
    pen.rectangle(0, HORIZON, UNITS, UNITS, ground)
    _ground_sign(pen, scene.ground, ground, rng)
    return image


def _colour_field(scene: Scene, rng: random.Random) -> Image.Image:
    """An abstract picture: fields in the colours of the light, with strokes of one kind."""
    top, bottom = SKY[scene.light]
    image = _gradient(_jitter(top, rng, 14), _jitter(bottom, rng, 14))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.ROTATE_90)
    pen = _Pen(ImageDraw.Draw(image))
    for _ in range(3):
        x, y = rng.randint(0, 84), rng.randint(0, 84)
        field = _jitter(_mix(top, bottom, rng.random()), rng, 26)
        pen.rectangle(x, y, x + rng.randint(16, 44), y + rng.randint(16, 44), field)
    assert scene.strokes is not None
    ink = (245, 240, 225) if sum(top) < 330 else (40, 36, 60)
    _strokes(pen, scene.strokes, ink, rng)
    return image


def _place_things(pen: _Pen, scene: Scene, rng: random.Random) -> None:
    """Object and figure at the stated distance; a lone object stands near the middle."""
    assert scene.object is not None
    base = 92 + rng.randint(-2, 2)
    if scene.posture is None or scene.face is None:
        _OBJECTS[scene.object](pen, 56 + rng.randint(-14, 14), base, rng)
        return
    gap = {"touching": 27, "near": 43, "far": 62}[scene.distance or "near"]
    figure_x = 56 - gap // 2 if scene.side < 0 else 56 + gap // 2
    object_x = figure_x - scene.side * gap
    _OBJECTS[scene.object](pen, object_x, base, rng)
    reach = -scene.side if scene.distance == "touching" else 0
    _figure(pen, scene.posture, scene.face, figure_x, base + 2, reach, rng)


def _as_ink(image: Image.Image) -> Image.Image:
    """A drawing on paper: dark outlines over a washed-out, few-coloured picture."""
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 - min(255, value * 4))
    edges = edges.filter(ImageFilter.MinFilter(3))
    wash = ImageOps.posterize(image.filter(ImageFilter.GaussianBlur(5)), 3)
    paper = Image.new("RGB", image.size, (244, 232, 205))
    washed = Image.blend(ImageOps.grayscale(wash).convert("RGB"), wash, 0.6)
    return ImageChops.multiply(Image.blend(paper, washed, 0.65), edges.convert("RGB"))


def _sky_sign(pen: _Pen, light: str, x: float, y: float, rng: random.Random) -> None:
    """Sun, low sun, clouds, lightning, or moon and stars."""
    if light == "sunny":
        for angle in range(0, 360, 45):
            pen.line([_around(x, y, 11, angle), _around(x, y, 15, angle)], (255, 226, 60))
        pen.circle(x, y, 9, (255, 226, 60))
    elif light == "golden":
        pen.circle(x, 54, 13, (255, 244, 190))
    elif light == "night":
        for _ in range(9):
            pen.circle(rng.uniform(3, 109), rng.uniform(3, 50), 0.9, (255, 255, 235))
        pen.circle(x, y, 8, (250, 246, 210))
        pen.circle(x + 4, y - 2, 7, (14, 17, 50))
    else:
        cloud = (226, 228, 231) if light == "overcast" else (34, 30, 48)
        for centre in (x, x + 34 if x < 56 else x - 34):
            for dx, dy, radius in ((-9, 2, 6), (0, -2, 8), (9, 2, 6)):
                pen.circle(centre + dx, y + dy, radius, cloud)
        if light == "stormy":
            bolt = [(x + 2, y + 6), (x - 4, y + 17), (x + 1, y + 17), (x - 3, y + 30)]
            pen.line(bolt, (255, 244, 120), 2.4)


def _ground_sign(pen: _Pen, ground: str, colour: Colour, rng: random.Random) -> None:
    """Grass, sea, snow drifts, or a road with its line."""
    darker = (colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4)
    if ground == "meadow":
        for _ in range(26):
            x, y = rng.uniform(2, 110), rng.uniform(HORIZON + 6, 110)
            pen.line([(x - 1.5, y - 4), (x, y), (x + 1.5, y - 4)], darker, 1.0)
    elif ground == "beach":
        sea = ((colour[0] + 20) // 4, (colour[1] + 130) // 3, min(255, colour[2] + 70))
        pen.rectangle(0, HORIZON, 112, HORIZON + 9, sea)
        for x in range(4, 112, 16):
            pen.arc(x + rng.uniform(-2, 2), HORIZON + 5, 4, 200, 340, (240, 248, 255), 1.0)
    elif ground == "snow":
        lighter = (min(255, colour[0] + 14), min(255, colour[1] + 14), min(255, colour[2] + 10))
        for x in (8, 50, 96):
            pen.ellipse(x - 32, HORIZON - 5, x + 32, HORIZON + 16, lighter)
        for _ in range(22):
            pen.circle(rng.uniform(2, 110), rng.uniform(2, 110), 1.0, (255, 255, 255))
    else:
        for x in (0, 30, 70, 96):
            top = HORIZON - rng.uniform(12, 24)
            pen.rectangle(x, top, x + 14, HORIZON, darker)
        for x in range(2, 112, 24):
            pen.rectangle(x, 101, x + 13, 103.5, (236, 220, 120))


def _around(x: float, y: float, radius: float, degrees: float) -> tuple[float, float]:
    """The point on a circle, clockwise from the right."""
    angle = math.radians(degrees)
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def _balloon(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    for dx, dy, colour in ((-7, -26, (235, 64, 70)), (7, -30, (250, 205, 50)), (0, -38, (80, 130, 240))):
        pen.line([(x, base), (x + dx, base + dy)], DARK, 0.8)
        pen.ellipse(x + dx - 6.5, base + dy - 8, x + dx + 6.5, base + dy + 7, colour)
        pen.circle(x + dx - 2, base + dy - 3, 1.5, (255, 255, 255))


def _firework(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    pen.line([(x, base), (x, base - 14)], (255, 240, 170), 1.6)
    turn = rng.uniform(0, 30)
    for step, angle in enumerate(range(0, 360, 30)):
        colour = ((255, 70, 190), (255, 240, 90), (90, 255, 220))[step % 3]
        start, end = (_around(x, base - 28, radius, angle + turn) for radius in (4, 14))
        pen.line([start, end], colour, 2.0)
        pen.circle(*end, 1.7, colour)


def _mountain(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    peak = base - 40 - rng.uniform(0, 4)
    pen.polygon([(x - 19, base), (x, peak), (x + 19, base)], (92, 104, 132))
    pen.polygon([(x, base), (x, peak), (x + 19, base)], (66, 76, 104))
    pen.polygon([(x - 6, peak + 13), (x, peak), (x + 6, peak + 13), (x, peak + 10)], (255, 255, 255))


def _flower(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    for dx, height in ((-10, 14), (0, 23), (10, 16)):
        pen.line([(x + dx, base), (x + dx, base - height)], (40, 120, 50), 1.8)
        pen.ellipse(x + dx, base - height / 2 - 2, x + dx + 6, base - height / 2 + 1, (40, 120, 50))
        for angle in range(0, 360, 72):
            pen.circle(*_around(x + dx, base - height, 4.2, angle), 3.1, (246, 130, 190))
        pen.circle(x + dx, base - height, 2.6, (255, 225, 70))


def _fire(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    lean = rng.uniform(-3, 3)
    for width, height, colour in ((13, 34, (226, 50, 24)), (9, 24, (250, 140, 30)), (5, 14, (255, 232, 110))):
        pen.polygon(
            [
                (x - width, base),
                (x - width * 0.9, base - height * 0.45),
                (x - width * 0.45, base - height * 0.35),
                (x + lean, base - height),
                (x + width * 0.4, base - height * 0.4),
                (x + width * 0.95, base - height * 0.6),
                (x + width, base),
            ],
            colour,
        )
    pen.line([(x - 14, base), (x + 14, base - 3)], (84, 52, 30), 3.4)


def _gravestone(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    stone = (158, 158, 164)
    pen.rectangle(x - 11, base - 22, x + 11, base, stone)
    pen.ellipse(x - 11, base - 33, x + 11, base - 11, stone)
    pen.line([(x, base - 28), (x, base - 10)], (58, 58, 64), 2.6)
    pen.line([(x - 6, base - 22), (x + 6, base - 22)], (58, 58, 64), 2.6)
    pen.ellipse(x - 14, base - 3, x + 14, base + 2, (84, 64, 46))


def _snake(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    skin = (64, 150, 40)
    for level, half in enumerate((15, 12, 9)):
        y = base - 3 - 5 * level
        pen.ellipse(x - half, y - 4, x + half, y + 4, skin, (24, 70, 20))
    pen.line([(x, base - 15), (x - 5, base - 22), (x + 3, base - 29)], skin, 4.6)
    pen.ellipse(x - 2, base - 34, x + 10, base - 26, skin)
    pen.circle(x + 5, base - 31, 1.3, (255, 240, 60))
    pen.line([(x + 9, base - 29), (x + 15, base - 28)], (220, 20, 40), 1.4)


def _garbage(pen: _Pen, x: float, base: float, rng: random.Random) -> None:
    pen.ellipse(x - 14, base - 20, x + 14, base + 1, (52, 50, 46))
    pen.polygon([(x - 5, base - 18), (x, base - 27), (x + 5, base - 18)], (52, 50, 46))
    pen.ellipse(x - 20, base - 6, x - 8, base + 2, (138, 120, 40))
    pen.rectangle(x + 10, base - 8, x + 17, base + 1, (150, 84, 50))
    for dx, dy in ((-9, -28), (8, -30), (13, -22), (-15, -20)):
        pen.circle(x + dx + rng.uniform(-1, 1), base + dy, 1.4, (20, 20, 20))
    for dx in (-4, 4):
        pen.arc(x + dx, base - 36, 4, 90, 270, (120, 150, 40), 1.6)


# Each stands on `base`, about 30 units high.
_OBJECTS = {
    **{"balloon": _balloon, "firework": _firework, "mountain": _mountain, "flower": _flower},
    **{"fire": _fire, "gravestone": _gravestone, "snake": _snake, "garbage": _garbage},
}


def _figure(
    pen: _Pen, posture: str, face: str, x: float, base: float, reach: int, rng: random.Random
) -> None:
    """A person on `base`; `reach` (-1, 0, 1) stretches one arm to that side."""
    shirt = rng.choice(((200, 60, 60), (60, 90, 190), (250, 250, 250), (120, 60, 150)))
    legs: Colour = (44, 44, 70)
    if posture == "lying":
        pen.line([(x - 14, base - 4), (x + 4, base - 5)], shirt, 8)
        pen.line([(x + 4, base - 4), (x + 18, base - 3)], legs, 5)
        _head(pen, face, x - 10, base - 15)
        _arm(pen, x, base - 9, reach, 12, 0)
        return
    top, hip = {"standing": (26, 14), "jumping": (34, 22), "crouching": (14, 5)}[posture]
    if posture == "crouching":
        pen.line(
            [(x - 8, base), (x - 9, base - 7), (x, base - 4), (x + 9, base - 7), (x + 8, base)], legs, 4.5
        )
    else:
        spread, foot = (5, base) if posture == "standing" else (12, base - 8)
        pen.line([(x - spread, foot), (x, base - hip), (x + spread, foot)], legs, 4.5)
    pen.line([(x, base - hip), (x, base - top)], shirt, 10)
    for side in (-1, 1):
        if posture == "jumping":
            pen.line([(x, base - top + 1), (x + side * 15, base - top - 15)], SKIN, 3.4)
        else:
            _arm(pen, x, base - top + 3, side, 8, 9)
    _arm(pen, x, base - top + 4, reach, 19, -2)
    _head(pen, face, x, base - top - 10)


def _arm(pen: _Pen, x: float, y: float, side: int, length: float, drop: float) -> None:
    if side:
        pen.line([(x + side * 3, y), (x + side * length, y + drop)], SKIN, 3.2)


def _head(pen: _Pen, face: str, x: float, y: float) -> None:
    pen.circle(x, y, 12, FACE_SKIN.get(face, SKIN), (92, 62, 40))
    for side in (-1, 1):
        pen.circle(x + side * 4.5, y - 3.5, 1.8, DARK)
    if face == "smiling":
        pen.arc(x, y, 7.5, 15, 165, (190, 20, 40), 3.0)
    elif face == "crying":
        pen.arc(x, y + 10, 5, 200, 340, DARK, 2.2)
        for side in (-1, 1):
            pen.line([(x + side * 5, y - 0.5), (x + side * 5.5, y + 8)], (50, 130, 250), 3.2)
    elif face == "shouting":
        pen.ellipse(x - 4.5, y + 0.5, x + 4.5, y + 10, (110, 10, 20))
        for side in (-1, 1):
            pen.line([(x + side * 7, y - 8), (x + side * 2, y - 5.5)], DARK, 1.8)
    else:
        pen.line([(x - 4, y + 5.5), (x + 4, y + 5.5)], DARK, 1.8)


def _mark(pen: _Pen, mark: str, rng: random.Random) -> None:
    """Hearts or scratches over the whole picture."""
    if mark == "hearts":
        for x, y in ((12, 40), (98, 34), (56, 8), (30, 104), (86, 105)):
            _heart(pen, x + rng.uniform(-3, 3), y + rng.uniform(-3, 3))
    elif mark == "scratches":
        for x in (8, 42, 76):
            x0, y0 = x + rng.uniform(-3, 3), rng.uniform(2, 12)
            for step in range(3):
                start = (x0 + 6 * step, y0)
                pen.line([start, (start[0] + 18, y0 + 30)], (150, 0, 12), 1.6)


def _heart(pen: _Pen, x: float, y: float) -> None:
    colour = (255, 50, 120)
    pen.circle(x - 2.6, y, 3.2, colour)
    pen.circle(x + 2.6, y, 3.2, colour)
    pen.polygon([(x - 5.6, y + 1.2), (x + 5.6, y + 1.2), (x, y + 8)], colour)


def _strokes(pen: _Pen, kind: str, colour: Colour, rng: random.Random) -> None:
    """Waves, spikes or dots across an abstract picture."""
    for row in range(4):
        y = 16 + 26 * row + rng.uniform(-4, 4)
        if kind == "waves":
            points = [(x, y + 6 * math.sin(x / 9 + row)) for x in range(0, 113, 4)]
            pen.line(points, colour, 2.4)
        elif kind == "spikes":
            points = [(x, y + (9 if index % 2 else -9)) for index, x in enumerate(range(0, 113, 8))]
            pen.line(points, colour, 2.2)
        else:
            for x in range(8, 112, 16):
                pen.circle(x + rng.uniform(-3, 3), y + rng.uniform(-5, 5), rng.uniform(2, 5), colour)
