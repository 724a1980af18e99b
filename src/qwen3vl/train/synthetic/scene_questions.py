"""Questions about the colour, kind, size, place and relations of shapes and icons, with one clear answer each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from qwen3vl.train.synthetic.arrange import SHAPE_NAMES, Scene, Thing
from qwen3vl.train.synthetic.icons import ICONS, article
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.referring import EXTREMES, RELATIONS, Relation, alone, bigger, members, most, only
from qwen3vl.train.synthetic.sample import ChoiceTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scenes import ask, draw_scene

YES_NO = ("yes", "no")
LETTERS = "ABCD"
ZONES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
EDGE = 0.06  # of the side, around the borders of a zone, where no name is sure


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its answer and what else could be said; `about`: the things that decide it."""

    question: str
    answer: str
    options: tuple[str, ...]
    about: tuple[Thing, ...]


Asker = Callable[[random.Random, Scene], Asked | None]


def question_task(name: str, asker: Asker, most_things: int = 7) -> Task:
    """A task that draws scenes until one allows the question."""

    def task(rng: random.Random, side: Side) -> SyntheticSample:
        while True:
            scene = draw_scene(rng, side, most=most_things)
            asked = asker(rng, scene)
            if asked is not None:
                return chosen(rng, name, scene.picture, asked)

    return task


def chosen(rng: random.Random, name: str, picture: Image.Image, asked: Asked) -> SyntheticSample:
    """The sample, in a quarter of all cases with lettered options as the cookbook shows them."""
    marks = tuple(Mark(thing.box, thing.words) for thing in asked.about)
    if len(asked.options) < 3 or rng.random() > 0.25:
        truth = ChoiceTruth(asked.answer, asked.options)
        return SyntheticSample(name, ask(picture, asked.question), asked.answer, truth, marks)
    wrong = rng.sample([o for o in asked.options if o != asked.answer], min(3, len(asked.options) - 1))
    options = [asked.answer, *wrong]
    rng.shuffle(options)
    letters = LETTERS[: len(options)]
    listed = "\n".join(f"{letter}.{option}" for letter, option in zip(letters, options, strict=True))
    right = letters[options.index(asked.answer)]
    messages = ask(picture, f"{asked.question}\nAnswer options:\n{listed}")
    return SyntheticSample(name, messages, f"{right}. {asked.answer}", ChoiceTruth(right, tuple(letters)), marks)


# ------------------------------------------------------------------------------- what it looks like


def colour(rng: random.Random, scene: Scene) -> Asked | None:
    found = _named(rng, scene)
    if found is None:
        return None
    words, thing = found
    question = rng.choice((f"What color is the {words}?", f"Which color does the {words} have?"))
    return Asked(question, thing.colour, COLOUR_NAMES, (thing,))


def kind(rng: random.Random, scene: Scene) -> Asked | None:
    """The one thing of a colour, or the outermost thing of all, or the only thing."""
    options = SHAPE_NAMES if scene.things[0].name in SHAPE_NAMES else tuple(ICONS)
    options = tuple(dict.fromkeys([*(t.name for t in scene.things), *rng.sample(options, 6)]))
    for colour_name in rng.sample(COLOUR_NAMES, len(COLOUR_NAMES)):
        thing = only(scene.things, lambda t, c=colour_name: t.colour == c)  # type: ignore[misc]
        if thing is not None:
            return Asked(f"What is the {colour_name} thing?", thing.name, options, (thing,))
    if len(scene.things) == 1:
        return Asked("What is in the picture?", scene.things[0].name, options, scene.things)
    return None


def size(rng: random.Random, scene: Scene) -> Asked | None:
    """Which of two is larger or smaller, or whether the one is larger than the other."""
    pairs = [(a, b) for a in _single(scene) for b in _single(scene) if bigger(a, b)]
    if not pairs:
        return None
    large, small = rng.choice(pairs)
    words = {True: "larger", False: "smaller"}
    if rng.random() < 0.5:
        wants_large = rng.random() < 0.5
        first, second = rng.sample((large, small), 2)
        question = f"Which is {words[wants_large]}, the {first.words} or the {second.words}?"
        answer = (large if wants_large else small).words
        return Asked(question, answer, (first.words, second.words), (large, small))
    first, second, says_large = rng.choice(
        ((large, small, True), (large, small, False), (small, large, True), (small, large, False))
    )
    question = f"Is the {first.words} {words[says_large]} than the {second.words}?"
    return Asked(question, YES_NO[(first is large) != says_large], YES_NO, (first, second))


# ------------------------------------------------------------------------------------ where it lies


