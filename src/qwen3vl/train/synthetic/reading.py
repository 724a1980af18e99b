"""Text to be read from blocks, scattered labels and pages: plain, by lines or by words with their boxes.

block      a few lines in one face                          read_block, spot_*_block
scattered  labels of any face, size and colour              spot_*_scattered (plain reading has no order there)
page       title, paragraphs, lists, one or two columns     read_page, spot_*_page
"""

from __future__ import annotations

import random
from collections.abc import Callable

from qwen3vl.tasks.ocr import PAGE_PROMPT, SPOTTING_PROMPT
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.answers_text import spotting_answer
from qwen3vl.train.synthetic.faces import SizedFace, covers, pick_face, sized
from qwen3vl.train.synthetic.pagesetting import set_page
from qwen3vl.train.synthetic.roll import paper_colours, taken
from qwen3vl.train.synthetic.sample import (
    NATIVE,
    BoxesTruth,
    Labelled,
    Mark,
    PixelBox,
    Side,
    SyntheticSample,
    Task,
    TextTruth,
    asked,
)
from qwen3vl.train.synthetic.sheet import Sheet, set_line, two_colours

Scene = Callable[[random.Random, Side], Sheet]
PAGE_STRENGTH = 0.9  # of the camera: letters of a page are small


def line_that_fits(rng: random.Random, side: Side, font: SizedFace, width: float, most: int) -> str:
    """A line of text no wider than `width`, of characters the face has."""
    while True:
        text = words.line(rng, side, most)
        while " " in text and font.length(text) > width:
            text = text.rsplit(" ", 1)[0]
        if font.length(text) <= width and covers(font.face, text):
            return text
        most = max(2, most - 2)


# ------------------------------------------------------------------------------------------ scenes


def block(rng: random.Random, side: Side) -> Sheet:
    """Two to six lines in one face, set left, right or in the middle."""
    width = rng.choice((128, 160, 192, 224, 256, 320, 384))
    font = sized(pick_face(rng, side), rng.choice((12, 14, 16, 19, 22, 26)))
    lead = round(font.size * rng.uniform(1.2, 1.7)) + 2
    count = rng.randint(2, 6)
    height = -(-(count * lead + font.size + 8) // 32) * 32
    paper, ink = paper_colours(rng) if rng.random() < 0.5 else two_colours(rng, 90)
    sheet = Sheet(width, height, paper)
    align = rng.choice(("l", "l", "l", "m", "r"))
    margin = 6 + font.size // 3
    x = {"l": margin, "m": width / 2, "r": width - margin}[align]
    y = font.size + 6 + rng.randrange(max(1, height - count * lead - font.size - 6))
    for at in range(count):
        text = line_that_fits(rng, side, font, width - 2 * margin, 40)
        _write_inside(sheet, x, y + at * lead, text, font, ink, align)
    return taken(sheet, rng, 1.0)


def _write_inside(
    sheet: Sheet, x: float, y: int, text: str, font: SizedFace, ink: tuple[int, int, int], align: str
) -> None:
    """`write`, moved by the little that swashes and deep letters may reach over the edge."""
    line = set_line(font, text)
    pen = round(x - {"l": 0.0, "m": 0.5, "r": 1.0}[align] * line.advance)
    pen = min(max(pen, 1 - line.left), sheet.size[0] - 1 - line.left - line.ink.shape[1])
    y = min(max(y, 1 - line.top), sheet.size[1] - 1 - line.top - line.ink.shape[0])
    sheet.put(line, pen, y, ink)


def scattered(rng: random.Random, side: Side) -> Sheet:
    """One to eight labels, each with its own face, size and colours, on plates or bare; none touches another."""
    width, height = rng.choice(((128, 96), (192, 128), (256, 192), (320, 224), (384, 256), (448, 320)))
    paper, ink = two_colours(rng, 80)
    sheet = Sheet(width, height, paper)
    used: list[PixelBox] = []
    for _ in range(rng.randint(1, 2 + width * height // 14000)):
        font = sized(pick_face(rng, side), rng.choice((12, 14, 16, 19, 22, 26, 31, 37)))
        text = line_that_fits(rng, side, font, width - 24, rng.choice((6, 12, 20)))
        line = set_line(font, text)
        tall, wide = line.ink.shape
        if wide > width - 16 or tall > height - 16:
            continue
        x, y = rng.randint(8, width - wide - 8), rng.randint(8, height - tall - 8)
        place = (x - 7.0, y - 6.0, x + wide + 7.0, y + tall + 6.0)
        if any(place[0] < u[2] and u[0] < place[2] and place[1] < u[3] and u[1] < place[3] for u in used):
            continue
        used.append(place)
        colour = ink
        if rng.random() < 0.4:
            plate, colour = two_colours(rng, 80)
            sheet.draw.rounded_rectangle((x - 5, y - 4, x + wide + 4, y + tall + 3), rng.choice((0, 3, 8)), plate)
        sheet.put(line, x - line.left, y - line.top, colour)
    if not sheet.written:
        return scattered(rng, side)
    sheet.written.sort(key=lambda w: (w.box[1], w.box[0]))
    return taken(sheet, rng, 1.0)


def page(rng: random.Random, side: Side) -> Sheet:
    """A page, see pagesetting.py."""
    return taken(set_page(rng, side), rng, PAGE_STRENGTH)


# ------------------------------------------------------------------------------------------- tasks


def read_all(task: str, scene: Scene, rng: random.Random, side: Side) -> SyntheticSample:
    """The whole text, a line of the picture to a line."""
    sheet = scene(rng, side)
    text = "\n".join(w.text for w in sheet.written)
    marks = tuple(Mark(w.box, w.text) for w in sheet.written)
    return SyntheticSample(task, asked(sheet.picture, PAGE_PROMPT), text, TextTruth(text), marks, NATIVE)


def spot(task: str, scene: Scene, level: str, rng: random.Random, side: Side) -> SyntheticSample:
    """Lines or words with their boxes, in reading order."""
    sheet = scene(rng, side)
    items: list[Labelled] = []
    for written in sheet.written:
        items += written.words() if level == "word" else [(written.text, written.box)]
    question = SPOTTING_PROMPT.format(level=level)
    marks = tuple(Mark(box, text) for text, box in items)
    answer = spotting_answer(items, sheet.size)
    return SyntheticSample(task, asked(sheet.picture, question), answer, BoxesTruth(tuple(items)), marks, NATIVE)


def _read(name: str, scene: Scene) -> Task:
    return lambda rng, side: read_all(name, scene, rng, side)


def _spot(name: str, scene: Scene, level: str) -> Task:
    return lambda rng, side: spot(name, scene, level, rng, side)


TASKS: dict[str, Task] = {
    "read_block": _read("read_block", block),
    "read_page": _read("read_page", page),
    "spot_lines_block": _spot("spot_lines_block", block, "line"),
    "spot_words_block": _spot("spot_words_block", block, "word"),
    "spot_lines_scattered": _spot("spot_lines_scattered", scattered, "line"),
    "spot_words_scattered": _spot("spot_words_scattered", scattered, "word"),
    "spot_lines_page": _spot("spot_lines_page", page, "line"),
}
