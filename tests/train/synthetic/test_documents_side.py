"""Reading, forms, tables, charts: each answer, read by the capability it is for, is the truth."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from qwen3vl.tasks import documents, extraction, ocr
from qwen3vl.tasks.parsing_tables import Cell, grid, html_table, latex_table
from qwen3vl.train.synthetic import charts, forms, lines, reading
from qwen3vl.train.synthetic import documents as document_tasks
from qwen3vl.train.synthetic.charts import SCHEMA, number_text
from qwen3vl.train.synthetic.faces import pick_face
from qwen3vl.train.synthetic.form_fields import FIELDS
from qwen3vl.train.synthetic.forms import GOODS_SCHEMA, FormStyle
from qwen3vl.train.synthetic.receipts import Good, Money, Sale, print_receipt, sale
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.roll import Roll
from qwen3vl.train.synthetic.sample import (
    BoxesTruth,
    FieldsTruth,
    PageTruth,
    PixelBox,
    Side,
    SyntheticSample,
    TableTruth,
    TextTruth,
    ValuesTruth,
)
from qwen3vl.train.synthetic.tables import Grid
from qwen3vl.types import ImagePart
from tests.train.synthetic.fonts import base_fonts  # noqa: F401
from tests.train.synthetic.replies import Answering

SIDES: tuple[Side, ...] = ("train", "heldout")
COUNT = 6


def samples(task: str) -> list[SyntheticSample]:
    return [make_sample(task, side, 11, index) for side in SIDES for index in range(COUNT)]


def picture_of(sample: SyntheticSample):
    (part,) = sample.pictures
    assert isinstance(part, ImagePart) and part.image.mode == "RGB"
    return part.image


def close(found: PixelBox, truth: PixelBox, size: tuple[int, int]) -> bool:
    """Equal up to the rounding of the 0..1000 grid (999 stands for the very edge)."""
    slack = (1.6 * size[0] / 999, 1.6 * size[1] / 999) * 2
    return all(abs(a - b) <= s for a, b, s in zip(found, truth, slack, strict=True))


def inked(sample: SyntheticSample, box: PixelBox) -> bool:
    """Whether something stands in the box: its brightness varies more than bare, lit, noisy paper's mostly does."""
    grey = np.asarray(picture_of(sample).convert("L"), float)
    x1, y1, x2, y2 = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    part = grey[y1:y2, x1:x2]
    return bool(part.size and part.max() - part.min() > 35)


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("task", [*lines.TASKS, "read_block", "read_page"])
def test_plain_reading(task: str) -> None:
    for sample in samples(task):
        assert isinstance(sample.truth, TextTruth)
        model = Answering(sample)
        read = ocr.read(model, picture_of(sample))  # type: ignore[arg-type]
        assert read.text == sample.truth.text and model.asked == sample.messages[-1].text
        assert all(inked(sample, mark.place) for mark in sample.marks), sample.key  # type: ignore[arg-type]


@pytest.mark.parametrize("task", [name for name in reading.TASKS if name.startswith("spot")])
def test_spotting(task: str) -> None:
    level = "word" if "words" in task else "line"
    for sample in samples(task):
        assert isinstance(sample.truth, BoxesTruth)
        model = Answering(sample)
        read = ocr.read(model, picture_of(sample), level=level)  # type: ignore[arg-type]
        assert model.asked == sample.messages[-1].text
        assert [b.text for b in read.boxes] == [text for text, _ in sample.truth.items] and not read.notes
        for found, (text, box) in zip(read.boxes, sample.truth.items, strict=True):
            assert close(found.box.corners, box, picture_of(sample).size), (sample.key, text)
            assert inked(sample, box), (sample.key, text)
            assert level == "line" or " " not in text


# ------------------------------------------------------------------------------------------- forms


def test_a_receipt_adds_up() -> None:
    made = Sale(
        "Shop", "1 Road", "1000 Town", "1", "2020-01-02", "10:00", "7", "X", (Good("a", 2, 300), Good("b", 1, 450)),
        tax_rate=10, tax_on_top=True, cash=2000, money=Money("$"),
    )  # fmt: skip
    assert (made.subtotal, made.tax, made.total, made.change) == (1050, 105, 1155, 845)
    assert made.money.text(made.total) == "$11.55"
    assert Money(after=" €", comma=True).text(5) == "0,05 €"


def test_printed_receipts_add_up() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        made = sale(rng, "train", rng.randint(1, 5))
        fields = print_receipt(rng, "train", made).fields
        assert fields["total"] == made.money.text(made.total) and {"company", "date"} <= set(fields)
        on_top = made.tax if made.tax_on_top else 0
        assert made.total == sum(g.quantity * g.price for g in made.goods) + on_top
        assert made.cash == 0 or made.change >= 0
        if made.cash:
            assert fields["change"] == made.money.text(made.cash - made.total)


def test_receipts_as_text_say_row_by_row_what_is_printed() -> None:
    for sample in samples("receipt_text"):
        assert isinstance(sample.truth, TextTruth) and sample.answer == sample.truth.text
        rows = sample.truth.text.split("\n")
        printed = [mark.label for mark in sample.marks]
        assert all(rows) and " ".join(rows).split() == " ".join(printed).split()
        assert all(inked(sample, mark.place) for mark in sample.marks), sample.key  # type: ignore[arg-type]


