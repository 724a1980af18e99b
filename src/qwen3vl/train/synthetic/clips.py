"""Tasks on short clips: when does what happen, in the forms of tasks/video.py.

A clip is a list of small frames with their rate; the processor tells the model the mean time of every two of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from qwen3vl.tasks.video import EVENTS_PROMPT, MOMENT_PROMPT, OBJECTS_PROMPT, SUMMARY_PROMPT
from qwen3vl.train.synthetic.acts import ACTS, Act, Happening, Stage, bounce, light, move
from qwen3vl.train.synthetic.answers import moments_answer, relative_box
from qwen3vl.train.synthetic.arrange import Cell, Spec, Thing, draw_names, draw_theme, put
from qwen3vl.train.synthetic.palette import BASES, COLOUR_NAMES, paint_background
from qwen3vl.train.synthetic.sample import (
    BoxesTruth,
    FreeTruth,
    Labelled,
    Mark,
    Moment,
    MomentsTruth,
    NumberTruth,
    Side,
    SyntheticSample,
    Task,
)
from qwen3vl.train.synthetic.shapes import Style
from qwen3vl.types import ImagePart, Message, Part, TextPart, VideoPart

SIZES = ((64, 64), (96, 64), (96, 96), (128, 64), (128, 96), (128, 128))
SECOND = "At which second {}? Answer with the number of seconds."
TOLERANCE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Film:
    """Frames at `rate` per second, and what happens in them in the order in which it begins."""

    frames: tuple[Image.Image, ...]
    rate: float
    happenings: tuple[Happening, ...]

    def moment(self, happening: Happening) -> Moment:
        return happening.first / self.rate, happening.after / self.rate, happening.said

    @property
    def part(self) -> VideoPart:
        return VideoPart(list(self.frames), frame_rate=self.rate)

    @property
    def marks(self) -> tuple[Mark, ...]:
        moments = [self.moment(h) for h in self.happenings]
        return tuple(Mark(h.box, h.said, time=m[:2]) for h, m in zip(self.happenings, moments, strict=True))


def draw_film(rng: random.Random, side: Side, seconds: tuple[int, int] = (8, 60), most: int = 3) -> Film:
    """A clip with one to `most` acts, side by side or one above the other."""
    duration = rng.randint(*seconds)
    rate = rng.choice((1, 2, 2)) if duration > 12 else rng.choice((2, 2, 4))
    size = rng.choice(SIZES)
    theme, clear = draw_theme(rng, side)
    stage = Stage(side, duration * rate, size, BASES[theme.split("/")[1]], clear)
    acts = _draw_acts(rng, stage, most)
    ground = paint_background(rng, theme, size)
    frames = tuple(_frame(ground, acts, number) for number in range(stage.num_frames))
    happenings = sorted((h for act in acts for h in act.happenings), key=lambda h: (h.first, h.after))
    return Film(frames, float(rate), tuple(happenings))


def _draw_acts(rng: random.Random, stage: Stage, most: int) -> list[Act]:
    """Of distinct things in rows of their own; at most one light, one ball."""
    count = rng.randint(1, most)
    makers = [rng.choice(ACTS) for _ in range(count)]
    while any(makers.count(maker) > 1 for maker in (light, bounce)) or len([m for m in makers if m is move]) > 1:
        makers = [rng.choice(ACTS) for _ in range(count)]
    makers.sort(key=lambda maker: maker is not light)  # it darkens what was drawn before it
    names = [n for n in draw_names(rng, count + 2) if n not in ("lamp", "circle")]
    places = _rows(rng, stage.size, count)
    specs = [Spec(name, rng.choice(stage.clear)) for name in names]
    return [maker(rng, stage, cell, spec) for maker, cell, spec in zip(makers, places, specs, strict=False)]


def _rows(rng: random.Random, size: tuple[int, int], count: int) -> list[Cell]:
    """One row for each act, in random order; a thing stands anywhere in its row."""
    height = size[1] / count
    side = min(height, size[0]) * 0.85
    rows = [Cell(rng.uniform(side / 2, size[0] - side / 2), (i + 0.5) * height, side) for i in range(count)]
    rng.shuffle(rows)
    return rows


def _frame(ground: Image.Image, acts: Sequence[Act], number: int) -> Image.Image:
    picture = ground.copy()
    for act in acts:
        act.draw(picture, number)
    return picture


def _ask(film: Film, question: str) -> tuple[Message, ...]:
    return (Message("user", (film.part, TextPart(question))),)


# -------------------------------------------------------------------------------------------- tasks


def events(rng: random.Random, side: Side) -> SyntheticSample:
    """All that happens, in order."""
    film = draw_film(rng, side)
    moments = tuple(film.moment(h) for h in film.happenings)
    answer = moments_answer(moments)
    return SyntheticSample("clip_events", _ask(film, EVENTS_PROMPT), answer, MomentsTruth(moments), film.marks)


def moment(rng: random.Random, side: Side) -> SyntheticSample:
    return about(draw_film(rng, side), "clip_moment", rng)


def moment_small(rng: random.Random, side: Side) -> SyntheticSample:
    """One act in a short clip."""
    return about(draw_film(rng, side, (8, 14), most=1), "clip_moment_small", rng)


def about(film: Film, task: str, rng: random.Random) -> SyntheticSample:
    """When one thing happens; in one of twelve clips it never does."""
    happening = rng.choice(film.happenings)
    question = happening.when
    moments = tuple(film.moment(h) for h in film.happenings if h.when == question)
    if rng.random() < 1 / 12:
        question, moments = _in_vain(rng, film), ()
    messages = _ask(film, MOMENT_PROMPT.format(question=question))
    return SyntheticSample(task, messages, moments_answer(moments), MomentsTruth(moments), film.marks)


def _in_vain(rng: random.Random, film: Film) -> str:
    """A question like the others, about what never happens in this clip."""
    told = " ".join(f"{h.when} {h.said}" for h in film.happenings)
    while True:
        thing, colour = draw_names(rng, 1)[0], rng.choice(COLOUR_NAMES)
        found = rng.choice(((thing, f"When is the {colour} {thing} shown?"), (thing, f"When is the {thing} {colour}?"),
                            (thing, f"When does the {colour} {thing} move?"), ("light", "When is the light on?"),
                            ("number", f"When is the number {rng.randint(0, 99)} shown?"),
                            ("ball", "When does the ball hit the right wall?")))  # fmt: skip
        if found[0] not in told:
            return found[1]


def second(rng: random.Random, side: Side) -> SyntheticSample:
    """The second at which something begins or ends that happens once."""
    while True:
        film = draw_film(rng, side, most=2)
        once = [h for h in film.happenings if [o.when for o in film.happenings].count(h.when) == 1]
        asked = [(h.begins, h.first) for h in once]
        asked += [(h.ends, h.after) for h in once if h.ends and h.after < len(film.frames)]
        if asked:
            words, frame = rng.choice(asked)
            time = frame / film.rate
            messages = _ask(film, SECOND.format(words))
            return SyntheticSample("clip_second", messages, f"{time:g}", NumberTruth(time, TOLERANCE), film.marks)


def summary(rng: random.Random, side: Side) -> SyntheticSample:
    film = draw_film(rng, side)
    said = " ".join(dict.fromkeys(h.said for h in film.happenings))
    return SyntheticSample("clip_summary", _ask(film, SUMMARY_PROMPT), said, FreeTruth(said), film.marks)


def boxes(rng: random.Random, side: Side) -> SyntheticSample:
    """Where a thing is in each of a few frames, as tasks.video.locate_in_video asks: it comes and goes and moves."""
    theme, clear = draw_theme(rng, side)
    size = (rng.randint(80, 160), rng.randint(80, 160))
    name, other = draw_names(rng, 2)
    spec, others = Spec(name, rng.choice(clear)), Spec(other, rng.choice(clear))
    ground = paint_background(rng, theme, size)
    step = rng.choice((0.5, 1.0, 2.0))
    parts: list[Part] = []
    seen: list[tuple[float, Thing, int]] = []
    for number in range(rng.randint(2, 5)):
        frame = ground.copy()
        put(rng, frame, others, _somewhere(rng, size, 0), Style())
        if number == 0 or rng.random() < 0.75:
            seen.append((number * step, put(rng, frame, spec, _somewhere(rng, size, 1), Style()), number))
        parts += [TextPart(f"<{number * step:.1f} seconds>"), ImagePart(frame)]
    question = TextPart(OBJECTS_PROMPT.format(query=spec.words))
    entries = [{"time": t, "bbox_2d": relative_box(x.box, size), "label": spec.words} for t, x, _ in seen]
    answer = "```json\n[\n" + ",\n".join(f"\t{json.dumps(entry)}" for entry in entries) + "\n]\n```"
    items: tuple[Labelled, ...] = tuple((spec.words, thing.box) for _, thing, _ in seen)
    marks = tuple(Mark(thing.box, spec.words, picture=number) for _, thing, number in seen)
    return SyntheticSample("clip_boxes", (Message("user", (*parts, question)),), answer, BoxesTruth(items), marks)


def _somewhere(rng: random.Random, size: tuple[int, int], half: int) -> Cell:
    """In the left or right half, so that two things never meet."""
    side = rng.uniform(0.3, 0.6) * min(size[0] / 2, size[1])
    x = rng.uniform(side / 2, size[0] / 2 - side / 2) + half * size[0] / 2
    return Cell(x, rng.uniform(side / 2, size[1] - side / 2), side)


TASKS: dict[str, Task] = {
    "clip_moment_small": moment_small,
    "clip_moment": moment,
    "clip_events": events,
    "clip_second": second,
    "clip_summary": summary,
    "clip_boxes": boxes,
}
