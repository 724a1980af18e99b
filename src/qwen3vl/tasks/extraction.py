"""Filling in a form: key information from pictures and documents, checked against a schema.

A form of plain strings is asked for in the words of cookbooks/ocr.ipynb, anything else with its JSON
Schema in the prompt. An answer that does not fit is sent back once with what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pydantic

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.asking import PIXELS_PER_TOKEN, Answer, ask_once
from qwen3vl.tasks.coordinates import Box, Frame, RelativeBox
from qwen3vl.tasks.pages import DPI, Documents, drawn, pages_of
from qwen3vl.tasks.parsing_json import read_json, shorten
from qwen3vl.tasks.parsing_numbers import number_groups
from qwen3vl.tasks.schema import check_schema, problems
from qwen3vl.types import Generator, ImagePart, MediaOptions, MediaReceipt, Part, SamplingParams

Schema: TypeAlias = "type[pydantic.BaseModel] | Mapping[str, Any]"
"""A pydantic model, a JSON Schema, or a form of empty strings: {"company": "", "date": ""}."""
USUAL = MediaOptions(min_pixels=512 * PIXELS_PER_TOKEN, max_pixels=2048 * PIXELS_PER_TOKEN)
PLACES = "_places"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: page number (from 1) and box in the pixels of that page."""

    page: int
    box: Box


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was read.

    Attributes:
        value: the validated object: an instance of the pydantic model, else a dict.
        places: name of a field -> where its value stands, for those the model placed (`places=True`).
        attempts: how many answers it took.
        raw, notes, receipts: of the last answer; as in grounding.Grounding.
    """

    value: Any
    places: Mapping[str, Place]
    attempts: int
    raw: str
    notes: tuple[str, ...]
    receipts: tuple[MediaReceipt, ...] = ()


def extract(
    model: Generator,
    files: Documents,
    schema: Schema,
    *,
    places: bool = False,
    retries: int = 1,
    dpi: float = DPI,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Extraction:
    """The object that `schema` describes, read from one or several pictures or PDFs, all seen together.

    `places` also asks for the box of each field. Raises ParseError with what is wrong if the answer
    still does not fit after `retries` more attempts, and InvalidParams for a schema that cannot be checked.
    """
    json_schema = schema_of(schema)
    pictures = []
    for _, picture in drawn(pages_of(files, dpi=dpi)):
        if isinstance(picture, Exception):
            raise picture
        pictures.append(picture)
    question = prompt or extract_prompt(schema, places)
    complaint = ""
    for attempt in range(1, retries + 2):
        parts: list[Part | str] = [*(ImagePart(p) for p in pictures), question + complaint]
        answer = ask_once(model, parts, params, media, usual=USUAL)
        try:
            return _checked(answer, schema, json_schema, [p.size for p in pictures], attempt)
        except ParseError as error:
            failure = error
            complaint = f"\n\nA first answer was:\n{answer.text}\nIt is wrong: {error}\nAnswer again, with that mended."
    raise failure


def _checked(
    answer: Answer, schema: Schema, json_schema: Mapping[str, Any], sizes: list[tuple[int, int]], attempt: int
) -> Extraction:
    read = read_json(answer.text)
    value = read.value
    if isinstance(value, list) and json_schema.get("type") == "object" and len(value) == 1:
        value = value[0]
    notes = [*answer.notes, *read.notes]
    placed = value.pop(PLACES, {}) if isinstance(value, dict) else {}
    wrong = problems(value, json_schema)
    if wrong:
        raise ParseError("; ".join(wrong[:8]), raw=answer.text)
    if isinstance(schema, type):
        try:
            value = schema.model_validate(value)
        except pydantic.ValidationError as error:
            raise ParseError(f"{schema.__name__}: {error}", raw=answer.text) from error
    found = _places(placed, sizes, notes)
    return Extraction(value, found, attempt, read.raw, tuple(notes), answer.receipts)


def _places(placed: Any, sizes: list[tuple[int, int]], notes: list[str]) -> dict[str, Place]:
    """{"field": [x1, y1, x2, y2]} or, of several pages, {"field": {"page": 2, "bbox_2d": [...]}}."""
    found = {}
    for name, written in placed.items() if isinstance(placed, dict) else ():
        page, numbers = 1, written
        if isinstance(written, dict):
            page, numbers = written.get("page", 1), written.get("bbox_2d")
        groups = number_groups(numbers)
        if len(groups) != 1 or len(groups[0]) != 4 or not isinstance(page, int) or not 1 <= page <= len(sizes):
            notes.append(f"the place of {name!r} is not usable: {shorten(str(written), 60)}")
            continue
        box, mended = Frame(*sizes[page - 1]).mend_box(RelativeBox(*groups[0]))
        notes += mended
        found[str(name)] = Place(page, box)
    return found


def schema_of(schema: Schema) -> Mapping[str, Any]:
    """The JSON Schema that answers are checked with."""
    if isinstance(schema, type):
        if not issubclass(schema, pydantic.BaseModel):
            raise InvalidParams(f"{schema!r} is no pydantic model")
        # Pydantic checks its own models; from the schema only the shape is checked before that.
        return {"type": "object"}
    if _is_form(schema):
        text = {"type": ["string", "number", "null"]}
        return {"type": "object", "properties": dict.fromkeys(schema, text), "required": list(schema)}
    check_schema(schema)
    return schema


def extract_prompt(schema: Schema, places: bool = False) -> str:
    """The question: the cookbook's for a form of empty strings, else with the JSON Schema."""
    if not isinstance(schema, type) and _is_form(schema):
        question = f"Extract the key-value information in the format:{json.dumps(dict(schema), ensure_ascii=False)}"
    else:
        shown = schema.model_json_schema() if isinstance(schema, type) else schema
        question = (
            "Extract the information as one JSON object that follows this JSON schema. Output only the JSON; "
            f"use null for what is not there and allowed to be null.\n{json.dumps(shown, ensure_ascii=False)}"
        )
    if places:
        question += (
            f'\nAdd the key "{PLACES}": an object that gives for each top-level field where its value stands, as '
            '{"page": page number from 1, "bbox_2d": [x1, y1, x2, y2]}.'
        )
    return question


def _is_form(schema: Mapping[str, Any]) -> bool:
    return bool(schema) and all(value == "" for value in schema.values())
