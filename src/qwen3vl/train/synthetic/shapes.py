"""Shapes and icons of our own, drawn with Pillow in a unit square and anti-aliased by drawing them larger.

    draw_tile(name, colour, side, ...)   an RGBA tile, cut to what is visible

A drawing calls the pen in roles: "main" is the colour that the thing is named by and covers most of it; "dark",
"light", "white" and "ink" are its details.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from qwen3vl.train.synthetic.palette import Rgb, is_dark, mix

XY = tuple[float, float]


class Pen:
    """Draws in 0..1 x 0..1, y down, on an RGBA tile."""

    def __init__(self, side: int, colours: dict[str, Rgb], outline: Rgb | None, width: int) -> None:
        # Transparent pixels carry the edge's colour: shrinking the tile must not mix black into it.
        self.tile = Image.new("RGBA", (side, side), (*(outline or colours["main"]), 0))
        self._draw = ImageDraw.Draw(self.tile)
        self._side = side - 1
        self._colours = colours
        self._outline = outline
        self._width = width if outline else 0

    def poly(self, role: str, *points: XY) -> None:
        self._draw.polygon([self._at(p) for p in points], self._colours[role], self._outline, self._width)

    def oval(self, role: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._draw.ellipse(self._box(x1, y1, x2, y2), self._colours[role], self._outline, self._width)

    def rect(self, role: str, x1: float, y1: float, x2: float, y2: float, radius: float = 0.0) -> None:
        box = self._box(x1, y1, x2, y2)
        self._draw.rounded_rectangle(box, radius * self._side, self._colours[role], self._outline, self._width)

    def pie(self, role: str, x1: float, y1: float, x2: float, y2: float, start: float, end: float) -> None:
        """Degrees clockwise from three o'clock; a chord, not a slice."""
        box = self._box(x1, y1, x2, y2)
        self._draw.chord(box, start, end, self._colours[role], self._outline, self._width)

    def line(self, role: str, width: float, *points: XY) -> None:
        thick = max(1, round(width * self._side))
        self._draw.line([self._at(p) for p in points], self._colours[role], thick, joint="curve")

    def arc(
        self, role: str, width: float, x1: float, y1: float, x2: float, y2: float, start: float, end: float
    ) -> None:
        thick = max(1, round(width * self._side))
        self._draw.arc(self._box(x1, y1, x2, y2), start, end, self._colours[role], thick)

    def hole(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """An oval of nothing."""
        clear = (*(self._outline or self._colours["main"]), 0)
        self._draw.ellipse(self._box(x1, y1, x2, y2), clear, self._outline, self._width)

    def _at(self, point: XY) -> XY:
        return point[0] * self._side, point[1] * self._side

    def _box(self, x1: float, y1: float, x2: float, y2: float) -> list[float]:
        return [x1 * self._side, y1 * self._side, x2 * self._side, y2 * self._side]


Drawing = Callable[[Pen], None]


@dataclass(frozen=True, slots=True)
class Style:
    """How a thing is drawn; `turn` in degrees, counter-clockwise."""

    outline: bool = False
    shaded: bool = False
    turn: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random) -> Style:
        turn = rng.uniform(-18, 18) if rng.random() < 0.2 else 0.0
        return cls(rng.random() < 0.3, rng.random() < 0.25, turn)


def ring_of(count: int, radius: float = 0.5, turn: float = -90.0, centre: XY = (0.5, 0.5)) -> list[XY]:
    """The corners of a regular polygon, the first at `turn` degrees clockwise from three o'clock."""
    angles = [math.radians(turn + 360 * i / count) for i in range(count)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def star_of(points: int, inner: float, radius: float = 0.5, centre: XY = (0.5, 0.5)) -> list[XY]:
    outside, inside = ring_of(points, radius, -90, centre), ring_of(points, inner, -90 + 180 / points, centre)
    return [p for pair in zip(outside, inside, strict=True) for p in pair]


def heart_of(steps: int = 48) -> list[XY]:
    """x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled into the unit square."""
    points = []
    for i in range(steps):
        t = 2 * math.pi * i / steps
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + 16 * math.sin(t) ** 3 / 32, 0.42 - y / 30))
    return points


