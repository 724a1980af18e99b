"""Pictures of things whose places are known: what is drawn where, without hiding anything.

    Spec --place--> Thing (its box)      Scene = picture + things

A layout is a name "arrangement/spacing" that belongs to one side. Boxes are of what is visible, in whole pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from qwen3vl.train.synthetic.icons import DRAWINGS, NAMES
from qwen3vl.train.synthetic.palette import BASES, backgrounds, paint_background, shade_of, standing_out
from qwen3vl.train.synthetic.sample import PixelBox, Side
from qwen3vl.train.synthetic.shapes import SHAPES, Style, draw_tile, upright
from qwen3vl.train.synthetic.sides import combined

ARRANGEMENTS = ("scatter", "grid", "row", "column", "ring", "diagonal", "clusters", "halves")
SPACINGS = ("tight", "loose", "ragged", "centred", "small", "crowded")
LAYOUTS = tuple(f"{arrangement}/{spacing}" for arrangement in ARRANGEMENTS for spacing in SPACINGS)
SHAPE_NAMES = tuple(SHAPES)
GAP = 2  # pixels between any two boxes, but where things are crowded
CROWDED = 0.84  # of the distance at which two things touch: a corner of one may be covered
ROOM = 40  # pixels of a picture's side for each thing; what the least sizes need
LEAST_SHAPE, LEAST_ICON = 10, 17  # pixels; below these a star cannot be told from a circle, a pear from an apple


@dataclass(frozen=True, slots=True)
class Spec:
    """What shall be drawn; `size` is relative to the room there is, 0..1."""

    name: str
    colour: str
    size: float = 0.8

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name}"

    @property
    def least(self) -> float:
        return float(LEAST_SHAPE if self.name in SHAPES else LEAST_ICON)


@dataclass(frozen=True, slots=True)
class Thing:
    """What was drawn."""

    name: str
    colour: str
    box: PixelBox

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name}"

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def extent(self) -> float:
        """The longer side in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and all that is in it."""

    picture: Image.Image
    things: tuple[Thing, ...]
    theme: str
    layout: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Room for one thing: a square around a centre, in pixels."""

    x: float
    y: float
    side: float


@lru_cache(maxsize=2)
def layouts(side: Side) -> tuple[str, ...]:
    return combined(side, "scene", ARRANGEMENTS, SPACINGS)


def draw_size(rng: random.Random, count: int = 1, low: int = 72, high: int = 448) -> tuple[int, int]:
    """(width, height) with room for `count` things, mostly small: the middle of all sides is about 180 pixels."""
    low = max(low, math.ceil(ROOM * math.sqrt(count)))
    side = low * (max(high, low) / low) ** rng.random()
    ratio = rng.choice((1.0, 1.0, 4 / 3, 3 / 4, 3 / 2, rng.uniform(0.6, 1.7)))
    return round(side * min(1.0, ratio)), round(side * min(1.0, 1 / ratio))


def draw_theme(rng: random.Random, side: Side) -> tuple[str, tuple[str, ...]]:
    """A background, and the colours that stand out from it."""
    theme = rng.choice(backgrounds(side))
    return theme, standing_out(BASES[theme.split("/")[1]])


def draw_names(rng: random.Random, count: int) -> list[str]:
    """Distinct kinds of things: shapes in half of all pictures, icons and both in the others."""
    pool: Sequence[str] = rng.choice((SHAPE_NAMES, SHAPE_NAMES, NAMES, NAMES[len(SHAPE_NAMES) :]))
    return rng.sample(pool, count)


def compose(
    rng: random.Random, side: Side, specs: Sequence[Spec], size: tuple[int, int], theme: str, layout: str | None = None
) -> Scene:
    """The specs drawn in a layout of that side, in random places of it; the order of `things` is that of `specs`."""
    layout = layout or rng.choice(layouts(side))
    picture = paint_background(rng, theme, size)
    cells = cells_of(rng, layout, specs, size)
    style = Style.draw(rng)
    things = [put(rng, picture, spec, cell, style) for spec, cell in zip(specs, cells, strict=True)]
    return Scene(picture, tuple(things), theme, layout)


def put(rng: random.Random, picture: Image.Image, spec: Spec, cell: Cell, style: Style) -> Thing:
    """Draws one thing in the middle of its cell."""
    tile = draw_tile(DRAWINGS[spec.name], shade_of(rng, spec.colour), round(cell.side), upright(spec.name, style))
    side = max(tile.size)
    if side > cell.side:  # turned
        tile.thumbnail((int(cell.side), int(cell.side)))
    left, top = round(cell.x - tile.width / 2), round(cell.y - tile.height / 2)
    left, top = max(0, min(left, picture.width - tile.width)), max(0, min(top, picture.height - tile.height))
    picture.paste(tile, (left, top), tile)
    return Thing(spec.name, spec.colour, (left, top, left + tile.width, top + tile.height))


