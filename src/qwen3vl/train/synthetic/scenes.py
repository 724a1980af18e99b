"""Tasks about where things are: boxes, points and counts of shapes and icons."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from qwen3vl.tasks.grounding import Attributes, locate_prompt, point_prompt
from qwen3vl.train.synthetic.answers import boxes_answer, points_answer, reading_order
from qwen3vl.train.synthetic.arrange import Scene, Spec, Thing, compose, draw_names, draw_size, draw_theme
from qwen3vl.train.synthetic.icons import plural
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.referring import referring
from qwen3vl.train.synthetic.sample import (
    BoxesTruth,
    Labelled,
    Mark,
    NumberTruth,
    PointTruth,
    Side,
    SyntheticSample,
    Task,
)
from qwen3vl.types import ImagePart, Message, Part, TextPart

COUNTS = ("How many {} are there?", "How many {} are in the picture?", "Count the {}.", "How many {} do you see?")
ALL = "thing"


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of thing to look for; "" is any name or any colour."""

    name: str = ""
    colour: str = ""

    @property
    def words(self) -> str:
        return f"{self.colour} {self.name or ALL}".strip()

    @property
    def plural(self) -> str:
        return f"{self.colour} {plural(self.name or ALL)}".strip()

    def matches(self, thing: Thing | Spec) -> bool:
        return (not self.name or thing.name == self.name) and (not self.colour or thing.colour == self.colour)


def ask(picture: Image.Image, question: str, *more: Part) -> tuple[Message, ...]:
    """One user turn: picture, then question."""
    return (Message("user", (ImagePart(picture), *more, TextPart(question))),)


def draw_scene(rng: random.Random, side: Side, most: int = 12, high: int = 448) -> Scene:
    """A few kinds of things in a few colours, some of them several times."""
    count = min(rng.randint(1, most), rng.randint(1, most) + 2)
    theme, clear = draw_theme(rng, side)
    names = draw_names(rng, rng.randint(1, min(5, count + 1)))
    colours = rng.sample(clear, min(len(clear), rng.randint(2, 5)))
    specs = [draw_spec(rng, names, colours) for _ in range(count)]
    return compose(rng, side, specs, draw_size(rng, count, high=high), theme)


def draw_spec(rng: random.Random, names: Sequence[str], colours: Sequence[str]) -> Spec:
    return Spec(rng.choice(names), rng.choice(colours), rng.choice((1.0, 0.9, 0.7, rng.uniform(0.4, 1.0))))


def found_by(queries: Sequence[Query], things: Iterable[Thing]) -> list[tuple[Query, Thing]]:
    """In the order of the queries, and for each in reading order."""
    listed = reading_order(things, lambda t: t.box)
    return [(query, thing) for query in queries for thing in listed if query.matches(thing)]


def draw_queries(rng: random.Random, scene: Scene) -> list[Query]:
    """Queries that do not overlap, of things that are there; in a quarter of all cases one that is not is added."""
    form = rng.choice(("name", "name", "both", "both", "colour", "all"))
    if form == "all":
        return [Query()]
    present = list(dict.fromkeys(_query(form, thing) for thing in scene.things))
    chosen = rng.sample(present, min(len(present), rng.choice((1, 1, 1, 2, 3, 4))))
    if rng.random() < 0.25:
        absent = _query(form, Spec(*_other(rng, scene)))
        if absent not in present:
            chosen.insert(rng.randint(0, len(chosen)), absent)
    return chosen


def _query(form: str, thing: Thing | Spec) -> Query:
    return Query("" if form == "colour" else thing.name, "" if form == "name" else thing.colour)


