"""Several questions about one picture, screen or clip, one turn after the other.

To look costs a small model several times as much as to answer, so one look serves many answers. Every turn is one
of the single tasks' own, with its wording and its answer; the last one is what a sample's truth is about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from qwen3vl.train.synthetic import clips, forms, reading, scene_questions
from qwen3vl.train.synthetic.arrange import Scene, Thing
from qwen3vl.train.synthetic.sample import Mark, NumberTruth, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scene_questions import Asker, chosen
from qwen3vl.train.synthetic.scenes import (
    COUNTS,
    Query,
    ask,
    counted_scene,
    draw_queries,
    draw_scene,
    found_by,
    located,
    pointed,
)
from qwen3vl.train.synthetic.widget_layouts import draw_board
from qwen3vl.train.synthetic.widget_tasks import clicked, instruction
from qwen3vl.types import Message, TextPart

_ASKERS: tuple[Asker, ...] = (
    scene_questions.colour,
    scene_questions.kind,
    scene_questions.size,
    scene_questions.place,
    scene_questions.relation,
    scene_questions.extreme,
    scene_questions.presence,
)
_OFTEN = (scene_questions.colour, scene_questions.kind, scene_questions.place, scene_questions.relation)
Turn = Callable[[random.Random, Scene], SyntheticSample | None]


def chained(task: str, singles: Sequence[SyntheticSample]) -> SyntheticSample:
    """One conversation of samples about the same thing, which stands in the first turn alone."""
    messages = list(singles[0].messages)
    for before, sample in pairwise(singles):
        (question,) = (part for part in sample.messages[-1].content if isinstance(part, TextPart))
        messages += [Message("assistant", (TextPart(before.answer),)), Message("user", (question,))]
    return replace(singles[-1], task=task, messages=tuple(messages))


def scene_interview(rng: random.Random, side: Side) -> SyntheticSample:
    return _about_scene("interview_scene", rng, draw_scene(rng, side, most=7, high=256), 7)


def small_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """One to three things in a small picture: what a beginner can learn."""
    return _about_scene("interview_small", rng, draw_scene(rng, side, most=2, high=112), 5)


def question_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """Short answers alone: what a box takes forty tokens to say is twelve questions here."""
    forms = [*map(_question, _ASKERS), *map(_question, _OFTEN), _count, _count, _count]
    return _about_scene("interview_questions", rng, draw_scene(rng, side, most=7, high=256), 12, forms)


def count_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """Up to six counts in one picture, each of other things: no number can be had from one that was said before."""
    scene, query = counted_scene(rng, side)
    names, colours = {t.name for t in scene.things}, {t.colour for t in scene.things}
    queries = [Query(name, colour) for name in sorted(names | {""}) for colour in sorted(colours | {""})]
    rng.shuffle(queries)
    different: dict[tuple[Thing, ...], Query] = {}
    for each in (query, *queries):
        different.setdefault(tuple(thing for _, thing in found_by([each], scene.things)), each)
    chosen_queries = list(different.values())[:6]
    rng.shuffle(chosen_queries)
    return chained("interview_counts", [_counted(rng, scene, each) for each in chosen_queries])


def _about_scene(
    task: str, rng: random.Random, scene: Scene, most: int, forms: Sequence[Turn] | None = None
) -> SyntheticSample:
    forms = forms or [*map(_question, _ASKERS), _count, _count, _boxes, _point]
    singles: dict[str, SyntheticSample] = {}
    for form in rng.sample(forms, len(forms)):
        sample = form(rng, scene)
        if sample is not None and len(singles) < most:
            singles[str(sample.messages[-1].content[-1])] = sample
    return chained(task, list(singles.values()))


def _question(asker: Asker) -> Turn:
    def turn(rng: random.Random, scene: Scene) -> SyntheticSample | None:
        asked = asker(rng, scene)
        return None if asked is None else chosen(rng, "", scene.picture, asked)

    return turn


def _count(rng: random.Random, scene: Scene) -> SyntheticSample:
    return _counted(rng, scene, rng.choice((*draw_queries(rng, scene), Query())))


def _counted(rng: random.Random, scene: Scene, query: Query) -> SyntheticSample:
    found = found_by([query], scene.things)
    marks = tuple(Mark(thing.box, str(i)) for i, (_, thing) in enumerate(found, start=1))
    question = rng.choice(COUNTS).format(query.plural)
    return SyntheticSample("", ask(scene.picture, question), str(len(found)), NumberTruth(len(found)), marks)


def _boxes(rng: random.Random, scene: Scene) -> SyntheticSample:
    queries = draw_queries(rng, scene)
    items = tuple((query.words, thing.box) for query, thing in found_by(queries, scene.things))
    return located("", scene.picture, [query.words for query in queries], items)


def _point(rng: random.Random, scene: Scene) -> SyntheticSample | None:
    query = rng.choice(draw_queries(rng, scene))
    found = found_by([query], scene.things)
    items = tuple((words.words, thing.box) for words, thing in found)
    return pointed("", scene.picture, f"every {query.words}", items) if items else None


def screen_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """Boxes of some widgets and points on others."""
    board = draw_board(rng, side, high=352)
    widgets = rng.sample(board.widgets, min(len(board.widgets), rng.randint(3, 6)))
    singles = []
    for widget in widgets:
        item = ((widget.words, widget.box),)
        if rng.random() < 0.6:
            singles.append(located("", board.picture, [widget.words], item))
        else:
            singles.append(pointed("", board.picture, f"the {widget.words}", item))
    return chained("interview_screen", singles)


def click_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """Clicks of computer_use on a screen that stays as it is."""
    board = draw_board(rng, side, high=352)
    widgets = rng.sample(board.widgets, min(len(board.widgets), rng.randint(4, 10)))
    return chained("interview_clicks", [clicked("", board.picture, instruction(rng, w), w.box) for w in widgets])


def clip_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """When each of the things happens that do."""
    film = clips.draw_film(rng, side, (8, 24), most=3)
    singles = {str(s.messages[-1].content[-1]): s for s in (clips.about(film, "", rng) for _ in range(5))}
    return chained("interview_clip", list(singles.values()))


def receipt_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """Its text, then some of its fields, and others."""
    receipt = forms.draw_receipt(rng, side, 3)
    singles = [forms.receipt_fields("", receipt, least, 3, rng) for least in (1, 2, 3)]
    different = {str(single.messages[-1].content[-1]): single for single in singles}
    return chained("interview_receipt", [forms.receipt_text("", receipt), *different.values()])


def text_interview(rng: random.Random, side: Side) -> SyntheticSample:
    """A block of text, then where its words or lines stand."""
    sheet = reading.block(rng, side)
    level = rng.choice(("word", "word", "line"))
    said = reading.read_all("", lambda *_: sheet, rng, side)
    return chained("interview_text", [said, reading.spot("", lambda *_: sheet, level, rng, side)])


TASKS: dict[str, Task] = {
    "interview_small": small_interview,
    "interview_scene": scene_interview,
    "interview_questions": question_interview,
    "interview_counts": count_interview,
    "interview_screen": screen_interview,
    "interview_clicks": click_interview,
    "interview_clip": clip_interview,
    "interview_receipt": receipt_interview,
    "interview_text": text_interview,
}
