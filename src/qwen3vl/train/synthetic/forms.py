"""Key information: receipts and filled-in forms to JSON, in the prompt of tasks/extraction.py; receipts as text.

receipt_text      a short receipt, row by row
receipt_total     one or two fields of a short receipt
receipt_fields    three to seven fields
receipt_goods     the goods as a list of objects, asked for with a JSON Schema
form_short        one or two fields of a small form
form_fields       three to eight fields, some of them left empty
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen3vl.tasks.extraction import extract_prompt
from qwen3vl.tasks.ocr import PAGE_PROMPT
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.answers_text import fields_answer
from qwen3vl.train.synthetic.faces import pick_face
from qwen3vl.train.synthetic.form_fields import FIELDS, Field
from qwen3vl.train.synthetic.receipts import Printed, print_receipt, sale
from qwen3vl.train.synthetic.roll import Cell, Roll, on_desk, paper_colours, taken
from qwen3vl.train.synthetic.sample import (
    NATIVE,
    FieldsTruth,
    Mark,
    PixelBox,
    Side,
    SyntheticSample,
    Task,
    TextTruth,
    asked,
)
from qwen3vl.train.synthetic.sheet import Colour, Sheet
from qwen3vl.train.synthetic.sides import ranked

NAMES: Mapping[str, tuple[str, ...]] = {  # what a field of a receipt may be called in the question
    "company": ("company", "company", "store", "merchant", "shop_name"),
    "address": ("address", "address", "store_address"),
    "date": ("date", "date", "purchase_date"),
    "total": ("total", "total", "total_amount", "amount_due"),
    "tax": ("tax", "tax_amount", "vat"),
    "receipt_number": ("receipt_number", "invoice_no", "number"),
    "phone": ("phone", "telephone"),
    "cash": ("cash", "paid"),
}
GOODS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "quantity": {"type": "integer"},
                    "amount": {"type": "number"},
                },
                "required": ["name", "quantity", "amount"],
            },
        },
        "total": {"type": "number"},
    },
    "required": ["items", "total"],
}


def _sample(
    task: str, sheet: Sheet, schema: Mapping[str, Any], fields: dict[str, Any], places: Mapping[str, PixelBox]
) -> SyntheticSample:
    marks = tuple(Mark(box, name) for name, box in places.items())
    question = asked(sheet.picture, extract_prompt(schema))
    return SyntheticSample(task, question, fields_answer(fields), FieldsTruth(fields), marks, NATIVE)


def _photograph(rng: random.Random, roll: Roll) -> Sheet:
    """The rows on paper, sometimes lying on a desk, as a camera sees them."""
    paper, ink = paper_colours(rng)
    sheet = roll.sheet(paper, ink)
    desk: Colour = paper
    if rng.random() < 0.35:
        desk = (rng.randrange(200), rng.randrange(190), rng.randrange(180))
        sheet = on_desk(sheet, rng, desk)
    return taken(sheet, rng, 0.9, desk)


# ---------------------------------------------------------------------------------------- receipts


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was printed, and the photograph of it."""

    printed: Printed
    sheet: Sheet


def draw_receipt(rng: random.Random, side: Side, goods: int) -> Receipt:
    """With up to so many goods."""
    printed = print_receipt(rng, side, sale(rng, side, rng.randint(1, goods)))
    return Receipt(printed, _photograph(rng, printed.roll))


def receipt_fields(task: str, receipt: Receipt, least: int, most: int, rng: random.Random) -> SyntheticSample:
    """`least` to `most` of its fields, the total among them."""
    printed = receipt.printed
    wanted = [name for name in printed.fields if name != "total"]
    rng.shuffle(wanted)
    wanted = wanted[: rng.randint(least, most) - 1]
    wanted.insert(rng.randint(0, len(wanted)), "total")
    named = {rng.choice(NAMES.get(name, (name,))): name for name in wanted}
    fields = {shown: printed.fields[name] for shown, name in named.items()}
    places = printed.roll.places(receipt.sheet)
    return _sample(task, receipt.sheet, dict.fromkeys(fields, ""), fields, {s: places[n] for s, n in named.items()})


def receipt_text(task: str, receipt: Receipt) -> SyntheticSample:
    """All that stands on it, row by row."""
    text = receipt.printed.roll.text()
    marks = tuple(Mark(written.box, written.text) for written in receipt.sheet.written)
    return SyntheticSample(task, asked(receipt.sheet.picture, PAGE_PROMPT), text, TextTruth(text), marks, NATIVE)


def receipt_goods(task: str, rng: random.Random, side: Side) -> SyntheticSample:
    """All goods with quantity and amount, and the total, as numbers."""
    made = sale(rng, side, rng.randint(1, 6))
    printed = print_receipt(rng, side, made)
    sheet = _photograph(rng, printed.roll)
    fields = {
        "items": [{"name": g.name, "quantity": g.quantity, "amount": g.amount / 100} for g in printed.goods],
        "total": made.total / 100,
    }
    return _sample(task, sheet, GOODS_SCHEMA, fields, {"total": printed.roll.places(sheet)["total"]})