def cells_of(rng: random.Random, layout: str, specs: Sequence[Spec], picture: tuple[int, int]) -> list[Cell]:
    """One cell for each spec: none outside, none below its least size, no two overlapping (but see CROWDED)."""
    arrangement, spacing = layout.split("/")
    scale = {"loose": 0.72, "ragged": 0.62, "small": 0.5}.get(spacing, 1.0)
    sizes = [spec.size * scale for spec in specs]
    least = [spec.least for spec in specs]
    margin = 0.16 if spacing == "centred" else 0.02
    slots: list[Cell] = []
    if arrangement not in ("scatter", "clusters"):
        slots = _slots(rng, arrangement, len(specs), picture[0] * (1 - 2 * margin), picture[1] * (1 - 2 * margin))
    if slots and min(slot.side for slot in slots) - GAP >= max(least):
        cells = [_inside(rng, *fit, spacing) for fit in zip(slots, sizes, least, strict=True)]
    else:  # also where rows would be too narrow
        margin = 0.02
        width, height = picture[0] * (1 - 2 * margin), picture[1] * (1 - 2 * margin)
        cells = _scattered(rng, sizes, least, (width, height), arrangement == "clusters", spacing == "crowded")
    return [Cell(c.x + picture[0] * margin, c.y + picture[1] * margin, c.side) for c in cells]


def _inside(rng: random.Random, slot: Cell, size: float, least: float, spacing: str) -> Cell:
    side = max(least, (slot.side - GAP) * size)
    free = max(0.0, slot.side - GAP - side) / 2 * (1.0 if spacing == "ragged" else 0.35)
    return Cell(slot.x + rng.uniform(-free, free), slot.y + rng.uniform(-free, free), side)


def _slots(rng: random.Random, arrangement: str, count: int, width: float, height: float) -> list[Cell]:
    """Squares that do not overlap, in random order."""
    if arrangement == "row":
        slots = _grid(count, 1, width, height)
    elif arrangement == "column":
        slots = _grid(1, count, width, height)
    elif arrangement == "diagonal":
        down = rng.random() < 0.5
        rows = _grid(count, count, width, height)
        slots = [rows[i * count + (i if down else count - 1 - i)] for i in range(count)]
    elif arrangement == "ring" and count > 2:
        slots = _ring(rng, count, width, height)
    else:
        across = max(1, min(count, round(math.sqrt(count * width / height))))
        down_ = math.ceil(count / across)
        extra = rng.randint(0, 1) if arrangement == "halves" else 0
        slots = _grid(across + extra, down_ + extra, width, height)
        if arrangement == "halves":  # filled from one side
            slots.sort(key=lambda c: c.x if width > height else c.y, reverse=rng.random() < 0.5)
            slots = slots[:count]
    return rng.sample(slots, count)


def _grid(across: int, down: int, width: float, height: float) -> list[Cell]:
    side = min(width / across, height / down)
    return [
        Cell((i + 0.5) * width / across, (j + 0.5) * height / down, side) for j in range(down) for i in range(across)
    ]


def _ring(rng: random.Random, count: int, width: float, height: float) -> list[Cell]:
    """On an ellipse; the side is what the closest neighbours leave (a square's diagonal is sqrt 2)."""
    turn = rng.uniform(0, 2 * math.pi)
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    places = [(width * (0.5 + 0.36 * math.cos(a)), height * (0.5 + 0.36 * math.sin(a))) for a in angles]
    near = min(math.dist(a, b) for i, a in enumerate(places) for b in places[:i])
    side = min(near / math.sqrt(2), 0.28 * min(width, height))
    return [Cell(x, y, side) for x, y in places]


def _scattered(
    rng: random.Random, sizes: Sequence[float], least: Sequence[float], room: tuple[float, float], clustered: bool,
    crowded: bool,
) -> list[Cell]:  # fmt: skip
    """Anywhere, the largest first; shrunk until all find room."""
    unit = 0.75 * math.sqrt(room[0] * room[1] / max(3, len(sizes)))
    hearts = [(rng.random(), rng.random()) for _ in range(rng.randint(1, 3))] if clustered else []
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    while True:
        found: dict[int, Cell] = {}
        for i in order:
            side = max(least[i], unit * sizes[i])
            place = _free_place(rng, side, room, list(found.values()), hearts, CROWDED if crowded else 1.0)
            if place is None:
                break
            found[i] = place
        if len(found) == len(sizes):
            return [found[i] for i in range(len(sizes))]
        unit *= 0.8
        hearts = hearts if unit > 8 else []
        assert unit > 1e-12, f"{len(sizes)} things find no room in {room}: see draw_size"


def _free_place(
    rng: random.Random, side: float, room: tuple[float, float], taken: Sequence[Cell],
    hearts: Sequence[tuple[float, float]], closeness: float,
) -> Cell | None:  # fmt: skip
    if side > min(room):
        return None
    for _ in range(30):
        u, v = rng.random(), rng.random()
        if hearts:
            u, v = _near(rng, rng.choice(hearts))
        cell = Cell(side / 2 + u * (room[0] - side), side / 2 + v * (room[1] - side), side)
        if all(_apart(cell, other, closeness) for other in taken):
            return cell
    return None


def _near(rng: random.Random, heart: tuple[float, float]) -> tuple[float, float]:
    u, v = heart[0] + rng.gauss(0, 0.16), heart[1] + rng.gauss(0, 0.16)
    return min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)


def _apart(a: Cell, b: Cell, closeness: float) -> bool:
    reach = (a.side + b.side) / 2 * closeness + GAP
    return abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach
