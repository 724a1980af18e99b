"""Conversations that ask several things about one look."""

from __future__ import annotations

import pytest
from PIL import Image

from qwen3vl.train.synthetic.interviews import TASKS, chained
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.sample import NumberTruth, SyntheticSample
from qwen3vl.train.synthetic.scenes import ask
from qwen3vl.types import ImagePart, TextPart, VideoPart
from tests.train.synthetic.fonts import base_fonts

__all__ = ["base_fonts"]


def test_turns_follow_each_other_and_the_last_one_is_the_sample() -> None:
    picture = Image.new("RGB", (32, 32))
    singles = [SyntheticSample("count", ask(picture, f"{n}?"), str(n), NumberTruth(n), ()) for n in range(3)]
    whole = chained("interview", singles)
    said = [(m.role, [p.text for p in m.content if isinstance(p, TextPart)]) for m in whole.messages]
    assert said == [
        ("user", ["0?"]), ("assistant", ["0"]), ("user", ["1?"]), ("assistant", ["1"]), ("user", ["2?"]),
    ]  # fmt: skip
    assert (whole.task, whole.answer, whole.truth) == ("interview", "2", NumberTruth(2))


@pytest.mark.parametrize("task", TASKS)
def test_the_picture_stands_in_the_first_turn_alone_and_no_question_comes_twice(task: str) -> None:
    turns = []
    for index in range(12):
        sample = make_sample(task, "train", 3, index)
        users = [m for m in sample.messages if m.role == "user"]
        assert [any(isinstance(p, ImagePart | VideoPart) for p in m.content) for m in users] == [
            at == 0 for at in range(len(users))
        ]
        questions = [str(m.content[-1]) for m in users]
        assert len(set(questions)) == len(questions), questions
        roles = [m.role for m in sample.messages if m.role != "system"]
        assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))] and roles[-1] == "user"
        turns.append(len(users))
    assert max(turns) > (1 if task == "interview_text" else 2)