def _other(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """A name and a colour that are likely to be confused with what is there."""
    names = [t.name for t in scene.things] + draw_names(rng, 1)
    return rng.choice(names), rng.choice([t.colour for t in scene.things] + [rng.choice(COLOUR_NAMES)])


# ---------------------------------------------------------------------------------------- locating


def locate(rng: random.Random, side: Side) -> SyntheticSample:
    return _locate("locate", rng, draw_scene(rng, side))


def locate_small(rng: random.Random, side: Side) -> SyntheticSample:
    """A few things in a small picture: what a beginner can learn."""
    return _locate("locate_small", rng, draw_scene(rng, side, most=3, high=176))


def _locate(task: str, rng: random.Random, scene: Scene) -> SyntheticSample:
    queries = draw_queries(rng, scene)
    items = tuple((query.words, thing.box) for query, thing in found_by(queries, scene.things))
    return located(task, scene.picture, [q.words for q in queries], items)


def located(
    task: str, picture: Image.Image, what: Sequence[str], items: tuple[Labelled, ...],
    asked: Attributes | None = None, said: Sequence[dict[str, str]] | None = None,
) -> SyntheticSample:  # fmt: skip
    """A sample that asks for the boxes of `what`; `asked` and `said`: attributes, and their values for each item."""
    messages = ask(picture, locate_prompt(what, asked))
    marks = tuple(Mark(box, label) for label, box in items)
    return SyntheticSample(task, messages, boxes_answer(items, picture.size, said), BoxesTruth(items), marks)


def locate_one(rng: random.Random, side: Side) -> SyntheticSample:
    """The one thing that a description fits: "largest red star"."""
    scene, (words, thing) = _referred(rng, side)
    return located("locate_one", scene.picture, [words], ((words, thing.box),))


def _referred(rng: random.Random, side: Side) -> tuple[Scene, tuple[str, Thing]]:
    while True:
        scene = draw_scene(rng, side, most=8)
        found = referring(rng, scene)
        if found is not None:
            return scene, found


def locate_details(rng: random.Random, side: Side) -> SyntheticSample:
    """Every thing with its colour, or its kind, or both."""
    scene = draw_scene(rng, side, most=8)
    listed = reading_order(scene.things, lambda t: t.box)
    asked = rng.choice(({"color": "the color"}, {"color": "the color", "kind": "the kind of thing"}))
    said = [{k: {"color": t.colour, "kind": t.name}[k] for k in asked} for t in listed]
    return located("locate_details", scene.picture, [ALL], tuple((ALL, t.box) for t in listed), asked, said)


# ---------------------------------------------------------------------------------------- pointing


def point(rng: random.Random, side: Side) -> SyntheticSample:
    if rng.random() < 0.6:
        scene, (words, thing) = _referred(rng, side)
        return pointed("point", scene.picture, f"the {words}", ((words, thing.box),))
    scene = draw_scene(rng, side, most=8)
    query = rng.choice(draw_queries(rng, scene))
    found = found_by([query], scene.things)
    if not found:
        return point(rng, side)
    return pointed("point", scene.picture, f"every {query.words}", tuple((q.words, t.box) for q, t in found))


def pointed(task: str, picture: Image.Image, what: str, items: tuple[Labelled, ...]) -> SyntheticSample:
    """A sample that asks for points on `what`."""
    marks = tuple(Mark(box, label) for label, box in items)
    messages = ask(picture, point_prompt(what))
    return SyntheticSample(task, messages, points_answer(items, picture.size), PointTruth(items), marks)


# ---------------------------------------------------------------------------------------- counting


def counted_scene(rng: random.Random, side: Side, high: int = 10) -> tuple[Scene, Query]:
    """0 to `high` things of one kind (one in ten pictures has up to twice as many), all equally often, and others."""
    wanted = rng.randint(0, high) if rng.random() < 0.9 else rng.randint(high + 1, 2 * high)
    others = rng.choice((0, 1, 2, 3, 5)) if wanted else rng.randint(1, 6)
    theme, clear = draw_theme(rng, side)
    names = draw_names(rng, 3)
    colours = rng.sample(clear, 4)
    query = rng.choice((Query(names[0]), Query(names[0], colours[0]), Query("", colours[0]), Query()))
    if query == Query() and not wanted:
        query = Query(names[0])
    specs = [_matching(rng, query, names, colours) for _ in range(wanted)]
    while len(specs) < wanted + others and query != Query():
        spec = draw_spec(rng, names, colours)
        if not query.matches(spec):
            specs.append(spec)
    rng.shuffle(specs)
    return compose(rng, side, specs, draw_size(rng, len(specs)), theme), query


def _matching(rng: random.Random, query: Query, names: Sequence[str], colours: Sequence[str]) -> Spec:
    return draw_spec(rng, [query.name] if query.name else names, [query.colour] if query.colour else colours)


def count(rng: random.Random, side: Side) -> SyntheticSample:
    scene, query = counted_scene(rng, side)
    found = found_by([query], scene.things)
    question = rng.choice(COUNTS).format(query.plural)
    marks = tuple(Mark(thing.box, str(i)) for i, (_, thing) in enumerate(found, start=1))
    return SyntheticSample("count", ask(scene.picture, question), str(len(found)), NumberTruth(len(found)), marks)


def count_boxes(rng: random.Random, side: Side) -> SyntheticSample:
    """Counting as tasks.grounding.count asks: with the boxes as evidence."""
    scene, query = counted_scene(rng, side)
    items = tuple((q.words, t.box) for q, t in found_by([query], scene.things))
    made = located("count_boxes", scene.picture, [query.words], items)
    return SyntheticSample(made.task, made.messages, made.answer, NumberTruth(len(items)), made.marks)


TASKS: dict[str, Task] = {
    "locate_small": locate_small,
    "locate": locate,
    "locate_one": locate_one,
    "locate_details": locate_details,
    "point": point,
    "count": count,
    "count_boxes": count_boxes,
}
