"""True or false? A sentence beside a picture: boxes with things in them, towers of blocks, or one free scene.

Two pictures of one sort are drawn and a sentence that is true of the one and false of the other; a coin decides
which is shown. So the sentence alone says nothing about its truth, and false ones are nearly right: the second
picture is often the first with one thing changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from qwen3vl.train.synthetic.arrange import Cell, Spec, cells_of, draw_names, draw_size, draw_theme, layouts, put
from qwen3vl.train.synthetic.palette import BASES, Rgb, mix, paint_background, standing_out
from qwen3vl.train.synthetic.sample import ChoiceTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scenes import ask, draw_spec
from qwen3vl.train.synthetic.sentences import (
    BOX_MAKERS,
    FREE_MAKERS,
    Item,
    Maker,
    Panel,
    Panels,
    Sentence,
)
from qwen3vl.train.synthetic.sentences import Style as Words
from qwen3vl.train.synthetic.shapes import Style
from qwen3vl.train.synthetic.sides import of_side
from qwen3vl.train.synthetic.tower_sentences import TOWER_MAKERS

QUESTIONS = (
    "{} Is this true or false?",
    "True or false: {}",
    "Is the following sentence about the picture true or false? {}",
    'Look at the picture. Is it true or false that the sentence holds? "{}"',
)
GREY = (211, 211, 211)
TRUE_FALSE = ("true", "false")
SETS = (("circle", "square", "triangle"), ("circle", "star", "square"), ("heart", "diamond", "circle"),
        ("triangle", "hexagon", "cross"), ("star", "moon", "ring"), ("square", "pentagon", "heart"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sort:
    """What the two pictures have in common.

    Attributes:
        draw: new panels of this sort.
        show: panels -> picture, and where each panel's origin lies in it.
    """

    draw: Callable[[], Panels]
    show: Callable[[Panels], tuple[Image.Image, list[tuple[int, int]]]]
    makers: Sequence[Maker]
    words: Words


def _sample(name: str, rng: random.Random, sort: Sort) -> SyntheticSample:
    sentence, true, false = _pair(rng, sort)
    answer = rng.choice(TRUE_FALSE)
    panels = true if answer == "true" else false
    picture, origins = sort.show(panels)
    text = sentence.text + ("" if rng.random() < 0.2 else ".")
    question = rng.choice(QUESTIONS).format(text[0].lower() + text[1:] if rng.random() < 0.15 else text)
    marks = tuple(
        Mark((i.box[0] + x, i.box[1] + y, i.box[2] + x, i.box[3] + y), i.colour)
        for panel, (x, y) in zip(panels, origins, strict=True) for i in panel.items
    )  # fmt: skip
    return SyntheticSample(name, ask(picture, question), answer, ChoiceTruth(answer, TRUE_FALSE), marks)


def _pair(rng: random.Random, sort: Sort) -> tuple[Sentence, Panels, Panels]:
    """A sentence, panels of which it is true, and panels of which it is false."""
    while True:
        first = sort.draw()
        second = sort.draw() if rng.random() < 0.3 else _changed(rng, first)
        maker = rng.choice(sort.makers)
        for _ in range(6):
            sentence = maker(rng, first, sort.words)
            fits = sentence.holds(first), sentence.holds(second)
            if fits == (True, False):
                return sentence, first, second
            if fits == (False, True):
                return sentence, second, first


def _changed(rng: random.Random, panels: Panels) -> Panels:
    """One thing takes another's colour or shape, or leaves; where it stood alone it stays."""
    where = rng.choice([i for i, panel in enumerate(panels) if panel.items])
    items = list(panels[where].items)
    others = [item for panel in panels for item in panel.items]
    at = rng.randrange(len(items))
    what = rng.random()
    if what < 0.3 and len(items) > 1:
        at = len(items) - 1  # the uppermost block: nothing may hang in the air
        del items[at]
    elif what < 0.7:
        items[at] = Item(items[at].shape, rng.choice(others).colour, items[at].box)
    else:
        items[at] = Item(rng.choice(others).shape, items[at].colour, items[at].box)
    changed = Panel(tuple(items), panels[where].width, panels[where].height)
    return (*panels[:where], changed, *panels[where + 1 :])


# ------------------------------------------------------------------------------- boxes and towers


@dataclass(frozen=True, slots=True)
class Look:
    """How boxes look: sides in pixels, colours, shapes."""

    count: int
    side: int
    gap: int
    ground: Rgb
    between: Rgb
    shapes: tuple[str, ...]
    colours: tuple[str, ...]