# ------------------------------------------------------------------------------------------- forms


@dataclass(frozen=True, slots=True)
class FormStyle:
    """A layout. `name` decides its side."""

    name: str
    columns: int = 1  # pairs of label and value beside each other
    above: bool = False  # the label above the value
    colon: bool = False
    box: str = ""
    right: bool = False  # the value at the right margin
    rules: bool = False


STYLES = (
    FormStyle("plain", colon=True),
    FormStyle("columns"),
    FormStyle("boxed", box="frame"),
    FormStyle("lined", box="under", colon=True),
    FormStyle("above", above=True),
    FormStyle("above boxed", above=True, box="frame"),
    FormStyle("two", columns=2, above=True),
    FormStyle("plates", box="plate"),
    FormStyle("ledger", right=True, rules=True),
    FormStyle("two lined", columns=2, above=True, box="under"),
    FormStyle("summary", right=True, colon=True),
)


def form(task: str, shown: tuple[int, int], asks: tuple[int, int], rng: random.Random, side: Side) -> SyntheticSample:
    """A form of `shown` fields, of which `asks` are asked for."""
    style = rng.choice(ranked(side, "form style", STYLES, lambda s: s.name))
    fields = rng.sample(FIELDS, rng.randint(*shown))
    size = rng.choice((11, 12, 13, 14, 16))
    width = rng.choice((256, 288, 320, 384)) if len(fields) <= 3 else rng.choice((320, 384, 448))
    roll = Roll(width, rng.randint(12, 22), pick_face(rng, side, ("plain", "mono")), size, rng.uniform(1.3, 1.7))
    if rng.random() < 0.6:
        title = words.title(rng, side, 2)
        if roll.fits(title, 1.0, 1.4):
            roll.row(Cell(title, *rng.choice(((0.0, "l"), (0.5, "m"))), size=1.4))
            roll.gap()
    values = {field.key: _value(rng, side, roll, style, field) for field in fields}
    for at in range(0, len(fields), style.columns):
        _form_row(rng, roll, style, fields[at : at + style.columns], values)
    wanted = rng.sample(fields, min(len(fields), rng.randint(*asks)))
    answers = {field.key: values[field.key] for field in wanted}
    sheet = _photograph(rng, roll)
    places = roll.places(sheet)
    return _sample(task, sheet, dict.fromkeys(answers, ""), answers, {k: places[k] for k in answers if k in places})


def _value(rng: random.Random, side: Side, roll: Roll, style: FormStyle, field: Field) -> str:
    """What stands in the field; sometimes nothing."""
    if rng.random() < 0.07:
        return ""
    room = 0.46 if style.columns > 1 else 1.0 if style.above else 0.55
    for _ in range(20):
        value = field.value(rng, side)
        if roll.fits(value, room):
            return value
    return str(rng.randint(1, 99))  # wide letters on a narrow form


def _form_row(rng: random.Random, roll: Roll, style: FormStyle, fields: list[Field], values: Mapping[str, str]) -> None:
    labels = [_label(rng, roll, field) for field in fields]
    ends = ":" if style.colon else ""
    starts = [at / style.columns for at in range(len(fields))]
    until = 1 / style.columns - (0.03 if style.columns > 1 else 0)
    if style.above:
        roll.row(*(Cell(label + ends, x, size=0.85) for label, x in zip(labels, starts, strict=True)))
        roll.row(*(
            Cell(values[f.key], x + 0.015, "l", f.key, box=style.box, until=x + until)
            for f, x in zip(fields, starts, strict=True)
        ))  # fmt: skip
        roll.gap(0.4)
        return
    (field,), (label,) = fields, labels
    hung = Cell(values[field.key], 1.0, "r", field.key) if style.right else Cell(
        values[field.key], 0.44, "l", field.key, box=style.box
    )  # fmt: skip
    roll.row(Cell(label + ends), hung)
    if style.rules:
        roll.rule("line")


def _label(rng: random.Random, roll: Roll, field: Field) -> str:
    """One of the field's labels for which there is room."""
    return next(
        label for label in [rng.choice(field.labels), *field.labels, field.labels[0][:4]] if roll.fits(label, 0.42)
    )


def _receipt(name: str, least: int, most: int, goods: int) -> Task:
    return lambda rng, side: receipt_fields(name, draw_receipt(rng, side, goods), least, most, rng)


def _form(name: str, shown: tuple[int, int], asks: tuple[int, int]) -> Task:
    return lambda rng, side: form(name, shown, asks, rng, side)


TASKS: dict[str, Task] = {
    "receipt_text": lambda rng, side: receipt_text("receipt_text", draw_receipt(rng, side, 3)),
    "receipt_total": _receipt("receipt_total", 1, 2, 3),
    "receipt_fields": _receipt("receipt_fields", 3, 7, 7),
    "receipt_goods": lambda rng, side: receipt_goods("receipt_goods", rng, side),
    "form_short": _form("form_short", (1, 3), (1, 2)),
    "form_fields": _form("form_fields", (4, 9), (3, 8)),
}
