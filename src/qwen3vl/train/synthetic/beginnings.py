"""What a model learns first: one thing in a small picture, one short answer.

A thing fills much of its picture, so that nothing has to be found before it is named. The questions and answers
are those of the fuller tasks (scene_questions.py, scenes.py, lines.py): what is learnt here is not unlearnt there.
"""

from __future__ import annotations

import random

from qwen3vl.train.synthetic.arrange import SHAPE_NAMES, Scene, Spec, compose, draw_theme
from qwen3vl.train.synthetic.icons import plural
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.sample import ChoiceTruth, Mark, NumberTruth, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scenes import COUNTS, ask

SIDES = (64, 96)  # pixels: 4 or 9 merged tokens
MOST = 4  # things to count
CLEAR = 0.1  # of the length, on both sides of the middle, where no half is sure
HALVES = ("left", "right", "top", "bottom")


def first_color(rng: random.Random, side: Side) -> SyntheticSample:
    """The colour of the only thing."""
    scene = _scene(rng, side, 1, rng.choice(SIDES))
    (thing,) = scene.things
    question = rng.choice((f"What color is the {thing.name}?", f"Which color does the {thing.name} have?"))
    return _chosen("first_color", scene, question, thing.colour, COLOUR_NAMES)


def first_shape(rng: random.Random, side: Side) -> SyntheticSample:
    """The shape of the only thing."""
    scene = _scene(rng, side, 1, rng.choice(SIDES))
    (thing,) = scene.things
    question = rng.choice((f"What is the {thing.colour} thing?", "What is in the picture?"))
    return _chosen("first_shape", scene, question, thing.name, SHAPE_NAMES)


def first_place(rng: random.Random, side: Side) -> SyntheticSample:
    """In which half of a picture twice as long as wide the only thing lies."""
    answer = rng.choice(HALVES)
    across, short = answer in ("left", "right"), rng.choice((32, 64))
    size = (2 * short, short) if across else (short, 2 * short)
    theme, clear = draw_theme(rng, side)
    spec = Spec(rng.choice(SHAPE_NAMES), rng.choice(clear), 0.9)
    while True:
        scene = compose(rng, side, [spec], size, theme, "scatter/tight")
        (thing,) = scene.things
        place = thing.centre[not across] / (2 * short)
        if (place < 0.5 - CLEAR) if answer in ("left", "top") else (place > 0.5 + CLEAR):
            return _chosen("first_place", scene, f"Where is the {thing.words}?", answer, HALVES)


def first_count(rng: random.Random, side: Side) -> SyntheticSample:
    """1 to 4 things of one kind, and nothing else."""
    count = rng.randint(1, MOST)
    scene = _scene(rng, side, count, SIDES[-1])
    question = rng.choice(COUNTS).format(plural(scene.things[0].name))
    marks = tuple(Mark(thing.box, str(i)) for i, thing in enumerate(scene.things, start=1))
    return SyntheticSample("first_count", ask(scene.picture, question), str(count), NumberTruth(count), marks)


def _scene(rng: random.Random, side: Side, count: int, length: int) -> Scene:
    theme, clear = draw_theme(rng, side)
    spec = Spec(rng.choice(SHAPE_NAMES), rng.choice(clear), rng.uniform(0.8, 1.0))
    return compose(rng, side, [spec] * count, (length, length), theme)


def _chosen(task: str, scene: Scene, question: str, answer: str, options: tuple[str, ...]) -> SyntheticSample:
    (thing,) = scene.things
    truth = ChoiceTruth(answer, options)
    return SyntheticSample(task, ask(scene.picture, question), answer, truth, (Mark(thing.box, thing.words),))


TASKS: dict[str, Task] = {
    "first_color": first_color,
    "first_shape": first_shape,
    "first_place": first_place,
    "first_count": first_count,
}
