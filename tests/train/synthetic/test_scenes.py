"""Drawn things: tight boxes, colours with one name, places apart, descriptions that fit one thing."""

from __future__ import annotations

import itertools
import random

import pytest
from PIL import Image, ImageChops

from qwen3vl.train.synthetic import palette
from qwen3vl.train.synthetic.arrange import (
    LAYOUTS,
    Cell,
    Scene,
    Spec,
    Thing,
    cells_of,
    compose,
    draw_size,
    layouts,
    put,
)
from qwen3vl.train.synthetic.icons import DRAWINGS, NAMES, article, plural
from qwen3vl.train.synthetic.referring import ABOVE, LEFT, bigger, referring
from qwen3vl.train.synthetic.scene_questions import zone_of
from qwen3vl.train.synthetic.scenes import Query, draw_scene, found_by
from qwen3vl.train.synthetic.shapes import Style, draw_tile


@pytest.mark.parametrize("style", [Style(), Style(outline=True), Style(shaded=True), Style(turn=12.0)])
def test_boxes_are_tight(style: Style) -> None:
    """What differs from the empty ground lies in the box, and reaches all its sides but for soft edges."""
    for number, name in enumerate(NAMES):
        ground = Image.new("RGB", (120, 120), (128, 128, 128))
        picture = ground.copy()
        thing = put(random.Random(number), picture, Spec(name, "red"), Cell(60, 60, 70), style)
        seen = ImageChops.difference(picture, ground).getbbox()
        assert seen is not None
        assert all(abs(a - b) <= 1 for a, b in zip(seen, thing.box, strict=True)), (name, seen, thing.box)


def test_small_things_keep_their_main_colour() -> None:
    for name, drawing in DRAWINGS.items():
        tile = draw_tile(drawing, (250, 20, 20), 40, Style())
        pixels = [p[:3] for p in tile.get_flattened_data() if p[3] == 255]  # type: ignore[index]
        red = sum(1 for r, g, b in pixels if r > 120 and g < 120 and b < 120)
        assert red > 0.4 * len(pixels), (name, red / len(pixels))


def test_colours_have_one_name() -> None:
    rng = random.Random(0)
    shades = {name: [palette.shade_of(rng, name) for _ in range(40)] for name in palette.COLOURS}
    for a, b in itertools.combinations(shades, 2):
        nearest = min(palette.distance(x, y) for x in shades[a] for y in shades[b])
        assert nearest > 45, (a, b, nearest)


def test_enough_colours_stand_out_everywhere() -> None:
    for name, base in palette.BASES.items():
        clear = palette.standing_out(base)
        assert len(clear) >= 6, name
        nearest = min(palette.distance(palette.shade_of(random.Random(i), c), base) for c in clear for i in range(20))
        assert nearest > palette.CLEAR * 0.9


def test_sides_share_no_theme_and_no_layout() -> None:
    for of in (palette.backgrounds, layouts):
        train, held = set(of("train")), set(of("heldout"))
        assert train and held and not train & held


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 5, 14])
def test_cells_lie_apart_and_inside(layout: str, count: int) -> None:
    size = draw_size(random.Random(count), count, high=200)
    specs = [Spec("pear", "red", 0.4 + 0.6 * i / count) for i in range(count)]
    cells = cells_of(random.Random(layout), layout, specs, size)
    assert len(cells) == count
    for cell in cells:
        assert cell.side >= specs[0].least
        assert cell.x - cell.side / 2 >= 0 and cell.x + cell.side / 2 <= size[0]
        assert cell.y - cell.side / 2 >= 0 and cell.y + cell.side / 2 <= size[1]
    share = 0.82 if layout.endswith("crowded") else 1.0
    for a, b in itertools.combinations(cells, 2):
        reach = (a.side + b.side) / 2 * share
        assert abs(a.x - b.x) >= reach or abs(a.y - b.y) >= reach


def thing(name: str, colour: str, x: float, y: float, w: float = 10, h: float = 10) -> Thing:
    return Thing(name, colour, (x - w / 2, y - h / 2, x + w / 2, y + h / 2))


