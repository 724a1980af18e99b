"""Two pictures: are they the same, what differs, where is more."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from PIL import Image

from qwen3vl.train.synthetic.arrange import Cell, Spec, Thing, cells_of, draw_names, draw_size, draw_theme, layouts, put
from qwen3vl.train.synthetic.icons import article, plural
from qwen3vl.train.synthetic.palette import paint_background
from qwen3vl.train.synthetic.referring import RELATIONS
from qwen3vl.train.synthetic.sample import ChoiceTruth, FreeTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scene_questions import YES_NO
from qwen3vl.train.synthetic.scenes import draw_spec
from qwen3vl.train.synthetic.shapes import Style
from qwen3vl.types import ImagePart, Message, TextPart

SAME = ("Are the two pictures the same?", "Do both pictures show the same?")
DIFFERENCE = ("What is different in the second picture?", "What changed from the first to the second picture?",
              "Find the difference between the two pictures.")  # fmt: skip
WHICH = ("first", "second", "both the same")
NOTHING = "Nothing is different."


@dataclass(frozen=True, slots=True)
class Placed:
    """What stands where."""

    spec: Spec
    cell: Cell


@dataclass(frozen=True, slots=True)
class Ground:
    """What two pictures have in common; colours and names to draw from."""

    size: tuple[int, int]
    theme: str
    style: Style
    names: tuple[str, ...]
    colours: tuple[str, ...]


def _ground(rng: random.Random, side: Side) -> Ground:
    theme, clear = draw_theme(rng, side)
    names = tuple(draw_names(rng, rng.randint(2, 5)))
    colours = tuple(rng.sample(clear, rng.randint(3, 5)))
    return Ground(draw_size(rng, 7, high=300), theme, replace(Style.draw(rng), turn=0.0), names, colours)


def _placed(rng: random.Random, side: Side, ground: Ground, count: int) -> list[Placed]:
    """Things that colour and name tell apart, as far as there are enough names."""
    specs: list[Spec] = []
    while len(specs) < count:
        spec = draw_spec(rng, ground.names, ground.colours)
        if all(s.words != spec.words for s in specs):
            specs.append(spec)
    cells = cells_of(rng, rng.choice(layouts(side)), specs, ground.size)
    return [Placed(spec, cell) for spec, cell in zip(specs, cells, strict=True)]


def _drawn(seed: int, ground: Ground, placed: list[Placed]) -> tuple[Image.Image, list[Thing]]:
    """The same seed gives the same texture and shades."""
    picture = paint_background(random.Random(seed), ground.theme, ground.size)
    things = [put(random.Random(f"{seed}/{p.spec.words}"), picture, p.spec, p.cell, ground.style) for p in placed]
    return picture, things


# --------------------------------------------------------------------------------------- one change


@dataclass(frozen=True, slots=True)
class Change:
    """The second picture's things, what was done to them, and which thing it was done to."""

    placed: list[Placed]
    said: str
    words: str


def _recolour(rng: random.Random, ground: Ground, placed: list[Placed], i: int) -> Change | None:
    spec = placed[i].spec
    taken = {p.spec.words for p in placed}
    free = [c for c in ground.colours if f"{c} {spec.name}" not in taken]
    if not free:
        return None
    new = replace(spec, colour=rng.choice(free))
    return Change(_with(placed, i, new), f"The {spec.words} is {new.colour} now.", new.words)


def _rename(rng: random.Random, ground: Ground, placed: list[Placed], i: int) -> Change | None:
    spec = placed[i].spec
    taken = {p.spec.words for p in placed}
    free = [n for n in ground.names if f"{spec.colour} {n}" not in taken]
    if not free:
        return None
    new = replace(spec, name=rng.choice(free))
    return Change(_with(placed, i, new), f"The {spec.words} became {article(new.name)}.", new.words)


def _with(placed: list[Placed], i: int, spec: Spec) -> list[Placed]:
    return [*placed[:i], replace(placed[i], spec=spec), *placed[i + 1 :]]


def _leave(rng: random.Random, ground: Ground, placed: list[Placed], i: int) -> Change | None:
    words = placed[i].spec.words
    return Change(placed[:i] + placed[i + 1 :], f"The {words} is gone.", words) if len(placed) > 1 else None


def _come(rng: random.Random, ground: Ground, placed: list[Placed], i: int) -> Change | None:
    """Drawn in the first picture's place for it: `_leave` the other way round; see `_changed`."""
    words = placed[i].spec.words
    return Change(placed, f"There is {article(words)} now.", words) if len(placed) > 1 else None


