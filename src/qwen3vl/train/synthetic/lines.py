"""Single lines of text, from one character to a long line, and blocks of them, with the box of every character.

    glyph_line(rng, side, LINES["read_line"])  -> GlyphLine: the picture, its text, (N, 4) boxes
    glyph_block(rng, side, (192, 96))          -> GlyphLine: the same of several lines

The fast way in for supervising the vision tower locally: which characters lie inside each merged token.
Widths are whole merged tokens (32 pixels), so that lines pack into batches without resizing.
"""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qwen3vl.tasks.ocr import PAGE_PROMPT
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.faces import Face, SizedFace, covers, pick_face, sized
from qwen3vl.train.synthetic.light import photograph
from qwen3vl.train.synthetic.sample import (
    NATIVE,
    Mark,
    Side,
    SyntheticSample,
    Task,
    TextTruth,
    asked,
)
from qwen3vl.train.synthetic.sheet import Sheet, around, brightness, mixed, set_line, two_colours

TOKEN = 32  # pixels of a merged token's side, of every edition
MIN_LEAD = 15  # pixels between the lines of a block
SIZES = (10, 12, 14, 16, 19, 22, 26, 31, 37, 44, 53, 62)  # few, so that glyphs are found again; tilting scales them


@dataclass(frozen=True, slots=True)
class LineKind:
    """How hard a line is.

    Attributes:
        most: characters.
        tall: heights in pixels to choose from.
        wide: the greatest width in pixels.
        strength: of the camera, see light.photograph.
        contrast: least difference in brightness between ink and paper.
        dressed: share of lines with a rule, a frame, a shadow or letters set wide.
        plain, dark: shares of nearly black and white, and of light ink on dark paper.
    """

    most: int
    tall: tuple[int, ...]
    wide: int
    strength: float
    contrast: float
    dressed: float
    plain: float = 0.35
    dark: float = 0.3


LINES = {
    "read_glyph": LineKind(1, (32,), 32, 0.3, 110, 0.0),
    "read_glyphs": LineKind(4, (32,), 96, 0.5, 110, 0.0),
    "read_word": LineKind(14, (32,), 224, 0.8, 90, 0.05),
    "read_line": LineKind(28, (32,), 320, 1.0, 80, 0.1),
    "read_line_hard": LineKind(44, (32, 32, 64, 96), 512, 1.7, 60, 0.25),
}


@dataclass(frozen=True, slots=True)
class GlyphLine:
    """A line, or several, and where its characters stand.

    Attributes:
        picture: RGB, sides multiples of 32.
        text: what it says, line by line.
        boxes: of its characters without spaces and line breaks, in their order: (N, 4), pixels.
    """

    picture: Image.Image
    text: str
    boxes: np.ndarray


