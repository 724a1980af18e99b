"""Sentences against panels that are written down here."""

from __future__ import annotations

import random

import pytest

from qwen3vl.train.synthetic import sentences, tower_sentences
from qwen3vl.train.synthetic.sentences import BOX_MAKERS, FREE_MAKERS, Item, Panel, Panels, Sentence, Style
from qwen3vl.train.synthetic.tower_sentences import TOWER_MAKERS

BOXES: Panels = (
    Panel((Item("circle", "yellow", (0, 40, 20, 60)), Item("square", "blue", (50, 80, 70, 100)))),
    Panel((Item("circle", "yellow", (30, 30, 50, 50)),)),
    Panel((Item("triangle", "black", (40, 10, 60, 30)), Item("square", "blue", (40, 60, 60, 80)))),
)


def tower(*colours: str) -> Panel:
    return Panel(tuple(Item("square", c, (40, 80 - 21 * i, 60, 100 - 21 * i)) for i, c in enumerate(colours)))


TOWERS: Panels = (tower("yellow", "black"), tower("blue"), tower("black", "blue", "yellow"))


def said(maker: sentences.Maker, panels: Panels) -> dict[str, Sentence]:
    """Everything the maker can be got to say about the panels."""
    found = {}
    for seed in range(600):
        sentence = maker(random.Random(seed), panels, Style())
        found[sentence.text] = sentence
    return found


@pytest.mark.parametrize(
    ("maker", "text", "truth"),
    [
        (sentences.total, "There are exactly two blue squares", True),
        (sentences.total, "There are at least 3 yellow circles", False),
        (sentences.box_with, "There is a box with exactly one yellow circle", True),
        (sentences.box_with, "There is a box with at least three items", False),
        (sentences.boxes_with, "There are exactly two boxes with a blue item", True),
        (sentences.box_with_all, "There is a box with a yellow circle and a blue square", True),
        (sentences.one_colour, "There is a box with items of only one color", True),
        (sentences.one_colour, "There is a box with only blue items", False),
        (sentences.every, "All circles are yellow", True),
        (sentences.every, "All blue items are squares", True),
        (sentences.every, "All triangles are black", None),
        (sentences.same_box, "All yellow circles are in the same box", False),
        (sentences.touching, "There is a yellow circle touching the left wall", True),
        (sentences.touching, "There is a blue square touching the bottom of a box", True),
        (sentences.touching, "There is a triangle touching the top of a box", False),
        (sentences.touching, "There is a blue square touching a corner of a box", False),
        (sentences.not_touching, "There is exactly one circle not touching any edge", True),
        (sentences.beside, "There is a triangle above a square", True),
        (sentences.definite, "The black triangle is above the blue square", True),
    ],
)
def test_boxes(maker: sentences.Maker, text: str, truth: bool | None) -> None:
    assert said(maker, BOXES)[text].holds(BOXES) is truth


@pytest.mark.parametrize(
    ("maker", "text", "truth"),
    [
        (tower_sentences.height, "There is a tower with three blocks", True),
        (tower_sentences.height, "There is a tower with at least four blocks", False),
        (tower_sentences.at_end, "There is a tower with a yellow block at the base", True),
        (tower_sentences.at_end, "There is exactly one tower with a yellow block at the top", True),
        (tower_sentences.stacked, "There is a tower with a black block above a yellow block", True),
        (tower_sentences.stacked, "There is a tower with a black block above a blue block", False),
        (tower_sentences.stacked, "There is a tower with a black block below a yellow block", True),
        (tower_sentences.only_colours, "There is a tower with only yellow and black blocks", True),
        (tower_sentences.same_height, "There are at least two towers with the same height", False),
        (tower_sentences.blocks, "There are exactly two blue blocks", True),
        (tower_sentences.the_tower, "The tower with three blocks has a black block at the base", True),
        (tower_sentences.the_tower, "The tower with three blocks has a blue block at the top", False),
    ],
)
def test_towers(maker: sentences.Maker, text: str, truth: bool | None) -> None:
    assert said(maker, TOWERS)[text].holds(TOWERS) is truth


def test_what_is_not_there_is_neither_true_nor_false() -> None:
    sentence = said(tower_sentences.the_tower, TOWERS)["The tower with three blocks has a black block at the base"]
    assert sentence.holds((tower("blue"),)) is None and sentence.holds((TOWERS[2], TOWERS[2])) is None


def test_nearly_touching_is_not_decided() -> None:
    item, panel = Item("circle", "red", (3, 40, 23, 60)), Panel(())
    assert sentences.touches(item, panel, 0) is None
    assert sentences.touches(Item("circle", "red", (1, 40, 21, 60)), panel, 0) is True
    assert sentences.touches(Item("circle", "red", (8, 40, 28, 60)), panel, 0) is False


def test_every_maker_says_true_and_false_things() -> None:
    for makers, panels in ((BOX_MAKERS, BOXES), (TOWER_MAKERS, TOWERS), (FREE_MAKERS, BOXES[:1])):
        truths = [m(random.Random(s), panels, Style()).holds(panels) for m in makers for s in range(60)]
        assert truths.count(True) > 0.2 * len(truths) and truths.count(False) > 0.1 * len(truths)
