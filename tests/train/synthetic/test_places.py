"""What is told of every place lies at that place, in the tower's own order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from qwen3vl.processor.resize import patchify
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.train.synthetic.arrange import Thing
from qwen3vl.train.synthetic.icons import NAMES
from qwen3vl.train.synthetic.lines import MIN_LEAD, glyph_block
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.places import (
    CHARACTERS,
    IGNORED,
    NOTHING,
    Places,
    characters_at,
    draw_places,
    middles_at,
    of_scene,
    shown_again,
    things_at,
)
from qwen3vl.train.synthetic.sides import rng_of
from tests.train.synthetic.fonts import base_fonts

__all__ = ["base_fonts"]
SETTINGS = VisionSettings(16, 2, 2, 1024, 1 << 20, (0.0,) * 3, (1.0,) * 3)  # type: ignore[arg-type]


def test_the_example_of_the_module() -> None:
    boxes = np.array([[20, 26, 24, 28], [5, 8, 13, 20], [19, 8, 23, 20]])
    upper, lower = [0] * 8, [0] * 8
    upper[2], upper[5], lower[5] = (CHARACTERS.index(c) + 1 for c in "Hi.")
    assert characters_at(".Hi", boxes, (1, 1)).tolist() == [upper + lower]


def test_characters_of_two_rows_and_two_columns_of_tokens() -> None:
    """A centre at (40, 50) in 64 x 64: token 3 (row 1, column 1), its column 8 // 4 = 2."""
    found = characters_at("a", np.array([[38, 48, 42, 52]]), (2, 2))
    assert [tuple(map(int, place)) for place in np.argwhere(found)] == [(3, 2)]


def test_a_character_without_a_class_is_not_told_and_one_outside_counts_at_the_edge() -> None:
    found = characters_at("\u00e6Z", np.array([[2, 2, 4, 4], [30, 40, 40, 44]]), (1, 1))
    assert found[0, 0] == IGNORED and found[0, 7] == CHARACTERS.index("Z") + 1


def test_of_three_characters_in_a_column_the_upper_two_are_told() -> None:
    found = characters_at("abc", np.array([[8, y, 10, y + 4] for y in (24, 4, 12)]), (1, 1))[0]
    assert [CHARACTERS[found[at] - 1] for at in (2, 10)] == ["b", "c"] and (found > 0).sum() == 2