def _move(rng: random.Random, ground: Ground, placed: list[Placed], i: int) -> Change | None:
    """To the side by at least a sixth of the picture, into free room."""
    cell, (width, height) = placed[i].cell, ground.size
    for relation in rng.sample(RELATIONS, len(RELATIONS)):
        step = -relation.sign * ground.size[relation.axis] * rng.uniform(0.17, 0.35)
        x, y = cell.x + step * (relation.axis == 0), cell.y + step * (relation.axis == 1)
        half = cell.side / 2
        inside = half <= x <= width - half and half <= y <= height - half
        others = [p.cell for j, p in enumerate(placed) if j != i]
        if inside and all(max(abs(x - o.x), abs(y - o.y)) > (cell.side + o.side) / 2 for o in others):
            moved = [*placed[:i], replace(placed[i], cell=Cell(x, y, cell.side)), *placed[i + 1 :]]
            words = placed[i].spec.words
            return Change(moved, f"The {words} moved {DIRECTIONS[relation.words]}.", words)
    return None


DIRECTIONS = {"to the left of": "to the left", "to the right of": "to the right", "above": "up", "below": "down"}


def _changed(rng: random.Random, ground: Ground, placed: list[Placed]) -> tuple[list[Placed], Change]:
    """The first picture's things, and the change that gives the second's."""
    while True:
        i = rng.randrange(len(placed))
        maker = rng.choice((_recolour, _rename, _leave, _come, _move))
        change = maker(rng, ground, placed, i)
        if change is not None:
            return (placed[:i] + placed[i + 1 :] if maker is _come else placed), change


# -------------------------------------------------------------------------------------------- tasks


def same(rng: random.Random, side: Side) -> SyntheticSample:
    """Yes as often as no."""
    answer = rng.choice(YES_NO)
    first, second, _, marks = _pair(rng, side, changed=answer == "no")
    truth = ChoiceTruth(answer, YES_NO)
    return SyntheticSample("compare_same", _ask(first, second, rng.choice(SAME)), answer, truth, marks)


def difference(rng: random.Random, side: Side) -> SyntheticSample:
    """One thing changed, or in one of ten pairs nothing."""
    first, second, said, marks = _pair(rng, side, changed=rng.random() > 0.1)
    messages = _ask(first, second, rng.choice(DIFFERENCE))
    return SyntheticSample("compare_difference", messages, said, FreeTruth(said), marks)


def _pair(rng: random.Random, side: Side, changed: bool) -> tuple[Image.Image, Image.Image, str, tuple[Mark, ...]]:
    ground = _ground(rng, side)
    placed = _placed(rng, side, ground, rng.randint(2, 6))
    seed = rng.getrandbits(32)
    if not changed:
        picture, _ = _drawn(seed, ground, placed)
        return picture, picture.copy(), NOTHING, ()
    before, change = _changed(rng, ground, placed)
    (first, old), (second, new) = _drawn(seed, ground, before), _drawn(seed, ground, change.placed)
    moved = [(t, 0) for t in old if t not in new] + [(t, 1) for t in new if t not in old]
    return first, second, change.said, tuple(Mark(t.box, t.words, picture=i) for t, i in moved)


def more(rng: random.Random, side: Side) -> SyntheticSample:
    """In which picture there are more of one kind, or the same number."""
    ground = _ground(rng, side)
    name = ground.names[0]
    fewer = rng.randint(0, 4)
    counts = {"first": (fewer + rng.randint(1, 3), fewer), "second": (fewer, fewer + rng.randint(1, 3)),
              "both the same": (fewer + 1, fewer + 1)}  # fmt: skip
    answer = rng.choice(WHICH)
    pictures, marks = [], []
    for number, wanted in enumerate(counts[answer]):
        specs = [draw_spec(rng, [name], ground.colours) for _ in range(wanted)]
        specs += [draw_spec(rng, ground.names[1:], ground.colours) for _ in range(rng.randint(0 if wanted else 1, 3))]
        size = draw_size(rng, 10, high=300)
        cells = cells_of(rng, rng.choice(layouts(side)), specs, size)
        placed = [Placed(spec, cell) for spec, cell in zip(specs, cells, strict=True)]
        picture, things = _drawn(rng.getrandbits(32), replace(ground, size=size), placed)
        pictures.append(picture)
        marks += [Mark(t.box, t.words, picture=number) for t in things if t.name == name]
    question = f"Which picture has more {plural(name)}, the first or the second? Or both the same?"
    messages = _ask(pictures[0], pictures[1], question)
    return SyntheticSample("compare_counts", messages, answer, ChoiceTruth(answer, WHICH), tuple(marks))


def _ask(first: Image.Image, second: Image.Image, question: str) -> tuple[Message, ...]:
    return (Message("user", (ImagePart(first), ImagePart(second), TextPart(question))),)


TASKS: dict[str, Task] = {"compare_same": same, "compare_difference": difference, "compare_counts": more}
