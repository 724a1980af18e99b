"""Tables as they are written and as they are drawn.

    Grid         rows of cells (parsing_tables.Cell), which of them are the head
    made_grid    words, numbers, prices in columns; heads of two storeys and groups of rows where spans are wanted
    Drawing      a grid in a style on a sheet: rules, plates, stripes

A head is marked as one in the picture (bold letters, a plate or a rule below it) exactly when it is written as one.
"""

from __future__ import annotations

import html
import random
import re
from dataclasses import dataclass

from PIL import Image, ImageChops

from qwen3vl.tasks.parsing_tables import Cell, grid
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.faces import Face, SizedFace, bolder, covers, pick_face, sized
from qwen3vl.train.synthetic.sample import PixelBox, Side
from qwen3vl.train.synthetic.sheet import Colour, Sheet, mixed
from qwen3vl.train.synthetic.sides import ranked


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. A cell that is covered by a span of another is not written, as in HTML."""

    rows: tuple[tuple[Cell, ...], ...]
    header_rows: int
    columns: int

    def placed(self) -> list[tuple[int, int, Cell]]:
        """(row, column, cell) of every cell.

        Worked example (also a test): [[a (two rows), b], [c]] has c at row 1, column 1.
        """
        taken: set[tuple[int, int]] = set()
        found = []
        for y, row in enumerate(self.rows):
            x = 0
            for cell in row:
                while (y, x) in taken:
                    x += 1
                taken |= {(y + dy, x + dx) for dy in range(cell.rowspan) for dx in range(cell.colspan)}
                found.append((y, x, cell))
        assert taken == {(y, x) for y in range(len(self.rows)) for x in range(self.columns)}, self
        return found

    def html(self) -> str:
        """<table> without line breaks, th in the head, spans as attributes."""
        made = []
        for y, row in enumerate(self.rows):
            tag = "th" if y < self.header_rows else "td"
            cells = (f"<{tag}{_spans(c)}>{html.escape(c.text, quote=False)}</{tag}>" for c in row)
            made.append("<tr>" + "".join(cells) + "</tr>")
        return "<table>" + "".join(made) + "</table>"

    def latex(self) -> str:
        """The tabular of a `qwenvl markdown` answer; it has no way to say what is a head. No spans."""
        assert all(c.rowspan == c.colspan == 1 for row in self.rows for c in row), "spans"
        return grid(self.rows).to_latex()


def _spans(cell: Cell) -> str:
    rows = f' rowspan="{cell.rowspan}"' if cell.rowspan > 1 else ""
    return rows + (f' colspan="{cell.colspan}"' if cell.colspan > 1 else "")


# ------------------------------------------------------------------------------------------ making


def made_grid(rng: random.Random, side: Side, face: Face, rows: int, columns: int, head: bool, spans: bool) -> Grid:
    """`rows` counts the body. Every text is one that the face can set."""
    kinds = _kinds(rng, columns)
    body = [[_texted(rng, side, face, kind) for kind in kinds] for _ in range(rows)]
    lines = [tuple(Cell(text) for text in row) for row in body]
    if spans and rows >= 3 and rng.random() < 0.6:
        lines = _grouped(rng, lines)
    if not head:
        return Grid(tuple(lines), 0, columns)
    names = [_texted(rng, side, face, "head") for _ in range(columns)]
    if spans and columns >= 3 and (rng.random() < 0.7 or all(len(row) == columns for row in lines)):
        top = _two_storeys(rng, names, _texted(rng, side, face, "head"))
        return Grid((*top, *lines), 2, columns)
    return Grid((tuple(Cell(n) for n in names), *lines), 1, columns)


def _kinds(rng: random.Random, columns: int) -> list[str]:
    first = rng.choice(("label", "label", "label", "code", "year"))
    return [first, *rng.choices(("integer", "decimal", "percent", "price", "word", "label", "date"), k=columns - 1)]


def _texted(rng: random.Random, side: Side, face: Face, kind: str) -> str:
    while True:
        text = _text(rng, side, kind)
        if covers(face, text):
            return text


def _text(rng: random.Random, side: Side, kind: str) -> str:
    if kind not in ("head", "label", "code", "year") and rng.random() < 0.05:
        return rng.choice(("", "-", "n/a"))
    if kind in ("label", "head"):
        text = words.word(rng, side) if rng.random() < 0.65 else words.invented(rng, side)
        return text.capitalize() if kind == "head" or rng.random() < 0.7 else text
    if kind == "word":
        return words.word(rng, side)
    if kind == "code":
        return words.code(rng, side)
    if kind == "date":
        return f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1990, 2039)}"
    number = {
        "year": str(rng.randint(1950, 2040)),
        "integer": str(rng.randrange(10 ** rng.randint(1, 5))),
        "decimal": f"{rng.uniform(-20, 200):.{rng.randint(1, 2)}f}",
        "percent": f"{rng.uniform(0, 100):.{rng.randint(0, 1)}f}%",
        "price": f"{rng.choice(('$', ''))}{rng.randrange(1000000) / 100:,.2f}",
    }
    return number[kind]


def _grouped(rng: random.Random, lines: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """Two or three rows that follow each other share their first cell."""
    start = rng.randrange(len(lines) - 1)
    count = min(rng.choice((2, 2, 3)), len(lines) - start)
    first = lines[start]
    grouped = [(Cell(first[0].text, rowspan=count), *first[1:]), *(row[1:] for row in lines[start + 1 : start + count])]
    return [*lines[:start], *grouped, *lines[start + count :]]


def _two_storeys(rng: random.Random, names: list[str], group: str) -> list[tuple[Cell, ...]]:
    """Some columns after the first stand under a common head; the others' heads go over both storeys."""
    start = rng.randint(1, len(names) - 2)
    end = min(len(names), start + rng.choice((2, 2, 3)))
    above = [Cell(n, rowspan=2) for n in names[:start]]
    above += [Cell(group, colspan=end - start), *(Cell(n, rowspan=2) for n in names[end:])]
    return [tuple(above), tuple(Cell(n) for n in names[start:end])]