@pytest.mark.parametrize("task", sorted(set(forms.TASKS) - {"receipt_text"}))
def test_key_information(task: str) -> None:
    for sample in samples(task):
        assert isinstance(sample.truth, FieldsTruth)
        schema = GOODS_SCHEMA if task == "receipt_goods" else dict.fromkeys(sample.truth.fields, "")
        model = Answering(sample)
        found = extraction.extract(model, picture_of(sample), schema, retries=0)  # type: ignore[arg-type]
        assert found.value == sample.truth.fields and model.asked == sample.messages[-1].text
        filled = [n for n, v in sample.truth.fields.items() if v not in ("", []) and n != "items"]
        assert sorted(mark.label for mark in sample.marks) == sorted(filled)
        assert all(inked(sample, mark.place) for mark in sample.marks), sample.key  # type: ignore[arg-type]


def test_a_value_that_never_fits_becomes_a_number() -> None:
    """An e-mail address in half of a narrow form: no search without end."""
    roll = Roll(128, 20, pick_face(random.Random(0), "train", ("mono",)), 16, 1.4)
    (mail,) = (f for f in FIELDS if f.key == "email")
    values = [forms._value(random.Random(seed), "train", roll, FormStyle("two", columns=2), mail) for seed in range(30)]
    assert all(value == "" or value.isdigit() for value in values) and any(values)


# ------------------------------------------------------------------------------------------ tables


def test_a_cell_beside_a_span() -> None:
    made = Grid(((Cell("a", rowspan=2), Cell("b")), (Cell("c & d"),)), 1, 2)
    assert made.placed() == [(0, 0, made.rows[0][0]), (0, 1, made.rows[0][1]), (1, 1, made.rows[1][0])]
    assert made.html() == ('<table><tr><th rowspan="2">a</th><th>b</th></tr><tr><td>c &amp; d</td></tr></table>')
    assert html_table(made.html()) == grid(made.rows, 1)


@pytest.mark.parametrize("task", [name for name in document_tasks.TASKS if name.startswith("table")])
def test_tables(task: str) -> None:
    format = "html" if "html" in task else "markdown"
    spans = 0
    for sample in samples(task):
        assert isinstance(sample.truth, TableTruth)
        truth = html_table(sample.truth.html)
        model = Answering(sample)
        (page,) = documents.parse(model, picture_of(sample), format=format).pages  # type: ignore[arg-type]
        assert model.asked == sample.messages[-1].text and page.complete and not page.notes
        (block,) = page.blocks
        assert block.kind == "table" and block.table and block.box
        assert block.table.rows == truth.rows and (format == "markdown" or block.table == truth)
        (mark,) = sample.marks
        assert close(block.box.corners, mark.place, picture_of(sample).size)  # type: ignore[arg-type]
        assert inked(sample, mark.place)  # type: ignore[arg-type]
        spans += "span=" in sample.truth.html
    assert (spans > COUNT) == ("spans" in task)


def test_latex_keeps_special_characters() -> None:
    made = Grid(((Cell("50%"), Cell("a_b"), Cell("")), (Cell("$3"), Cell("#1 & 2"), Cell("-"))), 0, 3)
    assert latex_table(made.latex()).rows == grid(made.rows).rows


@pytest.mark.parametrize("format", ["html", "markdown"])
def test_pages(format: str) -> None:
    for sample in samples(f"document_{format}"):
        assert isinstance(sample.truth, PageTruth)
        (page,) = documents.parse(Answering(sample), picture_of(sample), format=format).pages  # type: ignore[arg-type]
        assert page.complete and [b.kind for b in page.blocks] == [kind for kind, _, _ in sample.truth.blocks]
        for block, (kind, text, box) in zip(page.blocks, sample.truth.blocks, strict=True):
            if kind == "table":
                assert block.table and block.table.rows == html_table(text).rows
            else:
                assert block.text == text
            if block.box:
                assert close(block.box.corners, box, picture_of(sample).size)
            assert inked(sample, box), (sample.key, kind)


# ------------------------------------------------------------------------------------------ charts


@pytest.mark.parametrize("task", charts.TASKS)
def test_charts(task: str) -> None:
    for sample in samples(task):
        assert isinstance(sample.truth, ValuesTruth)
        model = Answering(sample)
        found = extraction.extract(model, picture_of(sample), SCHEMA, retries=0)  # type: ignore[arg-type]
        assert found.value == sample.truth.values and model.asked == sample.messages[-1].text
        assert list(json.loads(sample.answer)) == list(sample.truth.values)
        if task == "chart_pie":
            assert sum(sample.truth.values.values()) == 100


def test_bars_are_as_high_as_their_values() -> None:
    """The tops of the marked bars lie on one scale: height / value is the same for all of them, without a camera."""
    rng = random.Random(4)
    for _ in range(10):
        chart = charts._chart(rng, "train", (352, 256))
        series = charts.made_series(rng, "train", chart.font.face, 4, False, True)
        charts.draw_bars(chart, series)
        lying = len({mark.place[0] for mark in chart.marks}) == 1
        sides = [m.place[2] - m.place[0] if lying else m.place[3] - m.place[1] for m in chart.marks]  # type: ignore[misc]
        scales = [side / value for side, value in zip(sides, series.values, strict=True)]
        assert max(scales) - min(scales) < 1e-6 * max(scales), series


def test_numbers_as_they_are_written() -> None:
    assert [number_text(v) for v in (12.0, 2.5, 0.4, 1500)] == ["12", "2.5", "0.4", "1500"]
