"""Boxes, points and counts: where things are in a picture.

    locate   prompt of cookbooks/2d_grounding.ipynb    boxes with label and attributes
    point    the same notebook and spatial_understanding.ipynb (free space, affordances)
    count    locate, with the boxes as evidence

All results are in pixels of the user's picture after its EXIF orientation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.asking import Answer, ask_once, image_part, words
from qwen3vl.tasks.coordinates import Box, Frame, Point, RelativeBox, RelativePoint
from qwen3vl.tasks.parsing_entries import Entries, Entry, read_entries
from qwen3vl.tasks.pictures import first_picture, picture_size
from qwen3vl.types import Generator, ImagePart, MediaOptions, MediaReceipt, PictureSource, SamplingParams

Attributes = Mapping[str, str] | Sequence[str]
"""Names of what to report of each thing, or name -> the allowed values ("car, bus, truck")."""


@dataclass(frozen=True, slots=True)
class LocatedBox:
    """A thing and its box in pixels of the user's picture."""

    label: str
    box: Box
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LocatedPoint:
    """A thing and a point on it in pixels of the user's picture."""

    label: str
    point: Point
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Grounding:
    """What `locate` found.

    Attributes:
        boxes: in the model's order.
        size: (width, height) of the user's picture after its EXIF orientation: the frame of the boxes.
        raw: the model's answer.
        notes: what was mended, dropped or cut.
        complete: False when the answer was cut off, so that more may be there.
        receipts: what the model really saw.
    """

    boxes: tuple[LocatedBox, ...]
    size: tuple[int, int]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class Pointing:
    """What `point` found; fields as in Grounding."""

    points: tuple[LocatedPoint, ...]
    size: tuple[int, int]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """A number, and the boxes that are its evidence."""

    number: int
    grounding: Grounding


def locate(
    model: Generator,
    image: PictureSource | ImagePart,
    what: str | Sequence[str],
    *,
    attributes: Attributes | None = None,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Grounding:
    """Boxes of every instance of the categories `what` ("red cars, people").

    `prompt` replaces the whole question. Raises ParseError if the answer has no coordinates.
    """
    picture = image_part(image)
    answer = ask_once(model, [picture, prompt or locate_prompt(what, attributes)], params, media)
    return grounding_of(answer, picture.image)


def grounding_of(answer: Answer, image: PictureSource) -> Grounding:
    """The boxes of an answer about `image`."""
    entries = read_entries(answer.text)
    size = picture_size(image, first_picture(answer.receipts))
    frame = Frame(*size)
    notes = [*answer.notes, *entries.notes]
    boxes = []
    for entry in _of_kind(entries, "box", notes):
        box, mended = frame.mend_box(RelativeBox(*entry.numbers))
        notes += mended
        boxes.append(LocatedBox(entry.label, box, entry.attributes))
    return Grounding(tuple(boxes), size, entries.raw, tuple(notes), entries.complete, answer.receipts)


def point(
    model: Generator,
    image: PictureSource | ImagePart,
    what: str,
    *,
    attributes: Attributes | None = None,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Pointing:
    """Points on `what` ("every person inside the football field", "the free space on the table").

    Where the model answers with a box, its centre is taken and noted.
    """
    picture = image_part(image)
    answer = ask_once(model, [picture, prompt or point_prompt(what, attributes)], params, media)
    entries = read_entries(answer.text)
    size = picture_size(picture.image, first_picture(answer.receipts))
    frame = Frame(*size)
    notes = [*answer.notes, *entries.notes]
    points = []
    for entry in entries.items:
        x, y = entry.numbers[:2]
        if entry.kind == "box":
            x, y = (entry.numbers[0] + entry.numbers[2]) / 2, (entry.numbers[1] + entry.numbers[3]) / 2
            notes.append(f"the model gave a box for {entry.label!r}: its centre was taken")
        place, mended = frame.mend_point(RelativePoint(x, y))
        notes += mended
        points.append(LocatedPoint(entry.label, place, entry.attributes))
    return Pointing(tuple(points), size, entries.raw, tuple(notes), entries.complete, answer.receipts)


def count(
    model: Generator,
    image: PictureSource | ImagePart,
    what: str | Sequence[str],
    *,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Count:
    """How many there are, with their boxes. Above about 40 instances the model may loop or merge
    clusters; repeated boxes are not counted, and `grounding.complete` is False where the answer was cut."""
    found = locate(model, image, what, params=params, media=media)
    return Count(len(found.boxes), found)


def locate_prompt(what: str | Sequence[str], attributes: Attributes | None = None) -> str:
    """The cookbook's question for boxes."""
    names = _names(what)
    question = f'locate every instance that belongs to the following categories: "{", ".join(names)}".'
    if not attributes:
        return f"{question} Report bbox coordinates in JSON format."
    label = names[0] if len(names) == 1 else "category"
    form = {"bbox_2d": "[x1, y1, x2, y2]", "label": label, **_values(attributes, label)}
    asked = words(["bbox coordinates", *(f"{label} {name}" for name in attributes)])
    return f"{question} For each {label}, report {asked} in JSON format like this: {_form(form)}"


def point_prompt(what: str, attributes: Attributes | None = None) -> str:
    """The cookbook's question for points."""
    if not attributes:
        return f"Locate {what} in this image. Output the point coordinates in JSON format."
    form = {"point_2d": "[x, y]", "label": "name", **_values(attributes, "object")}
    asked = ["point coordinates"]
    asked += [f"{n}({v})" if v else n for n, v in _pairs(attributes)]
    return f"Locate {what} with points, report their {words(asked)} in JSON format like this: {_form(form)}"


def _names(what: str | Sequence[str]) -> list[str]:
    names = [n.strip() for n in (what.split(",") if isinstance(what, str) else what) if n.strip()]
    if not names:
        raise InvalidParams("what to look for is empty")
    return names


def _pairs(attributes: Attributes) -> list[tuple[str, str]]:
    return list(attributes.items()) if isinstance(attributes, Mapping) else [(name, "") for name in attributes]


def _values(attributes: Attributes, label: str) -> dict[str, str]:
    return {name: values or f"the {label}'s {name}" for name, values in _pairs(attributes)}


def _form(form: Mapping[str, str]) -> str:
    """JSON with the list of coordinates unquoted, as the cookbook writes it."""
    pairs = (
        f"{json.dumps(k)}: {v if k.endswith('_2d') else json.dumps(v, ensure_ascii=False)}" for k, v in form.items()
    )
    return "{" + ", ".join(pairs) + "}"


def _of_kind(entries: Entries, kind: str, notes: list[str]) -> list[Entry]:
    others = [e for e in entries.items if e.kind != kind]
    if others:
        notes.append(f"{len(others)} entries that are no {kind} were dropped: {others[0]}")
    return [e for e in entries.items if e.kind == kind]