# ----------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True, slots=True)
class TableStyle:
    """How a table is ruled. `name` decides its side."""

    name: str
    rules: str = ""  # "grid", "rows", "columns", "outer", "book" (above, below and under the head)
    head: str = "bold"  # "bold", "plate", "dark", "rule"
    stripes: bool = False
    middle: bool = False  # heads in the middle of their columns


STYLES = (
    TableStyle("grid", "grid", middle=True),
    TableStyle("grid plate", "grid", "plate"),
    TableStyle("rows", "rows"),
    TableStyle("booktabs", "book", "rule"),
    TableStyle("stripes", "", "dark", stripes=True),
    TableStyle("columns", "columns", "plate"),
    TableStyle("frame", "outer", "rule"),
    TableStyle("bare", "", "rule"),
    TableStyle("dark rows", "rows", "dark", middle=True),
    TableStyle("grid stripes", "grid", "plate", stripes=True, middle=True),
)


class Drawing:
    """A grid laid out in a face and size: its size in pixels is known before it is drawn."""

    def __init__(self, rng: random.Random, side: Side, grid: Grid, face: Face, size: int) -> None:
        self.grid, self.font = grid, sized(face, size)
        self.style = rng.choice(ranked(side, "table style", STYLES, lambda s: s.name))
        bold = bolder(face) if self.style.head == "bold" else None
        self.head = "bold" if bold else "rule" if self.style.head == "bold" else self.style.head
        self.head_font = sized(bold, size) if bold and all(covers(bold, c.text) for c in self._heads()) else self.font
        if self.head == "bold" and self.head_font is self.font:
            self.head = "plate"
        self.pad = rng.randint(4, 9)
        self.row = round(size * rng.uniform(1.5, 2.0))
        self.widths = self._widths()

    def _heads(self) -> list[Cell]:
        return [cell for row in self.grid.rows[: self.grid.header_rows] for cell in row]

    @property
    def width(self) -> int:
        return sum(self.widths)

    @property
    def height(self) -> int:
        return self.row * len(self.grid.rows)

    def _widths(self) -> list[int]:
        """Each column as wide as its widest cell; what a wider span lacks goes to its last column."""
        widths = [2 * self.pad + self.font.size] * self.grid.columns
        for spanning in (False, True):
            for y, x, cell in self.grid.placed():
                if (cell.colspan > 1) == spanning:
                    need = round(self._font(y).length(cell.text)) + 2 * self.pad + 2
                    widths[x + cell.colspan - 1] += max(0, need - sum(widths[x : x + cell.colspan]))
        return widths

    def _font(self, y: int) -> SizedFace:
        return self.head_font if y < self.grid.header_rows else self.font

    def draw(self, sheet: Sheet, left: int, top: int, ink: Colour) -> PixelBox:
        """Draws it with its corner at (left, top) and gives the box of all that is seen of it, rules included."""
        right, bottom = left + self.width, top + self.height
        self._plates(sheet, left, top, right, ink)
        for y, x, cell in self.grid.placed():
            x1, y1 = left + sum(self.widths[:x]), top + y * self.row
            box = (x1, y1, x1 + sum(self.widths[x : x + cell.colspan]), y1 + self.row * cell.rowspan)
            self._cell(sheet, y, cell, box, ink)
        faint = mixed(sheet.paper, ink, 0.65)
        if self.style.rules == "outer":
            sheet.draw.rectangle((left, top, right, bottom), None, faint)
        if self.style.rules == "book":
            sheet.draw.line((left, top, right, top), ink, 1)
            sheet.draw.line((left, bottom, right, bottom), ink, 1)
        if self.grid.header_rows and self.head == "rule":
            y = top + self.row * self.grid.header_rows
            sheet.draw.line((left, y, right, y), ink, 2)
        return seen_box(sheet, (left - 2, top - 2, right + 3, bottom + 3))

    def _plates(self, sheet: Sheet, left: int, top: int, right: int, ink: Colour) -> None:
        heads = self.grid.header_rows
        if heads and self.head in ("plate", "dark"):
            plate = ink if self.head == "dark" else mixed(sheet.paper, ink, 0.15)
            sheet.draw.rectangle((left, top, right, top + heads * self.row), plate)
        for y in range(heads + 1, len(self.grid.rows), 2) if self.style.stripes else ():
            sheet.draw.rectangle(
                (left, top + y * self.row, right, top + (y + 1) * self.row), mixed(sheet.paper, ink, 0.08)
            )

    def _cell(self, sheet: Sheet, y: int, cell: Cell, box: PixelBox, ink: Colour) -> None:
        x1, y1, x2, y2 = box
        faint = mixed(sheet.paper, ink, 0.65)
        if self.style.rules == "grid":
            sheet.draw.rectangle(box, None, faint)
        elif self.style.rules == "rows":
            sheet.draw.line((x1, y2, x2, y2), faint, 1)
        elif self.style.rules == "columns":
            sheet.draw.line((x1, y1, x1, y2), faint, 1)
            sheet.draw.line((x2, y1, x2, y2), faint, 1)
        if not cell.text:
            return
        head = y < self.grid.header_rows
        align = "m" if head and (self.style.middle or cell.colspan > 1) else "r" if _number(cell.text) else "l"
        x = {"l": x1 + self.pad, "m": (x1 + x2) / 2, "r": x2 - self.pad}[align]
        base = (y1 + y2) / 2 + self.font.size * 0.35
        colour = sheet.paper if head and self.head == "dark" else ink
        sheet.write(x, base, cell.text, self._font(y), colour, align=align)


