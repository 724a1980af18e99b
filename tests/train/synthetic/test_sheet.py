"""Glyph boxes: where the ink is, and nowhere else, also after a camera."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.answers_text import spotting_answer
from qwen3vl.train.synthetic.faces import pick_face, sized
from qwen3vl.train.synthetic.light import jpeg, move_boxes, photograph, tilted
from qwen3vl.train.synthetic.lines import LINES, TOKEN, glyph_line
from qwen3vl.train.synthetic.sheet import Sheet, brightness, set_line, two_colours
from qwen3vl.train.synthetic.sides import rng_of
from tests.train.synthetic.fonts import base_fonts  # noqa: F401


class Ruler:
    """A face whose every glyph is 3 wide and 5 high, 1 right of the pen and 5 above the baseline."""

    class face:  # noqa: N801
        family = "ruler"

    size = 8

    def glyph(self, char: str):
        from qwen3vl.train.synthetic.faces import Glyph

        ink = np.zeros((0, 0), np.uint8) if char == " " else np.full((5, 3), 255, np.uint8)
        return Glyph(ink, 1, -5, 5.0)


def test_the_worked_example() -> None:
    sheet = Sheet(60, 40, (255, 255, 255))
    written = sheet.put(set_line(Ruler(), "a bc"), 10, 20, (0, 0, 0))  # type: ignore[arg-type]
    assert written.boxes.tolist() == [[11, 15, 14, 20], [21, 15, 24, 20], [26, 15, 29, 20]]
    assert written.words() == [("a", (11, 15, 14, 20)), ("bc", (21, 15, 29, 20))]
    assert written.box == (11, 15, 29, 20)
    dark = np.argwhere(np.asarray(sheet.picture.convert("L")) < 128)
    assert (dark.min(0) == (15, 11)).all() and (dark.max(0) == (19, 28)).all()


def test_text_off_the_sheet_is_refused() -> None:
    with pytest.raises(AssertionError, match="leaves the sheet"):
        Sheet(20, 20, (0, 0, 0)).put(set_line(Ruler(), "abcdef"), 0, 10, (9, 9, 9))  # type: ignore[arg-type]


def test_boxes_are_as_tight_as_the_ink() -> None:
    """Characters set far apart: the ink of each is what its box says, to the pixel."""
    rng = random.Random(3)
    for size in (10, 14, 22, 37):
        font = sized(pick_face(rng, "train"), size)
        sheet = Sheet(1000, 80, (255, 255, 255))
        written = sheet.write(20, 55, "Agjx0.,%W", font, (0, 0, 0), tracking=2 * size)
        pixels = np.asarray(sheet.picture.convert("L"))
        for x1, y1, x2, y2 in written.boxes.astype(int):
            part = pixels[:, x1 - size // 2 : x2 + size // 2] < 255 - 40
            rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
            assert (rows[0], rows[-1] + 1) == (y1, y2)
            assert (columns[0] + x1 - size // 2, columns[-1] + 1 + x1 - size // 2) == (x1, x2)


def test_a_quarter_turn() -> None:
    turned = move_boxes(np.array([[1.0, 2.0, 3.0, 5.0]]), np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    assert turned.tolist() == [[-5, 1, -2, 3]]


def test_tilted_boxes_stay_on_their_ink() -> None:
    """A black block on white, tilted: the box that went along is the box of what is dark, within a pixel and a half."""
    for seed in range(40):
        rng = random.Random(seed)
        picture = Image.new("RGB", (160, 120), (255, 255, 255))
        picture.paste((0, 0, 0), (40, 30, 110, 80))
        seen, boxes = tilted(picture, np.array([[40.0, 30, 110, 80]]), rng, 1.5, (255, 255, 255))
        dark = np.argwhere(np.asarray(seen.convert("L")) < 128)
        found = (dark[:, 1].min(), dark[:, 0].min(), dark[:, 1].max() + 1, dark[:, 0].max() + 1)
        assert np.abs(np.array(found) - boxes[0]).max() <= 1.5, (seed, found, boxes[0])


def test_a_photograph_keeps_every_box_inside() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        boxes = np.array([[2.0, 2, 20, 14], [200, 16, 254, 30]])
        picture, moved = photograph(Image.new("RGB", (256, 32), (200, 200, 200)), boxes, rng, 2.0, (0, 0, 0))
        assert picture.size == (256, 32) and picture.mode == "RGB"
        assert moved[:, :2].min() >= 0 and moved[:, 2].max() <= 256 and moved[:, 3].max() <= 32
    same, untouched = photograph(picture, boxes, rng, 0.0, (0, 0, 0))
    assert same is picture and untouched is boxes


def test_jpeg_changes_little() -> None:
    picture = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
    difference = np.abs(np.asarray(jpeg(picture, 90), int) - np.asarray(picture, int))
    assert 0 < difference.max() < 40


def test_colours_differ_in_brightness() -> None:
    rng = random.Random(0)
    assert all(abs(brightness(a) - brightness(b)) >= 80 for a, b in (two_colours(rng, 80) for _ in range(300)))


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str) -> None:
    kind = LINES[name]
    for index in range(25):
        line = glyph_line(rng_of("train", 1, name, index), "train", kind)
        letters = line.text.replace(" ", "")
        assert line.boxes.shape == (len(letters), 4) and 0 < len(line.text) <= kind.most
        assert line.picture.width % TOKEN == line.picture.height % TOKEN == 0 and line.picture.width <= kind.wide
        assert line.boxes.min() >= 0 and (line.boxes[:, 2] <= line.picture.width).all()
        assert (line.boxes[:, 2:] > line.boxes[:, :2]).all()


def test_a_clean_line_has_ink_where_its_boxes_are() -> None:
    """Without a camera: outside the boxes the picture is bare paper, inside each one there is ink."""
    from dataclasses import replace

    kind = replace(LINES["read_line"], strength=0.0, dressed=0.0, contrast=120)
    for index in range(30):
        line = glyph_line(rng_of("heldout", 2, "clean", index), "heldout", kind)
        pixels = np.asarray(line.picture.convert("L"), int)
        paper = np.bincount(pixels.ravel()).argmax()
        inked = np.abs(pixels - paper) > 70
        outside = inked.copy()
        for x1, y1, x2, y2 in line.boxes.astype(int):
            assert inked[y1:y2, x1:x2].any(), line.text
            outside[y1:y2, x1:x2] = False
        assert not outside.any(), line.text


def test_lines_are_not_longer_than_asked() -> None:
    rng = random.Random(0)
    texts = [words.line(rng, "train", 28) for _ in range(200)]
    assert max(map(len, texts)) <= 28 and len(set(texts)) > 190
    assert sum(any(c.isdigit() for c in t) for t in texts) > 60


def test_the_spotting_example() -> None:
    answer = spotting_answer([("ab", (16, 8, 64, 24))], (320, 32))
    assert answer == '```json\n[\n\t{"bbox_2d": [50, 250, 200, 749], "text_content": "ab"}\n]\n```'
