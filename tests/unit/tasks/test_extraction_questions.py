"""Forms that are filled in and checked, and answers with the pages they cite."""

from __future__ import annotations

import pydantic
import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.extraction import Place, extract, extract_prompt
from qwen3vl.tasks.questions import ask, cited_pages
from qwen3vl.tasks.schema import check_schema, problems
from qwen3vl.types import ImagePart, MediaOptions, TextPart
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer, recorded

PAGE = Image.new("RGB", (1000, 500))
FORM = {"company": "", "date": "", "address": "", "total": ""}


class Item(pydantic.BaseModel):
    name: str
    price: float = pydantic.Field(ge=0)


class Receipt(pydantic.BaseModel):
    company: str
    items: list[Item] = []
    total: float | None = None


def test_the_recorded_receipt() -> None:
    model = FakeGenerator(answer("ocr_kie_receipt"))
    found = extract(model, PAGE, FORM)
    assert model.prompt == recorded("ocr_kie_receipt")["prompt"]
    assert found.value["total"] == "RM8.75" and list(found.value) == list(FORM) and found.attempts == 1


def test_a_pydantic_model_is_filled() -> None:
    reply = '```json\n{"company": "X", "items": [{"name": "tea", "price": 1.5}], "total": 1.5,}\n```'
    found = extract(FakeGenerator(reply), PAGE, Receipt)
    assert found.value == Receipt(company="X", items=[Item(name="tea", price=1.5)], total=1.5)
    assert '"price"' in extract_prompt(Receipt)


def test_a_wrong_answer_is_sent_back_once() -> None:
    model = FakeGenerator(['{"items": [{"name": "tea", "price": -1}]}', '{"company": "X"}'])
    found = extract(model, PAGE, Receipt)
    assert found.attempts == 2 and found.value.company == "X"
    assert "company" in model.prompt and "greater than or equal to 0" in model.prompt and '"price": -1' in model.prompt
    with pytest.raises(ParseError, match=r"company is missing") as caught:
        extract(FakeGenerator(['{"date": "1"}', '{"date": "2"}']), PAGE, FORM)
    assert caught.value.raw == '{"date": "2"}'
    with pytest.raises(ParseError, match="no JSON"):
        extract(FakeGenerator(["nothing"]), PAGE, FORM, retries=0)


def test_places() -> None:
    reply = (
        '{"a": "1", "b": "2", "_places": {"a": [100, 100, 200, 200], '
        '"b": {"page": 2, "bbox_2d": [0, 0, 500, 500]}, "c": {"page": 9, "bbox_2d": [0, 0, 1, 1]}}}'
    )
    found = extract(FakeGenerator(reply), [PAGE, Image.new("RGB", (10, 20))], {"a": "", "b": ""}, places=True)
    assert found.value == {"a": "1", "b": "2"}
    assert found.places == {"a": Place(1, Box(100, 50, 200, 100)), "b": Place(2, Box(0, 0, 5, 10))}
    assert len(found.notes) == 1 and "'c'" in found.notes[0]
    assert "_places" in extract_prompt(FORM, places=True)


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["in", "out"]},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}, "minItems": 1},
        "note": {"anyOf": [{"type": "string", "pattern": "^a"}, {"type": "null"}]},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["kind"],
    "additionalProperties": False,
    "$defs": {"row": {"type": "object", "required": ["x"]}},
}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"kind": "in", "rows": [{"x": 1}], "note": "ab", "count": 5.0}, None),
        ({"kind": "up"}, "one of"),
        ({}, "kind is missing"),
        ({"kind": "in", "rows": []}, "length 0"),
        ({"kind": "in", "rows": [{}]}, r"rows[0].x is missing"),
        ({"kind": "in", "note": "b"}, "does not match"),
        ({"kind": "in", "count": 9}, "above 5"),
        ({"kind": "in", "count": True}, "must be integer"),
        ({"kind": "in", "more": 1}, "more is not allowed"),
        ([], "must be object"),
    ],
)
def test_json_schema(value: object, wrong: str | None) -> None:
    check_schema(SCHEMA)
    found = problems(value, SCHEMA)
    assert (not found) if wrong is None else any(wrong in p for p in found), found


def test_a_schema_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(InvalidParams, match="uniqueItems"):
        extract(FakeGenerator("{}"), PAGE, {"type": "object", "properties": {"a": {"uniqueItems": True}}})
    with pytest.raises(InvalidParams, match="leads nowhere"):
        extract(FakeGenerator("{}"), PAGE, {"$ref": "#/$defs/x"})


def test_the_recorded_answer_cites_its_pages() -> None:
    assert cited_pages(answer("longdoc_13")) == (1, 2)


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("See pages 2-4 and 7.", (2, 3, 4, 7)),
        ("on Page 3, page 5", (3, 5)),
        ("(p. 12) and pp. 3–4", (3, 4, 12)),
        ("如第5页所示", (5,)),
        ("in image 0 and image 2", (1, 3)),
        ("5 pages of text", ()),
        ("pages 9 to 2", (2, 9)),
    ],
)
def test_citations(text: str, pages: tuple[int, ...]) -> None:
    assert cited_pages(text) == pages


def test_ask_shows_the_pages_in_order() -> None:
    model = FakeGenerator("It is 5 (page 2), see page 9.")
    found = ask(model, [PAGE, Image.new("RGB", (3000, 100))], "How many?")
    assert found.pages == (2,) and found.num_pages == 2 and "[9]" in found.notes[0]
    kinds = [type(p) for p in model.parts]
    assert kinds == [TextPart, ImagePart, TextPart, ImagePart, TextPart] and "How many?" in model.prompt
    assert model.parts[3].image.size == (1500, 50)  # type: ignore[union-attr]
    assert model.last.media == MediaOptions(min_pixels=524288, max_pixels=747520)