def place(rng: random.Random, scene: Scene) -> Asked | None:
    """In which of nine zones a thing lies; the zones are drawn first, so that the answers are not mostly "center"."""
    zones = {thing: zone for thing in _single(scene) if (zone := zone_of(thing, scene.picture.size))}
    for zone in rng.sample(ZONES, 5):
        there = [thing for thing, found in zones.items() if found == zone]
        if there:
            thing = rng.choice(there)
            question = rng.choice(
                (f"Where is the {thing.words}?", f"In which part of the picture is the {thing.words}?")
            )
            return Asked(question, zone, ZONES, (thing,))
    return None


def zone_of(thing: Thing, picture: tuple[int, int]) -> str | None:
    """By the centre, in thirds of the picture; None near a border of thirds. In 90 x 90, (15, 45) is "left"."""
    column, row = (_third(c, length) for c, length in zip(thing.centre, picture, strict=True))
    return None if column is None or row is None else ZONES[3 * row + column]


def _third(centre: float, length: int) -> int | None:
    part = centre / length
    if any(abs(part - border) < EDGE for border in (1 / 3, 2 / 3)):
        return None
    return int(part * 3)


def relation(rng: random.Random, scene: Scene) -> Asked | None:
    """Whether one thing lies to one side of another, or on which side."""
    singles = _single(scene)
    pairs = [
        (a, b, r)
        for a in singles
        for b in singles
        for r in RELATIONS
        if a is not b and r.fits(a, b, scene.picture.size)
    ]
    if not pairs:
        return None
    a, b, true = rng.choice(pairs)
    false = _opposite(true)
    form = rng.random()
    if form < 0.5:
        said = rng.choice((true, false))
        return Asked(f"Is the {a.words} {said.words} the {b.words}?", YES_NO[said is false], YES_NO, (a, b))
    if form < 0.75 and true.axis == 1:
        return Asked(f"Is the {a.words} above or below the {b.words}?", true.words, (true.words, false.words), (a, b))
    neighbours = [t for t in scene.things if t is not b and true.fits(t, b, scene.picture.size) is not False]
    if neighbours == [a]:
        options = tuple(dict.fromkeys(t.words for t in scene.things if t is not b))
        return Asked(f"What is {true.words} the {b.words}?", a.words, options, (a, b))
    return None


def _opposite(said: Relation) -> Relation:
    return next(r for r in RELATIONS if r.axis == said.axis and r.sign != said.sign)


def extreme(rng: random.Random, scene: Scene) -> Asked | None:
    """Which thing lies outermost, or is the largest or smallest, of all that there are."""
    options = tuple(dict.fromkeys(t.words for t in scene.things))
    if len(options) < 3:
        return None
    for name, direction in rng.sample(sorted(EXTREMES.items()), len(EXTREMES)):
        thing = most(scene.things, lambda a, b, r=direction: r.fits(a, b, scene.picture.size))  # type: ignore[misc]
        if thing is not None:
            return Asked(f"What is the {name} thing?", thing.words, options, (thing,))
    return None


# ------------------------------------------------------------------------------------------ helpers


def _single(scene: Scene) -> list[Thing]:
    """Those that colour and name tell apart from all others."""
    return [thing for thing in scene.things if alone(scene.things, thing.words) is thing]


def _named(rng: random.Random, scene: Scene) -> tuple[str, Thing] | None:
    """A description without a colour."""
    names = list(dict.fromkeys(t.name for t in scene.things))
    for name in rng.sample(names, len(names)):
        if thing := alone(scene.things, name):
            return name, thing
        for word, direction in rng.sample(sorted(EXTREMES.items()), len(EXTREMES)):
            group = members(scene, name)
            if thing := most(group, lambda a, b, r=direction: r.fits(a, b, scene.picture.size)):  # type: ignore[misc]
                return f"{word} {name}", thing
    return None


def presence(rng: random.Random, scene: Scene) -> Asked | None:
    """Whether there is a red star: as often as not. What is not there differs in one word from what is."""
    thing = rng.choice(scene.things)
    if rng.random() < 0.5:
        return Asked(f"Is there {article(thing.words)}?", "yes", YES_NO, (thing,))
    options = [(thing.name, c) for c in COLOUR_NAMES] + [(t.name, thing.colour) for t in scene.things]
    there = {(t.name, t.colour) for t in scene.things}
    name, colour_name = rng.choice([o for o in options if o not in there])
    return Asked(f"Is there {article(f'{colour_name} {name}')}?", "no", YES_NO, ())


TASKS: dict[str, Task] = {
    "question_color": question_task("question_color", colour),
    "question_kind": question_task("question_kind", kind),
    "question_size": question_task("question_size", size),
    "question_place": question_task("question_place", place),
    "question_relation": question_task("question_relation", relation),
    "question_extreme": question_task("question_extreme", extreme),
    "question_presence": question_task("question_presence", presence, 5),
}
