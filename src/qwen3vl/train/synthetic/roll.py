"""Rows of text set one below the other: what receipts and forms are made of.

roll = Roll(width, margin, ...)
roll.row(Cell("TOTAL"), Cell("12.50", 1.0, "r", key="total"))
sheet = roll.sheet(...)         the rows on a picture just as high as they need
roll.places(sheet)["total"]     the box of a value
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from qwen3vl.train.synthetic.faces import Face, SizedFace, covers, sized
from qwen3vl.train.synthetic.light import photograph
from qwen3vl.train.synthetic.sample import PixelBox
from qwen3vl.train.synthetic.sheet import Colour, Sheet, Written, around, mixed, set_line


@dataclass(frozen=True, slots=True)
class Cell:
    """A text of a row.

    Attributes:
        at: where it is hung, 0 the left and 1 the right margin.
        align: which end of it hangs there: l, m or r.
        key: the field whose value it is, if it is one; several cells may carry parts of one value.
        size: times the roll's own.
        box: drawn around it: "" nothing, "frame", "plate" or "under" (a rule below, over the width `until`).
        until: right end of the box, 0..1; only with `box`.
    """

    text: str
    at: float = 0.0
    align: str = "l"
    key: str = ""
    size: float = 1.0
    box: str = ""
    until: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    cells: tuple[Cell, ...]
    height: int
    rule: str = ""  # "line", "double", "dashes" instead of cells


class Roll:
    """Rows in one face; `size` in pixels per em, `lead` times the size is the distance of baselines."""

    def __init__(self, width: int, margin: int, face: Face, size: int, lead: float) -> None:
        self.width, self.margin, self.face, self.size, self.lead = width, margin, face, size, lead
        self.rows: list[Row] = []
        self.keys: list[str] = []

    @property
    def inner(self) -> int:
        return self.width - 2 * self.margin

    def font(self, scale: float = 1.0) -> SizedFace:
        return sized(self.face, max(9, round(self.size * scale)))

    def row(self, *cells: Cell) -> None:
        tall = max(c.size for c in cells)
        boxed = 5 if any(c.box for c in cells) else 0
        self.rows.append(Row(cells, round(self.size * self.lead * tall) + boxed))

    def rule(self, kind: str) -> None:
        self.rows.append(Row((), round(self.size * 0.9), kind))

    def gap(self, share: float = 0.5) -> None:
        self.rows.append(Row((), round(self.size * share)))

    def text(self) -> str:
        """What the rows say, a line each."""
        said = (" ".join(cell.text for cell in row.cells if cell.text) for row in self.rows)
        return "\n".join(filter(None, said))

    def fits(self, text: str, share: float = 1.0, scale: float = 1.0) -> bool:
        """Whether a text can be set in that share of the width, in this face."""
        font = self.font(scale)
        return covers(self.face, text) and font.length(text) + font.size * 0.3 <= share * self.inner

    def sheet(self, paper: Colour, ink: Colour, least: int = 0) -> Sheet:
        """The rows drawn. `self.keys` then holds the key of every written line, "" for those without."""
        height = max(least, sum(r.height for r in self.rows) + 2 * self.margin + 4)
        sheet = Sheet(self.width, height, paper)
        self.keys = []
        y = self.margin
        for row in self.rows:
            if row.rule:
                self._draw_rule(sheet, row.rule, y + row.height // 2, ink)
            base = y + row.height - max(3, round(row.height * 0.28))
            for cell in row.cells:
                self._cell(sheet, cell, base, row.height, ink)
            y += row.height
        return sheet

    def _cell(self, sheet: Sheet, cell: Cell, base: int, tall: int, ink: Colour) -> None:
        font = self.font(cell.size)
        x = self.margin + cell.at * self.inner
        if cell.box:
            _draw_box(sheet, cell.box, (x - 4, base - tall + 8, self.margin + cell.until * self.inner, base + 6), ink)
        if not cell.text:
            return
        line = set_line(font, cell.text)
        pen = round(x - {"l": 0.0, "m": 0.5, "r": 1.0}[cell.align] * line.advance)
        pen = min(max(pen, 1 - line.left), sheet.size[0] - 1 - line.left - line.ink.shape[1])
        sheet.put(line, pen, max(base, 1 - line.top), ink)
        self.keys.append(cell.key)

    def _draw_rule(self, sheet: Sheet, kind: str, y: int, ink: Colour) -> None:
        left, right = self.margin, self.width - self.margin
        if kind == "dashes":
            for x in range(left, right - 3, 7):
                sheet.draw.line((x, y, x + 3, y), ink, 1)
        else:
            sheet.draw.line((left, y, right, y), ink, 1)
            if kind == "double":
                sheet.draw.line((left, y + 2, right, y + 2), ink, 1)

    def places(self, sheet: Sheet) -> dict[str, PixelBox]:
        """Key -> the box around all that carries it, as the sheet is now (photographed or not)."""
        found: dict[str, list[Written]] = {}
        for key, written in zip(self.keys, sheet.written, strict=True):
            if key:
                found.setdefault(key, []).append(written)
        return {key: around(np.concatenate([w.boxes for w in pieces])) for key, pieces in found.items()}


def _draw_box(sheet: Sheet, kind: str, box: PixelBox, ink: Colour) -> None:
    if kind == "under":
        sheet.draw.line((box[0], box[3] - 2, box[2], box[3] - 2), mixed(sheet.paper, ink, 0.6), 1)
    elif kind == "plate":
        sheet.draw.rectangle(box, mixed(sheet.paper, ink, 0.12))
    else:
        sheet.draw.rectangle(box, None, mixed(sheet.paper, ink, 0.6))


def taken(sheet: Sheet, rng: random.Random, strength: float, desk: Colour | None = None) -> Sheet:
    """The sheet as photographed, the boxes of its characters and areas with it."""
    sheet.picture, boxes = photograph(sheet.picture, _all_boxes(sheet), rng, strength, desk or sheet.paper)
    return _with_boxes(sheet, boxes)


def on_desk(sheet: Sheet, rng: random.Random, desk: Colour) -> Sheet:
    """The sheet lying on something bigger, with a margin on each side."""
    left, top, right, bottom = (rng.randint(4, 40) for _ in range(4))
    picture = Image.new("RGB", (sheet.size[0] + left + right, sheet.size[1] + top + bottom), desk)
    picture.paste(sheet.picture, (left, top))
    sheet.picture = picture
    return _with_boxes(sheet, _all_boxes(sheet) + np.array((left, top, left, top), float))


def _all_boxes(sheet: Sheet) -> np.ndarray:
    areas = np.array(sheet.areas, float).reshape(-1, 4)
    return np.concatenate([*(w.boxes for w in sheet.written), areas])


def _with_boxes(sheet: Sheet, boxes: np.ndarray) -> Sheet:
    """The sheet with its boxes, in the order of `_all_boxes`, replaced."""
    *pieces, areas = np.split(boxes, np.cumsum([len(w.boxes) for w in sheet.written]))
    sheet.written = [replace(w, boxes=piece) for w, piece in zip(sheet.written, pieces, strict=True)]
    sheet.areas = [(x1, y1, x2, y2) for x1, y1, x2, y2 in areas.tolist()]
    return sheet


def paper_colours(rng: random.Random, dark: float = 0.04) -> tuple[Colour, Colour]:
    """(paper, ink) as printed matter has them: nearly white or pale paper, dark ink; seldom the other way round."""
    light = rng.randint(225, 255)
    tint = rng.choice((0, 0, 4, 12, 28))
    paper = (light - rng.randint(0, tint), light - rng.randint(0, tint), light - rng.randint(0, tint))
    depth = rng.choice((20, 50, 90))
    ink = (rng.randint(0, depth), rng.randint(0, depth), rng.randint(0, depth + 30))
    return (ink, paper) if rng.random() < dark else (paper, ink)
