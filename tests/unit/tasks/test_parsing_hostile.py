# ruff: noqa: E501  (answers stand as they were given)
"""Answers with slips that a person reads without trouble: nothing of them may be lost.

Each line: what a person reads, and the answer.
"""

from __future__ import annotations

import random

import pytest

from qwen3vl.tasks.parsing import read_entries, read_events, without_reasoning
from tests.unit.tasks.recorded import answer

PLACES = [
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}; {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}'),
    (2, '```json\n{"bbox_2d": [1, 2, 3, 4], "label": "a"}\n```\n```json\n{"bbox_2d": [5, 6, 7, 8], "label": "b"}\n```'),
    (2, '```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"},\n```json\n[{"bbox_2d": [5, 6, 7, 8], "label": "b"}]\n```'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": 5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": 5, 6, 7, 8, "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, "bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d: [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": a}, {"bbox_2d": [5, 6, 7, 8], label: "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a", {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (
        3,
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a" {"bbox_2d": [5, 6, 7, 8], "label": "b"}, {"bbox_2d": [5, 6, 7, 9], "label": "b"}]',
    ),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "5" TV"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a \\"quoted"}, {"bbox_2d": [5, 6, 7, 8], "label": "b\\"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a}"}, {"bbox_2d": [5, 6, 7, 8], "label": "[b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label":}, {"bbox_2d": [5, 6, 7, 8], "label": }]'),
    (2, '[[1,2,3,4,"a"],[5,6,7,8,"b"]]'),
    (2, '[["a",[1,2,3,4]],["b",[5,6,7,8]]]'),
    (2, '{"label": ["a","b"], "bbox_2d": [[1,2,3,4],[5,6,7,8]]}'),
    (2, "| label | bbox |\n|---|---|\n| a | [1,2,3,4] |\n| b | [5,6,7,8] |"),
    (2, "a: (1,2),(3,4)\nb: (5,6),(7,8)"),
    (2, "<box>(1,2),(3,4)</box> and <box>(5,6),(7,8)</box>"),
    (2, "<ref>a</ref><box>(1,2),(3,4)</box><ref>b</ref><box>(5,6),(7,8)</box>"),
    (2, "- a: bbox_2d [1,2,3,4]\n- b: bbox_2d [5,6,7,8]"),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}\n\n\t{"bbox_2d": [5, 6, 7, 8], "label": "b"}'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"},\n{"bbox_2d": [5, 6, 7, 8}, "label": "b"}]'),
    (2, '[{"bbox_2d": (1, 2, 3, 4), "label": "a"},\n{"bbox_2d": (5, 6, 7, 8), "label": "b"}]'),
    (2, '[{"bbox_2d": {1, 2, 3, 4}, "label": "a"},\n{"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": "[1, 2, 3, 4]", "label": "a"},\n{"bbox_2d": "<5, 6, 7, 8>", "label": "b"}]'),
    (2, '[{"bbox_2d": [1.0, 2.5, 3, 4], "label": "a"},\n{"bbox_2d": [5, 6, 7, 8.], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}'),
    (2, '"[{\\"bbox_2d\\": [1, 2, 3, 4], \\"label\\": \\"a\\"}, {\\"bbox_2d\\": [5, 6, 7, 8], \\"label\\": \\"b\\"}]"'),
    (2, '[{\\"bbox_2d\\": [1, 2, 3, 4], \\"label\\": \\"a\\"}, {\\"bbox_2d\\": [5, 6, 7, 8], \\"label\\": \\"b\\"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}, {"bbox_2d": ['),
    (2, 'json\n[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, "~~~json\n[{'bbox_2d': [1, 2, 3, 4], 'label': 'dog's tail'}, {'bbox_2d': [5, 6, 7, 8], 'label': 'b'}]\n~~~"),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a",}, {"bbox_2d": [5, 6, 7, 8,], "label": "b",},]'),
    (
        2,
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a", "sub": {"x": 1}, {"bbox_2d": [5, 6, 7, 8], "label": "b", "sub": {"x": 1}}]',
    ),
    (
        3,
        '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}], [{"bbox_2d": [5, 6, 7, 9], "label": "c"}]',
    ),
    (2, '<points x1="1" y1="2" x2="3" y2="4" alt="a"/>'),
    (2, "<points x1=1 y1=2>a</points><points x1=3 y1=4>b</points>"),
    (1, "<points 1, 2>a</points>"),
    (1, "<point>(1, 2)</point>"),
    (1, "<point>1 2</point>"),
    (2, '{"point_2d": [1, 2], "label": "a"}\n{"point_2d": [3, 4], "label": "a"}'),
    (1, "(447, 81)"),
    (1, "[447, 81]"),
    (1, "The point is (447, 81)."),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, null, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, "and", {"bbox_2d": [5, 6, 7, 8], "label": "b"}]'),
    (2, '[{"bbox_2d":[1,2,3,4]"label":"a"},{"bbox_2d":[5,6,7,8]"label":"b"}]'),
    (2, '[{"bbox_2d" :[1,2,3,4],label:"a"},{"bbox_2d"::[5,6,7,8],"label":"b"}]'),
    (2, '[{"bbox_2d": [1 2 3 4], "label": "a"}, {"bbox_2d": [5;6;7;8], "label": "b"}]'),
    (2, '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]<|im_end|>'),
]

