"""Scenes, screens, pairs, clips and talk: every answer is read by its capability as the truth, and comes out again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams
from qwen3vl.train.scoring import score
from qwen3vl.train.synthetic import (
    beginnings,
    clips,
    compare,
    scene_questions,
    scenes,
    talk,
    true_false,
    widget_tasks,
)
from qwen3vl.train.synthetic.registry import make_sample, tasks
from qwen3vl.train.synthetic.sample import ChoiceTruth, NumberTruth, Side, SyntheticSample
from qwen3vl.types import ImagePart, VideoPart

MODULES = (beginnings, scenes, scene_questions, true_false, widget_tasks, compare, clips, talk)
NAMES = [name for module in MODULES for name in module.TASKS]
SIDES: tuple[Side, ...] = ("train", "heldout")


def sample(name: str, side: Side, index: int) -> SyntheticSample:
    try:
        return make_sample(name, side, 5, index)
    except InvalidParams as error:  # only where letters are drawn
        if "no fonts" not in str(error):
            raise
        pytest.skip(str(error))


def frames(made: SyntheticSample) -> Iterator[Image.Image]:
    for part in made.pictures:
        shown = part.video if isinstance(part, VideoPart) else [part.image]
        assert isinstance(shown, list)
        for picture in shown:
            assert isinstance(picture, Image.Image)
            yield picture


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_read_as_the_truth(name: str, side: Side) -> None:
    assert name in tasks()
    for index in range(6):
        made = sample(name, side, index)
        result = score(made, made.answer)
        assert result.perfect, (made.key, made.messages[-1].text, made.answer, made.truth, result)
        assert all(64 <= max(p.size) <= 700 and min(p.size) >= 32 for p in frames(made))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers_give_the_same_sample(name: str) -> None:
    first, again, other = (sample(name, "train", i) for i in (3, 3, 4))
    assert (first.answer, first.truth, first.marks) == (again.answer, again.truth, again.marks)
    assert [p.tobytes() for p in frames(first)] == [p.tobytes() for p in frames(again)]
    assert [p.tobytes() for p in frames(first)] != [p.tobytes() for p in frames(other)]
    assert first.messages[-1].text == again.messages[-1].text


@pytest.mark.parametrize("name", NAMES)
def test_marks_lie_in_their_picture(name: str) -> None:
    for index in range(4):
        made = sample(name, "heldout", index)
        for mark in made.marks:
            part = made.pictures[mark.picture]
            shown = part.image if isinstance(part, ImagePart) else part.video[0]  # type: ignore[index]
            assert isinstance(shown, Image.Image)
            x1, y1, x2, y2 = mark.place
            assert -1 <= x1 < x2 <= shown.width + 1 and -1 <= y1 < y2 <= shown.height + 1, made.key


def test_another_answer_is_wrong() -> None:
    """The score can fail: the answer of another sample of the same task is not perfect everywhere."""
    for name in ("locate", "point", "count", "question_color", "widget_click", "clip_moment", "compare_same"):
        made = [sample(name, "train", i) for i in range(5)]
        assert not all(score(a, b.answer).perfect for a in made for b in made), name


@pytest.mark.parametrize(
    "name", ["true_false_boxes", "true_false_towers", "true_false_scene", "compare_same", "question_presence"]
)
def test_two_answers_come_equally_often(name: str) -> None:
    truths = [sample(name, "train", i).truth for i in range(80)]
    answers = [t.answer for t in truths if isinstance(t, ChoiceTruth)]
    share = answers.count(answers[0]) / len(answers)
    assert len(answers) == 80 and 0.33 < share < 0.67, share  # three standard deviations


def test_counts_are_spread() -> None:
    truths = [sample("count", "heldout", i).truth for i in range(120)]
    values = [int(t.value) for t in truths if isinstance(t, NumberTruth)]
    assert set(range(11)) <= set(values) and max(values) > 10
    assert max(values.count(v) for v in range(11)) < 30


def test_places_are_spread() -> None:
    said = [sample("question_place", "train", i).answer.split(". ")[-1] for i in range(120)]
    assert set(said) == set(scene_questions.ZONES) and max(map(said.count, said)) < 40


def test_computer_use_offers_its_tool() -> None:
    made = sample("widget_click", "train", 0)
    assert [t["function"]["name"] for t in made.tools] == ["computer_use"]
    assert made.messages[0].role == "system" and '"left_click"' in made.answer