def glyph_line(rng: random.Random, side: Side, kind: LineKind) -> GlyphLine:
    """A line of this kind, photographed."""
    height = rng.choice(kind.tall)
    face, text = _face_and_text(rng, side, kind)
    font, text = _fitted(rng, face, text, height, kind.wide)
    tracking = rng.uniform(0.5, font.size / 5) if rng.random() < kind.dressed else 0.0
    line = set_line(font, text, tracking)
    while line.ink.shape[1] > kind.wide - 2:  # letters may be set wide or reach beyond their advance
        text = text.rsplit(" ", 1)[0] if " " in text else text[: (len(text) + 1) // 2]
        line = set_line(font, text)
    room = line.ink.shape[1] + 2 + int(rng.random() * 24)
    width = min(TOKEN * math.ceil(room / TOKEN), kind.wide)
    paper, ink = two_colours(rng, kind.contrast, kind.dark, kind.plain)
    sheet = Sheet(width, height, paper)
    x = 1 + int(rng.random() * (width - line.ink.shape[1] - 1))
    y = 1 + int(rng.random() * (height - line.ink.shape[0] - 1))
    pen = (x - line.left, y - line.top)
    if rng.random() < kind.dressed:
        _dress(rng, sheet, (x, y, x + line.ink.shape[1], y + line.ink.shape[0]), ink)
    if rng.random() < kind.dressed / 2 and x + line.ink.shape[1] < width and y + line.ink.shape[0] < height:
        sheet.picture.paste(mixed(paper, (0, 0, 0), 0.3), (x + 1, y + 1), Image.fromarray(line.ink))
    written = sheet.put(line, *pen, ink)
    picture, boxes = photograph(sheet.picture, written.boxes, rng, kind.strength, paper)
    return GlyphLine(picture, written.text, boxes)


def glyph_block(rng: random.Random, side: Side, size: tuple[int, int]) -> GlyphLine:
    """Lines of one face and size, flush left, that fill a picture of `size` (width, height) more or less; at least
    MIN_LEAD apart. They begin anywhere, so they do not lie as the tower's patches do."""
    width, height = size
    while True:
        face = pick_face(rng, side)
        font = sized(face, rng.choice([s for s in SIZES if s <= height / 2.5]))
        lead = max(MIN_LEAD, round(font.size * rng.uniform(1.1, 1.7)))
        y, x = int(font.size * rng.uniform(0.9, 1.6)), 1 + int(rng.random() * width * 0.3)
        placed = []
        while y + font.size * 0.4 < height:
            text = words.line(rng, side, 28)
            while rng.random() < 0.8 and font.length(text) < width - x:
                text += " " + words.line(rng, side, 28)
            while text and font.length(text) > width - x - 3:
                text = text.rsplit(" ", 1)[0] if " " in text else text[: len(text) // 2]
            if text.strip() and covers(face, text):
                placed.append((set_line(font, text), y))
            y += lead
        inside = [
            (line, y)
            for line, y in placed
            if y + line.top > 0 and y + line.top + line.ink.shape[0] < height and x + line.left >= 0
            and x + line.left + line.ink.shape[1] < width
        ]  # fmt: skip
        if inside:
            break
    paper, ink = two_colours(rng, 90, 0.25, 0.6)
    sheet = Sheet(width, height, paper)
    written = [sheet.put(line, x, y, ink) for line, y in inside]
    boxes = np.concatenate([line.boxes for line in written])
    picture, boxes = photograph(sheet.picture, boxes, rng, 0.5, paper)
    return GlyphLine(picture, "\n".join(line.text for line in written), boxes)


def _face_and_text(rng: random.Random, side: Side, kind: LineKind) -> tuple[Face, str]:
    while True:
        face = pick_face(rng, side)
        if kind.most <= 4:
            alphabet = string.ascii_letters + string.digits + string.ascii_letters + "!\"#$%&'()*+,-./:;<=>?@[]_|~€£"
            text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, kind.most)))
        else:
            text = words.line(rng, side, kind.most)
        if covers(face, text):
            return face, text


def _fitted(rng: random.Random, face: Face, text: str, height: int, wide: int) -> tuple[SizedFace, str]:
    """A size at which the text is no taller than the height and no wider than `wide`; if need be with fewer words."""
    able = [s for s in SIZES if 0.34 * height <= s <= 0.85 * height]
    at = rng.randrange(len(able))
    while True:
        font = sized(face, able[at])
        tops = [font.glyph(c) for c in set(text) if c != " "]
        tall = max(g.top + g.ink.shape[0] for g in tops) - min(g.top for g in tops)
        if tall <= height - 2 and font.length(text) <= wide - 6:
            return font, text
        if at > 0 and (tall > height - 2 or rng.random() < 0.5):
            at -= 1
        elif " " in text:
            text = text.rsplit(" ", 1)[0]
        elif len(text) > 1:
            text = text[: len(text) // 2]
        else:
            at -= 1
            assert at >= 0, f"{face.family} does not fit {text!r} into {wide} x {height}"


def _dress(rng: random.Random, sheet: Sheet, box: tuple[int, int, int, int], ink: tuple[int, int, int]) -> None:
    """A rule under the line, a frame or a plate; never through the letters."""
    x1, y1, x2, y2 = box
    width, height = sheet.size
    faint = mixed(sheet.paper, ink, rng.uniform(0.3, 0.8))
    style = rng.random()
    if style < 0.4 and y2 + 2 < height:
        sheet.draw.line((0, y2 + 1, width, y2 + 1), faint, 1)
    elif style < 0.7:
        sheet.draw.rectangle(
            (max(0, x1 - 3), max(0, y1 - 3), min(width - 1, x2 + 2), min(height - 1, y2 + 2)), None, faint
        )
    else:
        plate = mixed(sheet.paper, (255, 255, 255) if brightness(sheet.paper) > brightness(ink) else (0, 0, 0), 0.4)
        sheet.draw.rectangle((max(0, x1 - 4), 0, min(width, x2 + 4), height), plate)


# ------------------------------------------------------------------------------------------- tasks


def line_sample(task: str, rng: random.Random, side: Side) -> SyntheticSample:
    """ "Read all the text in the image." of a single line."""
    line = glyph_line(rng, side, LINES[task])
    marks = (Mark(around(line.boxes), line.text),)
    return SyntheticSample(task, asked(line.picture, PAGE_PROMPT), line.text, TextTruth(line.text), marks, NATIVE)


def _task(name: str) -> Task:
    return lambda rng, side: line_sample(name, rng, side)


TASKS: dict[str, Task] = {name: _task(name) for name in LINES}