def seen_box(sheet: Sheet, region: tuple[int, int, int, int]) -> PixelBox:
    """The box around everything in a region that is not bare paper; the region may reach over the edge."""
    x1, y1 = max(0, region[0]), max(0, region[1])
    part = sheet.picture.crop((x1, y1, min(sheet.size[0], region[2]), min(sheet.size[1], region[3])))
    found = ImageChops.difference(part, Image.new("RGB", part.size, sheet.paper)).getbbox()
    assert found, f"nothing is drawn in {region}"
    return x1 + found[0], y1 + found[1], x1 + found[2], y1 + found[3]


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"[-$]?[\d.,]*\d%?", text))


def drawn_table(
    rng: random.Random, side: Side, rows: int, columns: int, spans: bool, room: int, sizes: tuple[int, ...]
) -> Drawing:
    """A table of up to so many rows and columns that is no wider than `room`."""
    face = pick_face(rng, side, ("plain", "mono"))
    head = rng.random() < 0.8 or spans
    while True:
        grid = made_grid(rng, side, face, rng.randint(min(2, rows), rows), columns, head, spans)
        made = Drawing(rng, side, grid, face, rng.choice(sizes))
        if made.width <= room:
            return made
        columns, sizes = max(2, columns - rng.randint(0, 1)), (min(sizes), *sizes)