EVENTS = [
    (2, '{"00:01 - 00:02": "a", "00:03 - 00:04": "b"'),
    (2, '{"00:01.00 - 00:02.00": "a" "00:03.00 - 00:04.00": "b"}'),
    (
        2,
        '```json\n[{"start": "00:01", "end": "00:02", "event": "a"}, {"start": "00:03", "end": "00:04", "event": "b"}]```',
    ),
    (2, '{"00:01-00:02": "a", "00:03-00:04": "b"}'),
    (2, '{00:01 - 00:02: "a", 00:03 - 00:04: "b"}'),
    (2, '{"00:01 - 00:02": "a"}, {"00:03 - 00:04": "b"}'),
    (2, '[{"time": "00:01 - 00:02", "description": "a"}, {"time": ["00:03","00:04"], "description": "b"}]'),
    (2, '[{"time_range": [1.5, 2.5], "caption": "a"}, {"start_sec": 3, "end_sec": 4, "caption": "b"}]'),
    (2, "1. 00:01 - 00:02: a\n2. 00:03 - 00:04: b"),
    (2, "| Time | Event |\n|---|---|\n| 00:01 - 00:02 | a |\n| 00:03 - 00:04 | b |"),
    (2, "[00:01 --> 00:02] a\n[00:03 --> 00:04] b"),
    (2, "**[00:01 - 00:02]** a\n**[00:03 - 00:04]** b"),
    (2, '{"events": {"00:01 - 00:02": {"event": "a"}, "00:03 - 00:04": {"event": "b"}}}'),
    (1, "The event happens in 3.5 - 7.2 seconds."),
    (1, '{"start": 3.5, "end": 7.2}'),
    (1, "[3.5, 7.2]"),
    (1, "From 12 to 15 seconds"),
]

TEXTS = [
    (
        ['He said "hi"', "x"],
        '[{"bbox_2d":[1,2,3,4],"text_content":"He said "hi""},{"bbox_2d":[1,2,3,5],"text_content":"x"}]',
    ),
    (["C:\\dir", "x"], '[{"bbox_2d":[1,2,3,4],"text_content":"C:\\dir"},{"bbox_2d":[1,2,3,5],"text_content":"x"}]'),
    (['"', "x"], '[{"bbox_2d":[1,2,3,4],"text_content":"""},{"bbox_2d":[1,2,3,5],"text_content":"x"}]'),
    (['a, "b"', "x"], '[{"bbox_2d":[1,2,3,4],"text_content":"a, "b""},{"bbox_2d":[1,2,3,5],"text_content":"x"}]'),
    (["it's", "x"], "[{'bbox_2d':[1,2,3,4],'text_content':'it's'},{'bbox_2d':[1,2,3,5],'text_content':'x'}]"),
    (
        ["don't, 'quote', x", "x"],
        "[{'bbox_2d':[1,2,3,4],'text_content':\"don't, 'quote', x\"},{'bbox_2d':[1,2,3,5],'text_content':'x'}]",
    ),
    (["100", "x"], '[{"bbox_2d":[1,2,3,4],"text_content":100},{"bbox_2d":[1,2,3,5],"text_content":"x"}]'),
    (["", "x"], '[{"bbox_2d":[1,2,3,4],"text_content":""},{"bbox_2d":[1,2,3,5],"text_content":"x"}]'),
]


@pytest.mark.parametrize(("count", "text"), PLACES)
def test_every_place_is_read(count: int, text: str) -> None:
    entries = read_entries(text)
    assert len(entries.items) == count
    numbers = [e.numbers for e in entries.items]
    if text.count("1, 2, 3, 4") == 1 and "5, 6, 7, 8" in text:
        assert numbers[:2] == [(1, 2, 3, 4), (5, 6, 7, 8)]


@pytest.mark.parametrize(("count", "text"), EVENTS)
def test_every_event_is_read(count: int, text: str) -> None:
    assert len(read_events(text).items) == count


@pytest.mark.parametrize(("texts", "text"), TEXTS)
def test_every_text_is_read(texts: list[str], text: str) -> None:
    assert [e.label for e in read_entries(text).items] == texts


def test_reasoning_is_no_answer() -> None:
    text = '<think>maybe [{"bbox_2d": [9, 9, 9, 10]}]</think>[{"bbox_2d": [1, 2, 3, 4], "label": "a"}]'
    assert [e.numbers for e in read_entries(without_reasoning(text)).items] == [(1, 2, 3, 4)]


@pytest.mark.parametrize("name", ["grounding2d_ex1_dining", "ocr_line_spotting", "thirdparty_grounding2d_15"])
def test_one_wrong_character_costs_at_most_one_entry(name: str) -> None:
    text, rng = answer(name), random.Random(7)
    whole = {(e.numbers, e.label) for e in read_entries(text).items}
    for _ in range(100):
        at, wrong = rng.randrange(12, len(text) - 5), rng.choice('{}[]",: \n\t0')
        damaged = text[:at] + rng.choice([wrong, "", wrong + text[at]]) + text[at + 1 :]
        read = {(e.numbers, e.label) for e in read_entries(damaged).items}
        assert len(whole - read) <= 1, damaged[max(0, at - 30) : at + 30]


@pytest.mark.parametrize(
    "place",
    ["[1, 2, 3:, 4]", "[1, 2[, 3, 4]", "[1], 2, 3, 4]", "[1, 2, 3, 4{]", "[1, 2, 3, 4", "1, 2, 3, 4]", "[1, 2;, 3, 4)"],
)
def test_damaged_places_are_read_when_their_numbers_are_all_there(place: str) -> None:
    entries = read_entries('[{"bbox_2d": ' + place + ', "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]')
    assert [(e.numbers, e.label) for e in entries.items] == [((1, 2, 3, 4), "a"), ((5, 6, 7, 8), "b")]
    assert entries.notes


def test_what_is_in_doubt_is_not_guessed() -> None:
    entries = read_entries('[{"bbox_2d": [1, 2, 3, 4,5], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}]')
    assert [e.label for e in entries.items] == ["b"] and "'a'" in entries.notes[0]
