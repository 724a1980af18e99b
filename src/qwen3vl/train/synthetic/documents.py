"""Document parsing: tables and pages in answer to `qwenvl html` and `qwenvl markdown`.

table_html_small, table_html, table_html_spans       one table
table_markdown_small, table_markdown                 one table without spans
document_html, document_markdown                     heading, paragraphs, a table, a picture
"""

from __future__ import annotations

import random

import numpy as np

from qwen3vl.tasks.documents import PROMPTS
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.answers_text import PageBlock, html_answer, markdown_answer
from qwen3vl.train.synthetic.faces import SizedFace, pick_face, sized
from qwen3vl.train.synthetic.pagesetting import wrapped
from qwen3vl.train.synthetic.roll import paper_colours, taken
from qwen3vl.train.synthetic.sample import (
    NATIVE,
    Mark,
    PageTruth,
    PixelBox,
    Side,
    SyntheticSample,
    TableTruth,
    Task,
    asked,
)
from qwen3vl.train.synthetic.sheet import Colour, Sheet, around, mixed
from qwen3vl.train.synthetic.sides import ranked
from qwen3vl.train.synthetic.tables import Drawing, drawn_table


def table(
    task: str, format: str, rows: int, columns: int, spans: bool, rng: random.Random, side: Side
) -> SyntheticSample:
    """A single table of up to so many rows (without its head) and columns."""
    made = drawn_table(rng, side, rows, rng.randint(2, columns), spans, 480, (10, 11, 12, 14, 16))
    paper, ink = paper_colours(rng)
    left, top, right, bottom = (rng.randint(8, 36) for _ in range(4))
    sheet = Sheet(made.width + left + right, made.height + top + bottom, paper)
    sheet.areas.append(made.draw(sheet, left, top, ink))
    taken(sheet, rng, 0.8)
    answer = _answer(format, [_table_block(made, sheet.areas[0], format)], sheet)
    marks = (Mark(sheet.areas[0], "table"),)
    question = asked(sheet.picture, PROMPTS[format])
    return SyntheticSample(task, question, answer, TableTruth(made.grid.html()), marks, NATIVE)


def _table_block(made: Drawing, box: PixelBox, format: str) -> PageBlock:
    return PageBlock("table", made.grid.html() if format == "html" else made.grid.latex(), box)


def _answer(format: str, blocks: list[PageBlock], sheet: Sheet) -> str:
    return (html_answer if format == "html" else markdown_answer)(blocks, sheet.size)


# ------------------------------------------------------------------------------------------- pages

ORDERS = (  # which blocks a page has, from the top; the order decides its side
    ("heading", "text", "table"), ("heading", "table", "text"), ("heading", "text", "image", "text"),
    ("text", "table", "text"), ("heading", "image", "text"), ("heading", "text", "text", "table"),
    ("image", "heading", "text"), ("heading", "text", "table", "image"), ("text", "image", "table"),
    ("heading", "text", "text"),
)  # fmt: skip


def document(task: str, format: str, rng: random.Random, side: Side) -> SyntheticSample:
    """A page of three or four blocks."""
    order = rng.choice(ranked(side, "document", ORDERS, " ".join))
    paper, ink = paper_colours(rng)
    sheet = Sheet(rng.choice((384, 448, 512)), 900, paper)
    body = sized(pick_face(rng, side, ("plain", "mono")), rng.choice((11, 12, 13, 14)))
    margin, y = rng.randint(16, 36), rng.randint(14, 30)
    blocks: list[tuple[str, str, range | int, Drawing | None]] = []
    for kind in order:
        if kind in ("heading", "text"):
            first = len(sheet.written)
            text, y = _paragraph(rng, side, sheet, body, kind, margin, y, ink)
            blocks.append((kind, text, range(first, len(sheet.written)), None))
        else:
            made = drawn_table(rng, side, 4, rng.randint(2, 4), False, sheet.size[0] - 2 * margin, (body.size,))
            area = made.draw(sheet, margin, y, ink) if kind == "table" else _picture(rng, sheet, margin, y)
            blocks.append((kind, "", len(sheet.areas), made if kind == "table" else None))
            sheet.areas.append(area)
            y = round(area[3])
        y += rng.randint(14, 30)
    _cut(sheet, y)
    taken(sheet, rng, 0.7)
    placed = [_placed(sheet, *block, format) for block in blocks]
    # HTML as the model writes it has no headings, Markdown has.
    kinds = {"heading": "text"} if format == "html" else {}
    texts = [drawing.grid.html() if drawing else text for _, text, _, drawing in blocks]
    truth = PageTruth(tuple((kinds.get(b.kind, b.kind), t, b.box) for b, t in zip(placed, texts, strict=True)))
    marks = tuple(Mark(b.box, b.kind) for b in placed)
    answer = _answer(format, placed, sheet)
    return SyntheticSample(task, asked(sheet.picture, PROMPTS[format]), answer, truth, marks, NATIVE)


