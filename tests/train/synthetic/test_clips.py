"""Clips: what the frames show is what the moments say, at the times that the processor tells."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from PIL import Image, ImageChops

from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video import prepare_video
from qwen3vl.tasks.parsing_time import parse_time, read_events
from qwen3vl.train.synthetic.acts import Act, Stage, appear, bounce, light, move, recolour, span, spans
from qwen3vl.train.synthetic.answers import (
    boxes_answer,
    clock,
    moments_answer,
    reading_order,
    relative_box,
    relative_point,
)
from qwen3vl.train.synthetic.arrange import Cell, Spec
from qwen3vl.train.synthetic.clips import Film, draw_film

STAGE = Stage("train", 30, (96, 64), (255, 255, 255), ("red", "blue", "green"))
CELL, SPEC = Cell(40, 32, 40), Spec("star", "red")
SETTINGS = VisionSettings(16, 2, 2, 1024, 1 << 22, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def drawn(act: Act) -> list[Image.Image]:
    frames = [Image.new("RGB", STAGE.size, STAGE.ground) for _ in range(STAGE.num_frames)]
    for number, frame in enumerate(frames):
        act.draw(frame, number)
    return frames


def changes(frames: list[Image.Image]) -> list[int]:
    """Numbers of the frames that differ from the one before."""
    return [i for i in range(1, len(frames)) if ImageChops.difference(frames[i - 1], frames[i]).getbbox()]


@pytest.mark.parametrize("make", [appear, recolour, light])
@pytest.mark.parametrize("seed", range(6))
def test_the_picture_changes_at_the_ends_of_moments(make: Callable[..., Act], seed: int) -> None:
    act = make(random.Random(seed), STAGE, CELL, SPEC)
    ends = {end for h in act.happenings for end in (h.first, h.after)} - {STAGE.num_frames}
    assert changes(drawn(act)) == sorted(ends)


@pytest.mark.parametrize("seed", range(6))
def test_movement_is_seen_from_first_to_after(seed: int) -> None:
    act = move(random.Random(seed), STAGE, CELL, SPEC)
    (happening,) = act.happenings
    assert changes(drawn(act)) == list(range(happening.first, happening.after))


@pytest.mark.parametrize("seed", range(8))
def test_a_ball_touches_the_wall_in_that_frame_only(seed: int) -> None:
    act = bounce(random.Random(seed), STAGE, CELL, SPEC)
    touching = []
    for number, frame in enumerate(drawn(act)):
        seen = ImageChops.difference(frame, Image.new("RGB", STAGE.size, STAGE.ground)).getbbox()
        assert seen is not None
        if seen[0] <= 1 or seen[2] >= STAGE.size[0] - 1:
            touching.append((number, "left" if seen[0] <= 1 else "right"))
    assert touching == [(h.first, h.said.split()[-2]) for h in act.happenings]


def test_spans_have_two_frames_and_do_not_meet() -> None:
    for seed in range(200):
        times = spans(random.Random(seed), 16 + seed % 40)
        assert all(first > 0 and first + 2 <= after <= 16 + seed % 40 for first, after in times)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(times))
        assert span(random.Random(seed), 5)[0] >= 1


def test_the_processor_tells_these_times() -> None:
    film = draw_film(random.Random(1), "train", (8, 12), most=1)
    receipt = prepare_video(film.part, SETTINGS).receipt
    assert receipt.duration == pytest.approx(len(film.frames) / film.rate)
    assert receipt.frame_times[: len(film.frames)] == pytest.approx([i / film.rate for i in range(len(film.frames))])
    assert receipt.timestamps[0] == pytest.approx(0.5 / film.rate)
    for happening in film.happenings:
        start, end, _ = film.moment(happening)
        assert 0 < start <= end <= receipt.duration


def test_a_second_is_a_frame() -> None:
    act = appear(random.Random(0), STAGE, CELL, SPEC)
    film = Film((), 2.0, act.happenings)
    first = act.happenings[0]
    assert film.moment(first) == (first.first / 2, first.after / 2, "A red star is shown.")


def test_clock_and_moments() -> None:
    assert clock(83.5) == "01:23.50" and clock(0) == "00:00.00" and clock(59.999) == "01:00.00"
    assert all(parse_time(clock(i / 4)) == i / 4 for i in range(400))
    moments = ((1.0, 2.5, "A star is shown."), (1.0, 2.5, "The light is on."))
    assert moments_answer(moments[:1]) == '{\n    "00:01.00 - 00:02.50": "A star is shown."\n}'
    read = read_events(moments_answer(moments))
    assert [(e.start, e.end, e.text) for e in read.items] == list(moments) and not read.notes
    assert read_events(moments_answer(())).items == ()


def test_reading_order() -> None:
    boxes = [(50.0, 10.0, 60.0, 30.0), (5.0, 14.0, 20.0, 40.0), (0.0, 22.0, 9.0, 50.0), (40.0, 25.0, 45.0, 40.0)]
    assert reading_order(boxes, lambda b: b) == [boxes[1], boxes[0], boxes[2], boxes[3]]


def test_answers_count_to_999() -> None:
    assert relative_box((10, 20, 110, 220), (448, 224)) == [22, 89, 246, 982]
    assert relative_box((0, 0, 448, 224), (448, 224)) == [0, 0, 999, 999]
    assert relative_point((224, 112), (448, 224), 999) == [500, 500]
    assert boxes_answer((), (10, 10)) == "```json\n[]\n```"
    assert boxes_answer((("a", (0, 0, 5, 5)),), (10, 10)) == (
        '```json\n[\n\t{"bbox_2d": [0, 0, 500, 500], "label": "a"}\n]\n```'
    )