def test_things_are_told_in_the_order_of_the_towers_patches() -> None:
    """A picture with the box painted white is cut as the tower cuts it: what is a third white is told."""
    box = (20, 33, 75, 90)
    picture = np.zeros((96, 96, 3), np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    white = patchify([picture], SETTINGS).read().reshape(-1, 4, 3 * 2 * 256).mean(-1) >= 1 / 3
    kinds, colours, edges = things_at([Thing(NAMES[4], COLOUR_NAMES[2], box)], (3, 3))
    assert white.any() and not white.all()
    assert np.array_equal(kinds, np.where(white, 5, NOTHING)) and np.array_equal(colours, np.where(white, 3, NOTHING))
    told = edges.reshape(-1, 4, 4)
    assert (told[white] == [1 + int(32 * edge / 96) for edge in box]).all() and (told[~white] == IGNORED).all()


def test_middles_of_tokens() -> None:
    assert middles_at((1, 2)).tolist() == [[9, 17], [25, 17]]
    assert middles_at((2, 2)).tolist() == [[9, 9], [25, 9], [9, 25], [25, 25]]


def test_a_small_thing_is_told_where_most_of_it_lies_and_in_front_of_a_larger_one() -> None:
    kinds, *_ = things_at([Thing(NAMES[0], "red", (14, 9, 20, 14)), Thing(NAMES[1], "blue", (0, 0, 32, 32))], (1, 1))
    assert kinds.tolist() == [[2, 1, 2, 2]]


def test_a_block_has_a_box_for_every_character_and_lines_apart() -> None:
    for index in range(30):
        made = glyph_block(rng_of("train", 1, "block", index), "train", (192, 128))
        assert made.picture.size == (192, 128) and len(made.boxes) == len("".join(made.text.split())) > 0
        assert (made.boxes[:, :2] >= 0).all() and (made.boxes[:, 2:] <= (192, 128)).all()
        ends = np.cumsum([len(line.replace(" ", "")) for line in made.text.split("\n")])
        bottoms = [boxes[:, 3].max() for boxes in np.split(made.boxes, ends[:-1])]
        assert (np.diff(bottoms) > MIN_LEAD / 2).all(), "of a line that has no deep letters, or of a tilted one"


@pytest.mark.parametrize("side", ["train", "heldout"])
def test_samples_are_whole_tokens_with_something_in_them_and_always_the_same(side: str) -> None:
    kinds = set()
    for index in range(24):
        sample, again = (draw_places(side, 3, index) for _ in range(2))  # type: ignore[arg-type]
        height, width, channels = sample.picture.shape
        assert sample.num_tokens == height // 32 * (width // 32) and channels == 3
        assert height % 32 == width % 32 == 0
        assert (sample.characters_MS > 0).any() != (sample.kinds_M4 > 0).any()
        assert np.array_equal(sample.picture, again.picture) and np.array_equal(sample.kinds_M4, again.kinds_M4)
        kinds.add(bool((sample.kinds_M4 > 0).any()))
    assert kinds == {True, False}


def test_the_colour_told_is_seen_there() -> None:
    """A patch that is told to be red holds red; of all other patches hardly one does."""
    red, told, others = COLOUR_NAMES.index("red") + 1, [], []
    for index in range(80):
        sample = of_scene(rng_of("train", 0, "test", index), "train")
        patches = patchify([sample.picture], SETTINGS).read().reshape(sample.num_tokens, 4, 3, 2, 256)[:, :, :, 0]
        is_red = (patches[:, :, 0] > 0.4) & (patches[:, :, 0] > 1.5 * patches[:, :, 1:].max(2))
        share = is_red.mean(-1)
        told += list(share[sample.colours_M4 == red])
        others += list(share[sample.colours_M4 != red])
    assert len(told) > 20 and np.mean(np.array(told) > 0.02) > 0.85  # the rest are corners of moons, gaps of ladders
    assert np.mean(np.array(others) > 0.4) < 0.02


def test_text_shown_again_takes_its_truth_along() -> None:
    """Each column of 4 pixels is as bright as what is told of it, in the one channel that says so."""
    rng = random.Random(0)
    characters_MS = np.array([[rng.randint(0, 90) for _ in range(16)] for _ in range(3)], np.int16)
    brightness = np.repeat(characters_MS[:, :8].flatten(), 4).astype(np.uint8)
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[..., 1] = brightness
    untold = np.full((3, 16), IGNORED, np.int16)
    sample = Places(picture, characters_MS, untold[:, :4], untold[:, :4], untold, middles_at((1, 3)))
    moves, dark = set(), 0
    for seed in range(40):
        again = shown_again(sample, random.Random(seed))
        shown = again.picture if again.picture.min() == 0 else 255 - again.picture
        dark += again.picture.min() == 0
        (channel,) = np.flatnonzero(shown.any(axis=(0, 1)))
        assert (shown[5, ::4, channel] == again.characters_MS[:, :8].flatten()).all()
        upper, lower = again.characters_MS[:, :8].flatten(), again.characters_MS[:, 8:].flatten()
        (move,) = {m for m in range(24) if (np.roll(characters_MS[:, :8].flatten(), m) == upper).all()}
        assert (np.roll(characters_MS[:, 8:].flatten(), move) == lower).all()
        moves.add(move)
        assert (again.middles_M2 == sample.middles_M2).all()
    assert len(moves) > 12 and 20 < dark < 36


def test_scenes_shown_again_are_as_they_were_or_mirrored() -> None:
    things = [Thing(NAMES[0], "red", (3, 5, 29, 28)), Thing(NAMES[1], "blue", (41, 20, 61, 90))]
    kinds_M4, colours_M4, edges_ME = things_at(things, (3, 2))
    picture = np.arange(96 * 64 * 3).reshape(96, 64, 3).astype(np.uint8)
    untold = np.full((6, 16), IGNORED, np.int16)
    sample = Places(picture, untold, kinds_M4, colours_M4, edges_ME, middles_at((3, 2)))
    mirrored = [Thing(NAMES[0], "red", (35, 5, 61, 28)), Thing(NAMES[1], "blue", (3, 20, 23, 90))]
    kinds_M4, colours_M4, edges_ME = things_at(mirrored, (3, 2))
    found = [shown_again(sample, random.Random(seed)) for seed in range(20)]
    turned = [each for each in found if not (each.picture == picture).all()]
    assert 4 < len(turned) < 16
    for each in turned:
        assert (each.picture == picture[:, ::-1]).all()
        assert (each.kinds_M4 == kinds_M4).all() and (each.colours_M4 == colours_M4).all()
        assert (each.edges_ME == edges_ME).all() and (each.middles_M2 == sample.middles_M2).all()