def _placed(sheet: Sheet, kind: str, text: str, where: range | int, made: Drawing | None, format: str) -> PageBlock:
    """The block with its box after the photograph."""
    if isinstance(where, int):
        return _table_block(made, sheet.areas[where], format) if made else PageBlock(kind, "", sheet.areas[where])
    return PageBlock(kind, text, around(np.concatenate([sheet.written[at].boxes for at in where])))


def _paragraph(
    rng: random.Random, side: Side, sheet: Sheet, body: SizedFace, kind: str, left: int, top: int, ink: Colour
) -> tuple[str, int]:
    """Sets a heading or a paragraph; its text on one line, and where it ends."""
    font = sized(body.face, round(body.size * rng.choice((1.4, 1.7, 2.0)))) if kind == "heading" else body
    while True:
        text = words.title(rng, side, 3) if kind == "heading" else " ".join(
            words.sentence(rng, side, rng.randint(4, 9)) for _ in range(rng.randint(1, 3))
        )  # fmt: skip
        lines = wrapped(font, text, sheet.size[0] - 2 * left - 4)
        if lines and len(lines) <= 7:
            break
    lead = round(font.size * 1.3)
    for at, line in enumerate(lines):
        sheet.write(left, top + font.size + at * lead, line, font, ink)
    return " ".join(lines), top + font.size + (len(lines) - 1) * lead + font.size // 3


def _picture(rng: random.Random, sheet: Sheet, left: int, top: int) -> PixelBox:
    """Something that is clearly a picture: sky, ground and some shapes in a rectangle."""
    width, height = rng.randint(90, sheet.size[0] - 2 * left), rng.randint(60, 130)
    box = (left, top, left + width, top + height)
    sky, ground = ((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(2))
    sheet.draw.rectangle(box, mixed(sky, (90, 90, 90), 0.2))
    middle = top + round(height * rng.uniform(0.4, 0.8))
    sheet.draw.rectangle((left, middle, left + width, top + height), mixed(ground, (80, 80, 80), 0.3))
    for _ in range(rng.randint(2, 6)):
        radius = rng.randint(6, height // 4)
        x, y = rng.randint(left + radius, left + width - radius), rng.randint(top + radius, top + height - radius)
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        shape = sheet.draw.ellipse if rng.random() < 0.5 else sheet.draw.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), colour)
    return left, top, left + width + 1, top + height + 1


def _cut(sheet: Sheet, bottom: int) -> None:
    """Leaves away what is below the last block."""
    sheet.picture = sheet.picture.crop((0, 0, sheet.size[0], bottom))


def _table(name: str, format: str, rows: int, columns: int, spans: bool = False) -> Task:
    return lambda rng, side: table(name, format, rows, columns, spans, rng, side)


def _document(name: str, format: str) -> Task:
    return lambda rng, side: document(name, format, rng, side)


TASKS: dict[str, Task] = {
    "table_html_small": _table("table_html_small", "html", 3, 3),
    "table_html": _table("table_html", "html", 7, 5),
    "table_html_spans": _table("table_html_spans", "html", 6, 5, spans=True),
    "table_markdown_small": _table("table_markdown_small", "markdown", 3, 3),
    "table_markdown": _table("table_markdown", "markdown", 7, 5),
    "document_html": _document("document_html", "html"),
    "document_markdown": _document("document_markdown", "markdown"),
}
