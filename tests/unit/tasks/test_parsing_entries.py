"""Boxes and points: every recording, every form, and answers cut anywhere."""

from __future__ import annotations

import re

import pytest

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_entries import Entry, read_entries
from tests.unit.tasks.recorded import BROKEN_OMNI, answer

WITH_PLACES = {  # recording -> entries, first and last
    "grounding2d_ex1_dining": (27, (74, 361, 324, 808), "plate/dish", (557, 839, 605, 999), "chopsticks"),
    "thirdparty_grounding2d_9": (26, (75, 365, 319, 810), "plate/dish", (893, 425, 999, 464), "chopsticks"),
    "thirdparty_grounding2d_11": (63, (11, 862, 54, 903), "car", (259, 901, 272, 935), "pedestrian"),
    "thirdparty_grounding2d_15": (23, (40, 625), "person", (494, 105), "person"),
    "ocr_line_spotting": (40, (709, 22, 976, 82), "A06002", (259, 947, 670, 971), "Facebook.com/BarWangRice"),
    "spatial_11": (1, (925, 618), "point_1", (925, 618), "point_1"),
    "3d_14_office": (1, (-0.4, -0.26, 2.71, 0.76, 0.96, 0.78, 0.16, 0.13, 0.08), "black chair", None, "black chair"),
}


@pytest.mark.parametrize("name", WITH_PLACES)
def test_recordings(name: str) -> None:
    count, first, first_label, last, last_label = WITH_PLACES[name]
    entries = read_entries(answer(name))
    assert len(entries.items) == count and not entries.notes and not entries.repeats and entries.complete
    assert (entries.items[0].numbers, entries.items[0].label) == (first, first_label)
    assert (entries.items[-1].numbers, entries.items[-1].label) == (last or first, last_label)


def test_recorded_attributes_and_driving() -> None:
    person = read_entries(answer("thirdparty_grounding2d_15")).items[9]
    assert person.attributes == {"role": "referee", "shirt_color": "black"} and person.kind == "point"
    cars = read_entries(answer("3d_11_autonomous_driving")).items
    assert [c.kind for c in cars] == ["box_3d", "box_3d"] and cars[1].numbers[2] == 14.78


def test_the_broken_recognition_answer_gives_nine_of_nine() -> None:
    entries = read_entries(BROKEN_OMNI)
    assert len(entries.items) == 9
    assert entries.items[5] == Entry(
        "box", (280, 404, 520, 672), "肠粉", {"name_zh": "肠粉", "name_en": "Rice noodle rolls"}
    )
    assert any("opened twice" in note for note in entries.notes)


CUTTABLE = [*WITH_PLACES, "3d_11_autonomous_driving"]


@pytest.mark.parametrize("name", CUTTABLE)
def test_a_cut_answer_keeps_every_entry_that_was_whole(name: str) -> None:
    text = answer(name)
    whole = read_entries(text).items
    ends = [m.end() for m in re.finditer(r"\{[^{}]*\}", text)]
    assert len(ends) == len(whole)
    for cut in range(0, len(text), 7):
        expected = sum(end <= cut for end in ends)
        try:
            read = read_entries(text[:cut])
        except ParseError:
            assert expected == 0
            continue
        assert read.items[:expected] == whole[:expected], cut
        assert len(read.items) <= expected + 1
        assert len(read.items) == expected or not read.complete, "a half entry that is not said"


def test_the_broken_answer_cut_anywhere() -> None:
    whole = read_entries(BROKEN_OMNI).items
    ends = [m.end() for m in re.finditer(r"\{[^{}]*\}", BROKEN_OMNI)]
    for cut in range(ends[0], len(BROKEN_OMNI), 7):
        expected = sum(end <= cut for end in ends)
        assert read_entries(BROKEN_OMNI[:cut]).items[:expected] == whole[:expected]


def box(*numbers: float, label: str = "") -> Entry:
    return Entry("box", numbers, label)


