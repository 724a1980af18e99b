"""What happens in a clip: acts, each in its own place, that draw themselves on every frame and know when they happen.

Times are frame numbers: an act holds from frame `first` up to, and without, frame `after`. So the moment is from the
time of the first frame that shows it to the time of the first that no longer does (or to the end of the clip).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw

from qwen3vl.train.synthetic.arrange import Cell, Spec
from qwen3vl.train.synthetic.faces import Kind, pick_face
from qwen3vl.train.synthetic.icons import DRAWINGS, article
from qwen3vl.train.synthetic.palette import Rgb, is_dark, shade_of
from qwen3vl.train.synthetic.sample import PixelBox, Side
from qwen3vl.train.synthetic.shapes import Style, draw_tile
from qwen3vl.train.synthetic.widgets import font_at

PLAIN: tuple[Kind, ...] = ("plain",)
STEP = 4.0  # pixels from frame to frame: what can be seen of a movement


@dataclass(frozen=True, slots=True)
class Happening:
    """One event.

    Attributes:
        first, after: frames; equal for an instant.
        said: a sentence; the answer's text.
        when: a question that this and its repetitions answer.
        begins, ends: "At which second does ...?" for its first and last boundary; "" where there is no such moment.
        box: where to look.
    """

    first: int
    after: int
    said: str
    when: str
    begins: str
    ends: str
    box: PixelBox


@dataclass(frozen=True, slots=True)
class Act:
    """What draws itself, and its events."""

    draw: Callable[[Image.Image, int], None]
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """What acts need to know. `ground` is the colour behind them; `clear` are the colours that stand out from it."""

    side: Side
    num_frames: int
    size: tuple[int, int]
    ground: Rgb
    clear: tuple[str, ...]


def span(rng: random.Random, num_frames: int) -> tuple[int, int]:
    """first, after: at least two frames, beginning behind frame 0; one in five lasts to the end."""
    first = rng.randint(1, num_frames - 3)
    longest = max(2, min(num_frames - first, num_frames // 2))
    after = num_frames if rng.random() < 0.2 else min(num_frames, first + rng.randint(2, longest))
    return first, after


def spans(rng: random.Random, num_frames: int) -> list[tuple[int, int]]:
    """One, or in a quarter of all cases two with room between them."""
    if rng.random() < 0.25 and num_frames >= 16:
        half = num_frames // 2
        second = span(rng, num_frames - half - 1)
        return [span(rng, half), (second[0] + half + 1, second[1] + half + 1)]
    return [span(rng, num_frames)]


def _tile(rng: random.Random, name: str, colour: str, side: float) -> Image.Image:
    return draw_tile(DRAWINGS[name], shade_of(rng, colour), round(side), Style())


def _paste(picture: Image.Image, tile: Image.Image, x: float, y: float) -> None:
    picture.paste(tile, (round(x - tile.width / 2), round(y - tile.height / 2)), tile)


def _around(cell: Cell) -> PixelBox:
    half = cell.side / 2
    return cell.x - half, cell.y - half, cell.x + half, cell.y + half


def appear(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A thing is there for a while."""
    tile = _tile(rng, spec.name, spec.colour, cell.side)
    times = spans(rng, stage.num_frames)

    def draw(picture: Image.Image, frame: int) -> None:
        if any(first <= frame < after for first, after in times):
            _paste(picture, tile, cell.x, cell.y)

    words = spec.words
    return Act(draw, tuple(
        Happening(first, after, f"{article(words).capitalize()} is shown.", f"When is the {words} shown?",
                  f"does the {words} appear", f"does the {words} disappear", _around(cell))
        for first, after in times
    ))  # fmt: skip