def _moon(pen: Pen) -> None:
    bite, radius = (0.74, 0.5), 0.4
    outer = [p for p in ring_of(72, turn=0) if math.dist(p, bite) > radius]
    inner = [p for p in ring_of(72, radius, 0, bite) if math.dist(p, (0.5, 0.5)) < 0.5]
    pen.poly("main", *outer, *reversed(inner))


def _arrow(pen: Pen) -> None:
    pen.poly("main", (0, 0.34), (0.55, 0.34), (0.55, 0.1), (1, 0.5), (0.55, 0.9), (0.55, 0.66), (0, 0.66))


def _ring(pen: Pen) -> None:
    pen.oval("main", 0, 0, 1, 1)
    pen.hole(0.24, 0.24, 0.76, 0.76)


def _cross(pen: Pen) -> None:
    a, b = 0.32, 0.68
    pen.poly(
        "main", (a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)
    )  # fmt: skip


SHAPES: dict[str, Drawing] = {
    "circle": lambda pen: pen.oval("main", 0, 0, 1, 1),
    "square": lambda pen: pen.rect("main", 0.02, 0.02, 0.98, 0.98),
    "triangle": lambda pen: pen.poly("main", (0.5, 0.03), (1, 0.97), (0, 0.97)),
    "rectangle": lambda pen: pen.rect("main", 0, 0.24, 1, 0.76),
    "oval": lambda pen: pen.oval("main", 0, 0.2, 1, 0.8),
    "diamond": lambda pen: pen.poly("main", (0.5, 0), (0.86, 0.5), (0.5, 1), (0.14, 0.5)),
    "pentagon": lambda pen: pen.poly("main", *ring_of(5)),
    "hexagon": lambda pen: pen.poly("main", *ring_of(6, turn=0)),
    "star": lambda pen: pen.poly("main", *star_of(5, 0.2)),
    "heart": lambda pen: pen.poly("main", *heart_of()),
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
    "semicircle": lambda pen: pen.pie("main", 0, 0.25, 1, 1.25, 180, 360),
    "arrow": _arrow,
}
OUTLINED = 28  # pixels from which an outline leaves enough of a star's points
UPRIGHT = frozenset({"square", "diamond", "arrow", "rectangle", "semicircle", "pentagon", "cross"})
"""Turned, these would look like something else or point elsewhere."""


def colours_of(main: Rgb) -> dict[str, Rgb]:
    """The roles' colours for a thing of this colour."""
    if max(main) < 70:
        dark, light = (95, 95, 95), (150, 150, 150)
    else:
        dark, light = mix(main, (0, 0, 0), 0.42), mix(main, (255, 255, 255), 0.55)
    light = light if min(main) < 235 else (214, 214, 214)
    return {"main": main, "dark": dark, "light": light, "white": (255, 255, 255), "ink": (30, 30, 34)}


def draw_tile(drawing: Drawing, colour: Rgb, side: int, style: Style) -> Image.Image:
    """An RGBA tile of at most side x side pixels, cut to what is visible (alpha of a half or more)."""
    scale = 4 if side <= 32 else 2
    edge = None
    if style.outline and side >= OUTLINED:
        edge = mix(colour, (255, 255, 255), 0.45) if is_dark(colour) else mix(colour, (0, 0, 0), 0.62)
    pen = Pen(side * scale, colours_of(colour), edge, max(scale, round(side * scale * 0.035)))
    drawing(pen)
    tile = pen.tile
    if style.turn:
        tile = tile.rotate(style.turn, Image.Resampling.BILINEAR, expand=True)
    tile = tile.reduce(scale)
    if style.shaded:
        tile = _shade(tile)
    box = tile.getchannel("A").point(_HALF).getbbox()
    assert box is not None
    return tile.crop(box)


_HALF = [255 if a >= 128 else 0 for a in range(256)]
_SOFT = [a * 45 // 255 for a in range(256)]


def _shade(tile: Image.Image) -> Image.Image:
    """Darker towards the bottom."""
    alpha = tile.getchannel("A")
    shadow = Image.linear_gradient("L").resize(tile.size).point(_SOFT)
    colours = tile.convert("RGB")
    colours.paste((0, 0, 0), (0, 0, *tile.size), shadow)
    colours.putalpha(alpha)
    return colours


def upright(name: str, style: Style) -> Style:
    return replace(style, turn=0.0) if name in UPRIGHT else style
