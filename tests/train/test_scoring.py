"""Every kind of truth: answers scored by hand, hostile answers, and the answer itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3vl.agent.schemas import COMPUTER_TOOL
from qwen3vl.tasks import documents, ocr, video
from qwen3vl.tasks.extraction import extract_prompt
from qwen3vl.tasks.grounding import locate_prompt, point_prompt
from qwen3vl.train.scoring import LOWER_IS_BETTER, Score, score
from qwen3vl.train.synthetic.sample import (
    ActionTruth,
    BoxesTruth,
    ChoiceTruth,
    FieldsTruth,
    FreeTruth,
    MomentsTruth,
    NumberTruth,
    PageTruth,
    PointTruth,
    SyntheticSample,
    TableTruth,
    TextTruth,
    Truth,
    ValuesTruth,
)
from qwen3vl.types import ImagePart, Message, TextPart, VideoPart

WIDTH, HEIGHT = 200, 100
TABLE = "<table><tr><th>Name</th><th>No</th></tr><tr><td>Tea</td><td>3</td></tr></table>"
SPOTTING = ocr.SPOTTING_PROMPT.format(level="word")


def made(truth: Truth, answer: str, question: str = "What is it?", **options: Any) -> SyntheticSample:
    picture = ImagePart(Image.new("RGB", (WIDTH, HEIGHT)))
    return SyntheticSample("task", (Message("user", (picture, TextPart(question))),), answer, truth, **options)


def boxes_json(*items: tuple[str, tuple[int, int, int, int]], key: str = "label") -> str:
    return json.dumps([{"bbox_2d": list(box), key: label} for label, box in items])


def clip(truth: MomentsTruth, answer: str) -> SyntheticSample:
    frames = VideoPart([Image.new("RGB", (32, 32))] * 40, frame_rate=4.0)  # ten seconds
    return SyntheticSample("clip", (Message("user", (frames, TextPart(video.EVENTS_PROMPT))),), answer, truth)


def click(x: int, y: int, action: str = "left_click") -> str:
    call = {"name": "computer_use", "arguments": {"action": action, "coordinate": [x, y]}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


SAMPLES = {
    "text": made(TextTruth("Hello World\nagain"), "Hello World\nagain", ocr.PAGE_PROMPT),
    "boxes": made(
        BoxesTruth((("cup", (20, 10, 60, 50)), ("cup", (100, 10, 140, 50)))),
        "```json\n" + boxes_json(("cup", (100, 100, 300, 500)), ("cup", (500, 100, 700, 500))) + "\n```",
        locate_prompt("cup"),
    ),
    "no boxes": made(BoxesTruth(()), "```json\n[]\n```", locate_prompt("cup")),
    "words": made(
        BoxesTruth((("Hi", (20, 10, 60, 50)), ("you", (100, 10, 140, 50)))),
        boxes_json(("Hi", (100, 100, 300, 500)), ("you", (500, 100, 699, 500)), key="text_content"),
        SPOTTING,
    ),
    "point": made(
        PointTruth((("cup", (20, 10, 60, 50)),)), '[{"point_2d": [200, 300], "label": "cup"}]', point_prompt("the cup")
    ),
    "number": made(NumberTruth(7), "7"),
    "counted": made(NumberTruth(2), boxes_json(("cup", (1, 1, 9, 9)), ("cup", (20, 1, 29, 9))), locate_prompt("cup")),
    "letter": made(ChoiceTruth("B", ("A", "B", "C")), "B"),
    "word": made(ChoiceTruth("no", ("yes", "no")), "No."),
    "fields": made(
        FieldsTruth({"company": "Acme Ltd", "total": "12.50"}),
        '{"company": "Acme Ltd", "total": "12.50"}',
        extract_prompt({"company": "", "total": ""}),
    ),
    "table": made(TableTruth(TABLE), TABLE, documents.PROMPTS["html"]),
    "markdown": made(TableTruth(TABLE), "| Name | No |\n| --- | --- |\n| Tea | 3 |", documents.PROMPTS["markdown"]),
    "page": made(
        PageTruth((("text", "Hello", (0, 0, 100, 50)), ("table", TABLE, (0, 50, 200, 100)))),
        f'<html><body>\n<div class="text" data-bbox="0 0 500 500">Hello</div>\n'
        f'<div class="table" data-bbox="0 500 1000 1000">{TABLE}</div>\n</body></html>',
        documents.PROMPTS["html"],
    ),
    "values": made(ValuesTruth({"Mon": 10, "Tue": 20.5}, 0.05), '{"Mon": 10, "Tue": 20.5}'),
    "action": made(ActionTruth("left_click", (20, 10, 60, 50)), click(200, 300), "press OK", tools=(COMPUTER_TOOL,)),
    "typed": made(
        ActionTruth("type", text="tea"),
        '<tool_call>{"name": "mobile_use", "arguments": {"action": "type", "text": "tea"}}</tool_call>',
    ),
    "moments": clip(
        MomentsTruth(((1.0, 2.5, "ball falls"), (4.0, 5.0, "light on"))),
        '{"00:01.00 - 00:02.50": "ball falls", "00:04.00 - 00:05.00": "light on"}',
    ),
    "free": made(FreeTruth("A small red house."), "A small red house."),
}


def values(name: str, answer: str) -> dict[str, float | None]:
    return {metric: part.value for metric, part in score(SAMPLES[name], answer).metrics.items()}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_answer_itself_is_perfect(name: str) -> None:
    found = score(SAMPLES[name], SAMPLES[name].answer)
    assert found.perfect and found.failure is None, found


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("text", "Hello Word\nagain", {"character_error": 1 / 17, "word_error": 1 / 3, "exact": 0}),
        ("text", "```\nHello  World again\n```", {"character_error": 0, "exact": 1}),
        # one box right; one with the wrong label; one beside everything
        (
            "boxes",
            boxes_json(("Cup", (100, 100, 300, 500)), ("mug", (500, 100, 700, 500)), ("cup", (0, 900, 50, 950))),
            {"f1": 2 / 5, "f1_boxes": 4 / 5, "exact": 0},
        ),
        ("boxes", boxes_json(("cup", (100, 100, 300, 299))), {"f1": 0}),  # overlap 0.4975
        ("boxes", boxes_json(("cup", (100, 100, 300, 300))), {"f1": 2 / 3}),  # overlap 0.5
        ("boxes", "[]", {"f1": 0}),
        ("no boxes", boxes_json(("cup", (1, 1, 9, 9))), {"f1": 0, "exact": 0}),
        (
            "words",
            boxes_json(("hi", (100, 100, 300, 500)), ("you", (500, 100, 699, 500)), key="text_content"),
            {"f1": 0.5, "f1_boxes": 1, "character_error": 1 / 6},
        ),
        ("point", '[{"point_2d": [301, 300], "label": "cup"}]', {"hit": 0}),
        ("point", '[{"point_2d": [200, 300]}, {"point_2d": [900, 900]}]', {"hit": 0.5}),
        ("number", "There are 7.", {"exact": 1}),
        ("number", "8", {"exact": 0, "tolerant": 0}),
        ("counted", "[]", {"exact": 0}),
        ("letter", "The answer is **B**", {"accuracy": 1}),
        ("letter", "A or B", {"accuracy": 0}),
        ("word", "No, it is not.", {"accuracy": 1}),
        ("word", "yes", {"accuracy": 0}),
        ("fields", '{"company": "Acme  Ltd", "total": 12.5}', {"fields": 0.5, "fields/company": 1, "fields/total": 0}),
        ("fields", '{"company": "Acme Ltd", "total": "12.50", "tax": "1"}', {"fields": 2 / 3, "exact": 0}),
        ("fields", '{"total": "12.50"}', {"fields": 0.5, "fields/company": 0}),
        ("table", TABLE.replace("Tea", "Ten"), {"teds": 1 - (1 / 3) / 6, "teds_structure": 1, "exact": 0}),
        ("page", '<div class="text" data-bbox="0 0 500 500">Hallo</div>', {"character_error": 0.2, "teds": 0}),
        ("values", '{"Mon": 10.5, "Tue": 22}', {"values": 0.5, "exact": 0}),
        ("values", '{"Mon": "10", "Tue": 20, "Wed": 1}', {"values": 2 / 3}),
        ("action", click(301, 300), {"success": 0, "action": 1, "hit": 0}),
        ("action", click(200, 300, "right_click"), {"success": 0, "action": 0, "hit": 1}),
        ("typed", SAMPLES["typed"].answer.replace("tea", "ten"), {"success": 0, "action": 1}),
        (
            "moments",
            '{"00:01.40 - 00:02.50": "Ball falls.", "00:03.00 - 00:05.00": "light on"}',
            {"f1_half_second": 0.5, "time_error": (0.4 + 1.0) / 4},
        ),
        ("free", "a big red house", {"word_f1": 0.75, "exact": 0}),
    ],
)
def test_by_hand(name: str, answer: str, expected: dict[str, float]) -> None:
    found = values(name, answer)
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected)


def test_a_number_may_be_near() -> None:
    near = score(made(NumberTruth(100, tolerance=5), "100"), "about 1,04.5")
    assert near.metrics["exact"].part == 0 and near.metrics["tolerant"].part == 1


def test_several_points_of_several_kinds() -> None:
    truth = PointTruth((("cup", (0, 0, 100, 100)), ("pen", (100, 0, 200, 100))))
    sample = made(truth, '[{"point_2d": [100, 500], "label": "cup"}, {"point_2d": [900, 500], "label": "pen"}]')
    assert score(sample, sample.answer).perfect
    assert score(sample, sample.answer.replace("cup", "pen").replace('pen"}]', 'cup"}]')).metrics["hit"].part == 0


def test_attributes_of_boxes() -> None:
    def answer(*colours: str) -> str:
        boxes = ([100, 100, 300, 500], [500, 100, 700, 500])
        items = [{"bbox_2d": b, "label": "cup", "color": c} for b, c in zip(boxes, colours, strict=False)]
        return json.dumps(items)

    truth = BoxesTruth((("cup", (20, 10, 60, 50)), ("cup", (100, 10, 140, 50))))
    sample = made(truth, answer("red", "blue"), locate_prompt("cup", {"color": "the color"}))
    assert score(sample, sample.answer).perfect
    found = score(sample, answer("Red", "green"))
    assert (found.metrics["f1"].value, found.metrics["attributes"].value) == (1, 0.5) and not found.perfect
    assert score(sample, answer("red")).metrics["attributes"].value == 0.5


def test_fields_of_a_list_share_a_name() -> None:
    truth = FieldsTruth({"items": [{"name": "tea", "price": 2}, {"name": "pie", "price": None}]})
    sample = made(truth, json.dumps(truth.fields))
    assert score(sample, sample.answer).perfect
    found = score(sample, '{"items": [{"name": "tea", "price": 2.0}, {"name": "pea", "price": null}]}').metrics
    assert (found["fields"].part, found["fields"].whole) == (3, 4)
    assert found["fields/items[].name"].value == 0.5


def in_range(found: Score) -> bool:
    shares = [m for name, m in found.metrics.items() if name != "time_error"]
    return all(m.value is None or 0 <= m.value <= 1 for m in shares)


def is_worst(found: Score) -> bool:
    shares = {name: m for name, m in found.metrics.items() if name != "time_error"}
    return all(m.whole > 0 and m.value == (1 if name in LOWER_IS_BETTER else 0) for name, m in shares.items())


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("answer", ["", " \n", "```json\n```", "I cannot see that"])
def test_what_cannot_be_read_scores_nothing(name: str, answer: str) -> None:
    found = score(SAMPLES[name], answer)
    assert not found.perfect
    if not answer.strip():
        assert found.failure == "empty"
    if found.failure:
        assert is_worst(found), found
    else:
        assert name in ("text", "free", "page", "letter", "word"), found  # there any text is an answer


HOSTILE = ["{", "[[[[[", '{"bbox_2d": [NaN, 1e999, 0, "x"], "label": null}', "<table>" * 50, "\x00\ud7ff\U0010ffff",
           '[{"bbox_2d": [1,2,3,4], "label": {"a": []}}]', '{"a": ' * 60, "<tool_call>{}</tool_call>", "null", "[null]",
           '{"99:99:99 - 1": 5}', "\\boxed{", "1e400", '{"Mon": "Infinity", "Tue": NaN}', "9" * 400]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_hostile_answers(name: str) -> None:
    for answer in HOSTILE:
        found = score(SAMPLES[name], answer)
        assert in_range(found), (answer, found)
        assert not found.perfect or (name == "no boxes" and found.failure is None), (answer, found)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_answers_score_in_range(name: str, data: st.DataObject) -> None:
    answer = SAMPLES[name].answer
    start = data.draw(st.integers(0, len(answer)))
    end = data.draw(st.integers(start, len(answer)))
    damaged = answer[:start] + data.draw(st.text('{}[]",:<>0123456789.e-ab', max_size=6)) + answer[end:]
    assert in_range(score(SAMPLES[name], damaged))