def recolour(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A thing has another colour for a while."""
    new = rng.choice([c for c in stage.clear if c != spec.colour])
    tiles = [_tile(rng, spec.name, colour, cell.side) for colour in (spec.colour, new)]
    first, after = span(rng, stage.num_frames)

    def draw(picture: Image.Image, frame: int) -> None:
        _paste(picture, tiles[first <= frame < after], cell.x, cell.y)

    name = spec.name
    begins, ends = f"does the {name} turn {new}", f"does the {name} turn {spec.colour} again"
    said, when = f"The {name} is {new}.", f"When is the {name} {new}?"
    return Act(draw, (Happening(first, after, said, when, begins, ends, _around(cell)),))


def light(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A lamp is yellow while it is on; in half of all clips the picture is dark while it is off."""
    tiles = [_tile(rng, "lamp", colour, cell.side) for colour in ("gray", "yellow")]
    times = spans(rng, stage.num_frames)
    dims = rng.random() < 0.5
    black = Image.new("RGB", stage.size)

    def draw(picture: Image.Image, frame: int) -> None:
        on = any(first <= frame < after for first, after in times)
        if dims and not on:
            picture.paste(Image.blend(picture, black, 0.55))
        _paste(picture, tiles[on], cell.x, cell.y)

    return Act(draw, tuple(
        Happening(first, after, "The light is on.", "When is the light on?", "is the light turned on",
                  "is the light turned off", _around(cell))
        for first, after in times
    ))  # fmt: skip


def shown_number(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A number is shown for a while."""
    text = str(rng.randint(0, 99))
    font = font_at(pick_face(rng, stage.side, PLAIN).path, round(cell.side * 0.75))
    ink = (255, 255, 255) if is_dark(stage.ground) else (0, 0, 0)
    first, after = span(rng, stage.num_frames)

    def draw(picture: Image.Image, frame: int) -> None:
        if first <= frame < after:
            ImageDraw.Draw(picture).text((cell.x, cell.y), text, ink, font, "mm")

    said, name = f"The number {text} is shown.", f"the number {text}"
    happening = Happening(first, after, said, f"When is {name} shown?", f"does {name} appear", f"does {name} disappear",
                          _around(cell))  # fmt: skip
    return Act(draw, (happening,))


def move(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A thing moves across to the other side: at rest before frame `first` and from frame `after` - 1 on."""
    tile = _tile(rng, spec.name, spec.colour, min(cell.side * 0.8, stage.size[0] * 0.3))
    edge = tile.width / 2 + 2
    ends = [edge, stage.size[0] - edge]
    steps = min(int((ends[1] - ends[0]) / STEP), max(3, stage.num_frames // 2))
    first = rng.randint(1, max(1, stage.num_frames - steps - 1))
    after = min(stage.num_frames, first + rng.randint(3, max(3, steps)))
    right = rng.random() < 0.5
    start, end = ends if right else ends[::-1]

    def draw(picture: Image.Image, frame: int) -> None:
        # Frame `first` shows the first step already, frame `after` - 1 the last one.
        part = min(max((frame - first + 1) / (after - first), 0.0), 1.0)
        _paste(picture, tile, start + (end - start) * part, cell.y)

    said = f"The {spec.words} moves {'to the right' if right else 'to the left'}."
    happening = Happening(first, after, said, f"When does the {spec.words} move?",
                          f"does the {spec.words} start to move", "", _row(cell, stage))  # fmt: skip
    return Act(draw, (happening,))


def _row(cell: Cell, stage: Stage) -> PixelBox:
    return 0, cell.y - cell.side / 2, stage.size[0], cell.y + cell.side / 2


def bounce(rng: random.Random, stage: Stage, cell: Cell, spec: Spec) -> Act:
    """A ball rolls to a wall and back to where it rests, once or more; each touch is an instant, of one frame."""
    radius = max(4.0, min(cell.side * 0.35, stage.size[0] * 0.13))
    ball = _tile(rng, "circle", spec.colour, radius * 2)
    rolls = rng.randint(2, 3)  # frames to the wall, and back
    trips = rng.randint(1, min(3, stage.num_frames // (2 * rolls + 2)))
    room = stage.num_frames // trips
    hits = [room * i + rng.randint(rolls, room - rolls - 1) for i in range(trips)]
    walls = [rng.choice(("left", "right")) for _ in hits]
    rest = stage.size[0] * rng.uniform(0.4, 0.6)
    ends = {"left": radius, "right": stage.size[0] - radius}

    def draw(picture: Image.Image, frame: int) -> None:
        hit, wall = min(zip(hits, walls, strict=True), key=lambda pair: abs(pair[0] - frame))
        near = max(0.0, 1 - abs(frame - hit) / rolls)
        _paste(picture, ball, rest + (ends[wall] - rest) * near, cell.y)

    return Act(draw, tuple(
        Happening(hit, hit, f"The ball hits the {wall} wall.", f"When does the ball hit the {wall} wall?",
                  f"does the ball hit the {wall} wall", "", _row(cell, stage))
        for hit, wall in zip(hits, walls, strict=True)
    ))  # fmt: skip


ACTS = (appear, appear, recolour, light, shown_number, move, bounce)
