"""Pages of running text: how a title, paragraphs, lists and columns are set. Layouts belong to a side."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.faces import Face, SizedFace, covers, pick_face, sized
from qwen3vl.train.synthetic.roll import paper_colours
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sheet import Colour, Sheet, mixed, two_colours
from qwen3vl.train.synthetic.sides import ranked


@dataclass(frozen=True, slots=True)
class PageStyle:
    """A way to lay a page out. `name` decides its side."""

    name: str
    columns: int = 1
    middle: bool = False
    lists: bool = False
    number: bool = False
    rules: bool = False
    indent: bool = False


STYLES = (
    PageStyle("letter"),
    PageStyle("article", columns=2, number=True),
    PageStyle("book", indent=True, number=True),
    PageStyle("notice", middle=True),
    PageStyle("memo", lists=True, rules=True),
    PageStyle("leaflet", columns=2, lists=True, rules=True),
    PageStyle("minutes", lists=True, number=True),
    PageStyle("poster", middle=True, rules=True),
)
SIZES = ((320, 320), (320, 448), (384, 512), (448, 448), (448, 640), (512, 384), (640, 480))


def wrapped(font: SizedFace, text: str, width: float) -> list[str]:
    """The text in lines no wider than `width`; a word that is wider alone is left out."""
    lines: list[str] = []
    room, space = -1.0, font.glyph(" ").advance
    for word in text.split():
        length = font.length(word)
        if length > width or not covers(font.face, word):
            continue
        if room >= length + space:
            lines[-1] += " " + word
            room -= length + space
        else:
            lines.append(word)
            room = width - length
    return lines


def set_page(rng: random.Random, side: Side) -> Sheet:
    """A page in one of the side's styles, filled from the top to a random height."""
    style = rng.choice(ranked(side, "page style", STYLES, lambda s: s.name))
    width, height = rng.choice(SIZES)
    paper, ink = paper_colours(rng) if rng.random() < 0.8 else two_colours(rng, 120, dark=0.15)
    sheet = Sheet(width, height, paper)
    text_face = pick_face(rng, side, ("plain", "mono"))
    head_face = text_face if rng.random() < 0.5 else pick_face(rng, side)
    margin = rng.randint(16, 40)
    y = _title(rng, side, sheet, style, head_face, ink, margin)
    body = sized(text_face, rng.choice((10, 11, 12, 13, 14, 16)))
    bottom = rng.uniform(0.55, 1.0) * (height - 22) if height - y > 120 else height - 22
    gap = rng.randint(14, 24)
    wide = (width - 2 * margin - gap * (style.columns - 1)) / style.columns
    for column in range(style.columns):
        _column(rng, side, sheet, style, body, ink, margin + column * (wide + gap), wide, y, bottom)
    if style.number:
        sheet.write(width / 2, height - 7, str(rng.randint(1, 400)), sized(text_face, 10), ink, align="m")
    return sheet


def _title(rng: random.Random, side: Side, sheet: Sheet, style: PageStyle, face: Face, ink: Colour, margin: int) -> int:
    """Sets the title and gives the top of what follows."""
    font = sized(face, rng.choice((16, 19, 22, 26)))
    y = margin + font.size
    colour = ink if rng.random() < 0.6 else mixed(ink, sheet.paper, 0.25)
    for line in wrapped(font, words.title(rng, side, 4), sheet.size[0] - 2 * margin)[:2]:
        x = sheet.size[0] / 2 if style.middle else margin
        sheet.write(x, y, line, font, colour, align="m" if style.middle else "l")
        y += round(font.size * 1.25)
    if style.rules:
        sheet.draw.line((margin, y - font.size // 2, sheet.size[0] - margin, y - font.size // 2), ink, 1)
        y += font.size // 2
    return y


def _column(
    rng: random.Random, side: Side, sheet: Sheet, style: PageStyle, font: SizedFace, ink: Colour,
    x: float, wide: float, top: int, bottom: float,
) -> None:  # fmt: skip
    """Fills one column with paragraphs until nothing fits any more."""
    lead = round(font.size * rng.uniform(1.2, 1.5)) + 1
    y = top + font.size
    for at, (line, first, after) in enumerate(_lines(rng, side, style, font, wide)):
        if y + font.size // 3 > bottom and at > 0:
            break
        shift = font.size * 1.5 if style.indent and first else 0
        if style.middle:
            sheet.write(x + wide / 2, y, line, font, ink, align="m")
        else:
            sheet.write(x + shift, y, line, font, ink)
        y += lead + (round(lead * 0.6) if after else 0)


def _lines(
    rng: random.Random, side: Side, style: PageStyle, font: SizedFace, wide: float
) -> Iterator[tuple[str, bool, bool]]:
    """(line, whether it begins a paragraph, whether it ends one), without end."""
    entry = 0
    while True:
        listed = style.lists and rng.random() < 0.5
        indent = font.size * 1.5 if style.indent else 0
        text = words.sentence(rng, side, rng.randint(3, 8))
        for _ in range(0 if listed else rng.randint(0, 3)):
            text += " " + words.sentence(rng, side, rng.randint(4, 12))
        if listed:
            entry += 1
            text = (f"{entry}. " if style.number else "- ") + text
        lines = wrapped(font, text, wide - indent - 4)
        for at, line in enumerate(lines):
            yield line, at == 0, at == len(lines) - 1