def _look(rng: random.Random, side: Side) -> Look:
    """Grey boxes in a row mostly; other grounds and counts belong to sides as themes."""
    if rng.random() < 0.4:
        shapes: tuple[str, ...] = SETS[0]
        return Look(3, 100, 50, GREY, (128, 128, 128), shapes, ("black", "blue", "yellow"))
    grounds = of_side(side, "box ground", tuple(BASES))
    ground = BASES[rng.choice(grounds)]
    clear = standing_out(ground)
    between = mix(ground, (0, 0, 0), 0.45) if sum(ground) > 380 else mix(ground, (255, 255, 255), 0.5)
    shapes = rng.choice(of_side(side, "box shapes", SETS, lambda s: "-".join(s)) or SETS)
    return Look(rng.choice((2, 3, 3, 4)), rng.choice((80, 100, 120)), rng.randint(6, 50), ground, between, shapes,
                tuple(rng.sample(clear, rng.choice((2, 3, 3, 4)))))  # fmt: skip


def boxes(rng: random.Random, side: Side) -> SyntheticSample:
    look = _look(rng, side)
    box = "grey square" if look.ground == GREY and rng.random() < 0.3 else "box"
    words = Words(box, rng.choice(("item", "object", "item", "shape")))
    sort = Sort(lambda: _scattered(rng, look), lambda p: _show_row(rng, p, look), BOX_MAKERS, words)
    return _sample("true_false_boxes", rng, sort)


def towers(rng: random.Random, side: Side) -> SyntheticSample:
    look = _look(rng, side)
    sort = Sort(lambda: _stacked(rng, look), lambda p: _show_row(rng, p, look), TOWER_MAKERS, Words())
    return _sample("true_false_towers", rng, sort)


def _scattered(rng: random.Random, look: Look) -> Panels:
    return tuple(Panel(tuple(_thrown(rng, look)), look.side, look.side) for _ in range(look.count))


def _thrown(rng: random.Random, look: Look) -> list[Item]:
    """1 to 8 things of three sizes that do not touch each other, a third of them pushed to a wall."""
    items: list[Item] = []
    for _ in range(rng.randint(1, 8) * 3):
        size = round(look.side * rng.choice((0.1, 0.2, 0.3)))
        x, y = (rng.randint(0, look.side - size) for _ in range(2))
        if rng.random() < 0.33:
            wall = rng.choice((0, look.side - size))
            x, y = (wall, y) if rng.random() < 0.5 else (x, wall)
        box = (x, y, x + size, y + size)
        if all(_free(box, other.box) for other in items):
            items.append(Item(rng.choice(look.shapes), rng.choice(look.colours), box))
    return items[:8]


def _free(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[2] + 3 <= b[0] or b[2] + 3 <= a[0] or a[3] + 3 <= b[1] or b[3] + 3 <= a[1]


def _stacked(rng: random.Random, look: Look) -> Panels:
    return tuple(_tower(rng, look) for _ in range(look.count))


def _tower(rng: random.Random, look: Look) -> Panel:
    size, left = look.side // 5, look.side * 2 // 5
    tops = [look.side - size - level * (size + 1) for level in range(rng.randint(1, 4))]
    items = [Item("square", rng.choice(look.colours), (left, top, left + size, top + size)) for top in tops]
    return Panel(tuple(items), look.side, look.side)


def _show_row(rng: random.Random, panels: Panels, look: Look) -> tuple[Image.Image, list[tuple[int, int]]]:
    step = look.side + look.gap
    picture = Image.new("RGB", (step * look.count - look.gap, look.side), look.between)
    origins = [(step * i, 0) for i in range(look.count)]
    for panel, (x, y) in zip(panels, origins, strict=True):
        picture.paste(look.ground, (x, y, x + look.side, y + look.side))
        for item in panel.items:
            _draw(rng, picture, item, (x, y), Style())
    return picture, origins


def _draw(rng: random.Random, picture: Image.Image, item: Item, origin: tuple[int, int], style: Style) -> None:
    (x, y), side = item.centre, item.box[2] - item.box[0]
    put(rng, picture, Spec(item.shape, item.colour), Cell(x + origin[0], y + origin[1], side), style)


# --------------------------------------------------------------------------------------- one scene


def scene(rng: random.Random, side: Side) -> SyntheticSample:
    theme, clear = draw_theme(rng, side)
    names, colours = draw_names(rng, rng.randint(2, 3)), rng.sample(clear, rng.randint(2, 3))
    size, layout, style = draw_size(rng, 8), rng.choice(layouts(side)), Style.draw(rng)

    def draw() -> Panels:
        specs = [draw_spec(rng, names, colours) for _ in range(rng.randint(2, 8))]
        cells = cells_of(rng, layout, specs, size)
        items = [
            Item(spec.name, spec.colour, (c.x - c.side / 2, c.y - c.side / 2, c.x + c.side / 2, c.y + c.side / 2))
            for spec, c in zip(specs, cells, strict=True)
        ]
        return (Panel(tuple(items), *size),)

    def show(panels: Panels) -> tuple[Image.Image, list[tuple[int, int]]]:
        picture = paint_background(rng, theme, size)
        for item in panels[0].items:
            _draw(rng, picture, item, (0, 0), style)
        return picture, [(0, 0)]

    return _sample("true_false_scene", rng, Sort(draw, show, FREE_MAKERS, Words("picture", "thing")))


TASKS: dict[str, Task] = {"true_false_boxes": boxes, "true_false_towers": towers, "true_false_scene": scene}
