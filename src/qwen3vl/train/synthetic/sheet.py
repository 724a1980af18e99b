"""A picture that knows where every character on it stands.

    Sheet.write(...)   sets a line and returns a Written: its text and one box per character
    Written.words()    the words with their boxes, as wholes of their characters

Boxes are the ink itself: continuous pixels, (x1, y1, x2, y2), as tight as the glyph's own rows and columns.
Worked example (also a test): a glyph whose ink is 3 wide and 5 high, 1 right of the pen and 5 above the
baseline, set at (10, 20), has the box (11, 15, 14, 20).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from qwen3vl.train.synthetic.faces import SizedFace
from qwen3vl.train.synthetic.sample import Labelled, PixelBox

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Written:
    """A line of text on a picture.

    Attributes:
        text: as it is to be read, with single spaces.
        boxes: of the characters that have ink, in their order: (N, 4), N = characters without the spaces.
    """

    text: str
    boxes: np.ndarray

    @property
    def box(self) -> PixelBox:
        return around(self.boxes)

    def words(self) -> list[Labelled]:
        """Each word and the box around its characters."""
        found, at = [], 0
        for word in self.text.split():
            found.append((word, around(self.boxes[at : at + len(word)])))
            at += len(word)
        assert at == len(self.boxes), (self.text, len(self.boxes))
        return found


def around(boxes: np.ndarray) -> PixelBox:
    """The smallest box around (N, 4) boxes."""
    x1, y1 = boxes[:, :2].min(0)
    x2, y2 = boxes[:, 2:].max(0)
    return float(x1), float(y1), float(x2), float(y2)


@dataclass(frozen=True, slots=True)
class SetLine:
    """A line set with the pen at (0, 0) on the baseline: its ink 0..255 with the top left corner at (left, top)."""

    written: Written
    ink: np.ndarray
    left: int
    top: int
    advance: float


def set_line(font: SizedFace, text: str, tracking: float = 0.0) -> SetLine:
    """Sets a line; `tracking` is added after each character, in pixels.

    The text must have at least one character with ink, and the face must have all of them (faces.covers).
    """
    pen = 0.0
    placed = []
    for char in text:
        glyph = font.glyph(char)
        if glyph.ink.size:
            placed.append((round(pen) + glyph.left, glyph))
        pen += glyph.advance + tracking
    assert len(placed) == sum(not c.isspace() for c in text) > 0, f"{font.face.family} cannot set {text!r}"
    left, right = min(x for x, _ in placed), max(x + g.ink.shape[1] for x, g in placed)
    top, bottom = min(g.top for _, g in placed), max(g.top + g.ink.shape[0] for _, g in placed)
    ink = np.zeros((bottom - top, right - left), np.uint8)
    boxes = np.empty((len(placed), 4))
    for at, (x, glyph) in enumerate(placed):
        height, width = glyph.ink.shape
        part = ink[glyph.top - top : glyph.top - top + height, x - left : x - left + width]
        np.maximum(part, glyph.ink, out=part)
        boxes[at] = x, glyph.top, x + width, glyph.top + height
    return SetLine(Written(" ".join(text.split()), boxes), ink, left, top, pen)


class Sheet:
    """A picture under construction. Shapes are drawn with `draw`, text with `write`."""

    def __init__(self, width: int, height: int, paper: Colour) -> None:
        self.picture = Image.new("RGB", (width, height), paper)
        self.paper = paper
        self.draw = ImageDraw.Draw(self.picture)
        self.written: list[Written] = []
        self.areas: list[PixelBox] = []  # boxes of other things that must be found again: tables, pictures

    @property
    def size(self) -> tuple[int, int]:
        return self.picture.size

    def write(
        self, x: float, y: float, text: str, font: SizedFace, ink: Colour, *, tracking: float = 0.0, align: str = "l"
    ) -> Written:
        """Sets a line with its baseline at y (whole pixels) and its pen at x: the left (l), the middle (m) or the
        right (r) of the line. It must lie on the sheet."""
        line = set_line(font, text, tracking)
        pen = round(x - {"l": 0.0, "m": 0.5, "r": 1.0}[align] * line.advance)
        return self.put(line, pen, round(y), ink)

    def put(self, line: SetLine, x: int, y: int, ink: Colour) -> Written:
        """Lays a set line with its pen at (x, y)."""
        left, top = x + line.left, y + line.top
        height, width = line.ink.shape
        assert left >= 0 and top >= 0 and left + width <= self.size[0] and top + height <= self.size[1], (
            f"{line.written.text!r} at ({left}, {top}) of {width} x {height} leaves the sheet {self.size}"
        )
        self.picture.paste(ink, (left, top), Image.fromarray(line.ink))
        written = replace(line.written, boxes=line.written.boxes + np.array((x, y, x, y), float))
        self.written.append(written)
        return written


# ----------------------------------------------------------------------------------------- colours


def brightness(colour: Colour) -> float:
    """0..255, as the eye weighs the channels (ITU-R BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def two_colours(rng: random.Random, contrast: float, dark: float = 0.3, plain: float = 0.35) -> tuple[Colour, Colour]:
    """(paper, ink), `contrast` (at most 200) or more apart in brightness; dark paper at the chance `dark`, nearly black
    and white at the chance `plain`."""
    if rng.random() < plain:
        low, high = rng.randint(0, 50), rng.randint(225, 255)
        pair: tuple[Colour, Colour] = ((high, high, high), (low, low, low))
    else:
        while True:
            a = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
            b = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
            if abs(brightness(a) - brightness(b)) >= contrast:
                break
        pair = (a, b) if brightness(a) > brightness(b) else (b, a)
    return (pair[1], pair[0]) if rng.random() < dark else pair


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    r, g, c = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return r, g, c