def point(*numbers: float, label: str = "") -> Entry:
    return Entry("point", numbers, label)


FORMS = [
    (
        '{"car": [[1,2,3,4],[5,6,7,8]], "bus": [9,9,10,10]}',
        [box(1, 2, 3, 4, label="car"), box(5, 6, 7, 8, label="car"), box(9, 9, 10, 10, label="bus")],
    ),
    ('{"objects": [{"bbox": "1, 2, 3, 4", "name": "a"}]}', [box(1, 2, 3, 4, label="a")]),
    ('{"bbox_2d": [[1,2],[3,4]], "label": "x"}', [box(1, 2, 3, 4, label="x")]),
    ('{"bbox_2d": {"x1":1,"y1":2,"x2":3,"y2":4}, "label": "x"}', [box(1, 2, 3, 4, label="x")]),
    ('{"x": 1, "y": 2, "width": 10, "height": 20, "label": "x"}', [box(1, 2, 11, 22, label="x")]),
    ('{"bbox_2d": [["1","2","3","4"]], "label": "x"}', [box(1, 2, 3, 4, label="x")]),
    (
        '{"bbox_2d": [1,2,3,4], "label": "a", "bbox_2d": [5,6,7,8], "label": "b"}',
        [box(1, 2, 3, 4, label="a"), box(5, 6, 7, 8, label="b")],
    ),
    (
        '{"cup": {"bbox_2d": [1,2,3,4]}, "spoon": {"bbox_2d": [1,2,3,4]}}',
        [box(1, 2, 3, 4, label="cup"), box(1, 2, 3, 4, label="spoon")],
    ),
    ('{"quad": [1,2, 9,3, 8,7, 0,6], "label": "tilted"}', [box(0, 2, 9, 7, label="tilted")]),
    (
        '{"points": [[1,2],[3,4],[5,6]], "label": "q"}',
        [point(1, 2, label="q"), point(3, 4, label="q"), point(5, 6, label="q")],
    ),
    ("[[1,2,3,4],[5,6,7,8]]", [box(1, 2, 3, 4), box(5, 6, 7, 8)]),
    ("- red car: [1, 2, 3, 4]\n- bus: (5,6),(7,8)\n", [box(1, 2, 3, 4, label="red car"), box(5, 6, 7, 8, label="bus")]),
    ("1. **Bus** [1,2,3,4]", [box(1, 2, 3, 4, label="Bus")]),
    ('<points x1="10" y1="20" x2="30" y2="40">pin</points>', [point(10, 20, label="pin"), point(30, 40, label="pin")]),
    ("<points 447 81>rolling pin</points>", [point(447, 81, label="rolling pin")]),
    ('<point x="1.5" y="2" alt="knob">', [point(1.5, 2, label="knob")]),
    ("<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", [box(1, 2, 3, 4, label="cat")]),
    ("[]", []),
]


@pytest.mark.parametrize(("text", "items"), FORMS)
def test_forms(text: str, items: list[Entry]) -> None:
    assert list(read_entries(text).items) == items


def test_loops_are_cut_and_counted() -> None:
    loop = '\t{"bbox_2d": [1, 2, 3, 4], "label": "car"},\n\t{"bbox_2d": [5, 2, 8, 4], "label": "car"},\n'
    entries = read_entries("```json\n[\n" + loop * 40 + '\t{"bbox_2d": [1, 2, 3')
    assert len(entries.items) == 2 and entries.repeats == 78 and not entries.complete
    assert any("78 repeated" in note for note in entries.notes)


def test_what_cannot_be_placed_is_said() -> None:
    entries = read_entries('[{"bbox_2d": [1, 2, 3], "label": "x"}, {"label": "tv"}, {"bbox_2d": [1, 2, 3, 4]}]')
    assert len(entries.items) == 1
    assert "'x'" in entries.notes[0] and "tv" in entries.notes[1]


@pytest.mark.parametrize("text", ["There are none.", '{"label": "tv"}', ""])
def test_an_answer_without_places_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        read_entries(text)