def test_relations_have_a_margin() -> None:
    a, b, c = thing("star", "red", 20, 50), thing("star", "red", 40, 50), thing("star", "red", 38, 50)
    assert LEFT.fits(a, b, (100, 100)) is True and LEFT.fits(b, a, (100, 100)) is False
    assert LEFT.fits(c, b, (100, 100)) is None and ABOVE.fits(a, b, (100, 100)) is None


def test_size_needs_side_and_area() -> None:
    wide, square = thing("oval", "red", 0, 0, 60, 30), thing("square", "red", 0, 0, 45, 45)
    assert bigger(wide, square) is None and bigger(square, wide) is None
    assert bigger(thing("a", "red", 0, 0, 50, 50), square) is None
    assert bigger(thing("a", "red", 0, 0, 60, 60), square) is True


def test_zones() -> None:
    assert zone_of(thing("a", "red", 15, 45), (90, 90)) == "left"
    assert zone_of(thing("a", "red", 45, 45), (90, 90)) == "center"
    assert zone_of(thing("a", "red", 31, 45), (90, 90)) is None


def candidates(words: str, scene: Scene) -> list[Thing]:
    """All things that a description can mean if no margin is asked for: read from the words alone."""
    if " the " in words:
        left, mark = words.split(" the ", 1) if "to the" not in words else words.split(" of the ")
        anchors = [t for t in scene.things if mark in (t.name, t.words)]
        assert len(anchors) == 1
        ax, ay = anchors[0].centre
        for phrase, fits in (
            (" to the left", lambda t: t.centre[0] < ax),
            (" to the right", lambda t: t.centre[0] > ax),
            (" above", lambda t: t.centre[1] < ay),
            (" below", lambda t: t.centre[1] > ay),
        ):
            if left.endswith(phrase):
                name = left.removesuffix(phrase)
                return [t for t in scene.things if name in (t.name, t.words) and fits(t)]
        raise AssertionError(words)
    first, _, rest = words.partition(" ")
    keys = {
        "leftmost": lambda t: t.centre[0], "rightmost": lambda t: -t.centre[0], "topmost": lambda t: t.centre[1],
        "bottommost": lambda t: -t.centre[1], "largest": lambda t: -t.area, "smallest": lambda t: t.area,
    }  # fmt: skip
    if first in keys:
        group = [t for t in scene.things if rest in (t.name, t.words)]
        best = min(keys[first](t) for t in group)
        return [t for t in group if keys[first](t) == best]
    return [t for t in scene.things if words in (t.name, t.words)]


def test_descriptions_fit_one_thing() -> None:
    forms = set()
    for number in range(150):
        rng = random.Random(number)
        scene = draw_scene(rng, "train", most=8, high=200)
        found = referring(rng, scene)
        if found:
            words, meant = found
            assert candidates(words, scene) == [meant], (number, words)
            forms.add(next((w for w in ("most", "est", " of ", "above", "below") if w in words), "plain"))
    assert {"most", "est", " of ", "above", "below", "plain"} <= forms


def test_queries_find_all_and_only_theirs() -> None:
    rng = random.Random(2)
    specs = [Spec("star", "red"), Spec("star", "blue"), Spec("heart", "red")]
    scene = compose(rng, "train", specs, (120, 120), "plain/white", "grid/loose")
    assert {t.words for _, t in found_by([Query("star")], scene.things)} == {"red star", "blue star"}
    assert {t.words for _, t in found_by([Query("", "red")], scene.things)} == {"red star", "red heart"}
    assert [q.words for q in (Query(), Query("", "red"), Query("star", "red"))] == ["thing", "red thing", "red star"]


def test_words() -> None:
    assert (
        plural("leaf") == "leaves" and plural("star") == "stars" and plural("pair of cherries") == "pairs of cherries"
    )
    assert article("orange hat") == "an orange hat" and article("red hat") == "a red hat"
