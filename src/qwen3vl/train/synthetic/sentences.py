"""Sentences about panels of things that are true or false, and what decides it.

    Item in Panel; a picture is a tuple of panels          Sentence: text, holds(panels) -> True, False, None

None: the sentence presupposes what is not there ("the tower with four blocks") or hangs on pixels. Makers draw
a sentence from what a picture shows, so that it is often true of it; see true_false.py for how false ones are found.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qwen3vl.train.synthetic.icons import article, plural
from qwen3vl.train.synthetic.sample import PixelBox

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
APART = 6.0  # pixels of a panel of 100: what "above" needs at least


@dataclass(frozen=True, slots=True)
class Item:
    """A thing in its panel; `box` in the panel's pixels."""

    shape: str
    colour: str
    box: PixelBox

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True, slots=True)
class Panel:
    """One box or tower; the blocks of a tower stand from the base up."""

    items: tuple[Item, ...]
    width: float = 100.0
    height: float = 100.0


Panels = tuple[Panel, ...]
Fit = bool | None


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    holds: Callable[[Panels], Fit]


@dataclass(frozen=True, slots=True)
class Kind:
    """Which items are meant; "" is any shape or any colour."""

    shape: str = ""
    colour: str = ""

    def __call__(self, item: Item) -> bool:
        return (not self.shape or item.shape == self.shape) and (not self.colour or item.colour == self.colour)

    def words(self, number: int, general: str) -> str:
        """ "yellow triangles", or "yellow items" where any shape is meant and `general` is "item"."""
        name = self.shape or general
        return f"{self.colour} {name if number == 1 else plural(name)}".strip()


@dataclass(frozen=True, slots=True)
class Amount:
    """A number and how it is meant."""

    words: str
    low: int
    high: int

    def __call__(self, number: int) -> bool:
        return self.low <= number <= self.high


MANY = 10**6


def amount(rng: random.Random, seen: int) -> tuple[Amount, int]:
    """An amount near what is seen, and the number that decides singular or plural."""
    number = max(1, seen + rng.choice((0, 0, 0, 0, -1, 1)))
    said = NUMBERS[number] if number <= 10 and rng.random() < 0.6 else str(number)
    form = rng.random()
    if form < 0.5:
        return Amount(rng.choice(("exactly ", "exactly ", "only ")) + said, number, number), number
    if form < 0.8:
        return Amount(f"at least {said}", number, MANY), number
    return Amount(f"at most {said}", 0, number), number


def all_items(panels: Panels) -> Iterator[Item]:
    return (item for panel in panels for item in panel.items)


def how_many(items: Sequence[Item] | Iterator[Item], kind: Kind) -> int:
    return sum(kind(item) for item in items)


def draw_kind(rng: random.Random, panels: Panels) -> Kind:
    """Of one of the items, or mixed from two."""
    items = list(all_items(panels))
    a, b = rng.choice(items), rng.choice(items)
    return rng.choice((Kind(a.shape), Kind("", a.colour), Kind(a.shape, a.colour), Kind(a.shape, b.colour)))


Maker = Callable[[random.Random, Panels, "Style"], Sentence]


@dataclass(frozen=True, slots=True)
class Style:
    """The words of a sentence: what a panel and a thing are called."""

    box: str = "box"
    item: str = "item"


# ------------------------------------------------------------------------------ scattered in boxes


def total(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = draw_kind(rng, panels)
    fits, number = amount(rng, how_many(all_items(panels), kind))
    verb = "is" if number == 1 else "are"
    text = f"There {verb} {fits.words} {kind.words(number, style.item)}"
    return Sentence(text, lambda p: fits(how_many(all_items(p), kind)))


def box_with(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = Kind() if rng.random() < 0.3 else draw_kind(rng, panels)
    fits, number = amount(rng, how_many(rng.choice(panels).items, kind))
    said = fits.words.replace("only", "exactly")  # "only two squares" could mean nothing but squares
    text = f"There is {article(style.box)} with {said} {kind.words(number, style.item)}"
    return Sentence(text, lambda p: any(fits(how_many(panel.items, kind)) for panel in p))


def boxes_with(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = draw_kind(rng, panels)
    fits, number = amount(rng, sum(any(map(kind, panel.items)) for panel in panels))
    verb = "is" if number == 1 else "are"
    boxes = style.box if number == 1 else plural_box(style.box)
    text = f"There {verb} {fits.words} {boxes} with {article(kind.words(1, style.item))}"
    return Sentence(text, lambda p: fits(sum(any(map(kind, panel.items)) for panel in p)))


def plural_box(word: str) -> str:
    return word + ("es" if word.endswith("x") else "s")


def box_with_all(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kinds = [draw_kind(rng, panels) for _ in range(rng.choice((2, 2, 3)))]
    kinds = list(dict.fromkeys(Kind(k.shape or rng.choice(list(all_items(panels))).shape, k.colour) for k in kinds))
    listed = [article(kind.words(1, style.item)) for kind in kinds]
    joined = listed[0] if len(listed) == 1 else ", ".join(listed[:-1]) + " and " + listed[-1]
    text = f"There is {article(style.box)} with {joined}"
    return Sentence(text, lambda p: any(all(any(map(k, panel.items)) for k in kinds) for panel in p))


def one_colour(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    items = plural(style.item)
    if rng.random() < 0.4:
        text = f"There is {article(style.box)} with {items} of only one color"
        return Sentence(text, lambda p: any(len({i.colour for i in panel.items}) == 1 for panel in p))
    colour = rng.choice(list(all_items(panels))).colour
    text = f"There is {article(style.box)} with only {colour} {items}"
    return Sentence(text, lambda p: any(panel.items and {i.colour for i in panel.items} == {colour} for panel in p))


def every(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """All circles are yellow; all yellow things are circles."""
    item = rng.choice(list(all_items(panels)))
    if rng.random() < 0.5:
        kind, wanted, said = Kind(item.shape), Kind("", item.colour), item.colour
    else:
        kind, wanted, said = Kind("", item.colour), Kind(item.shape), plural(item.shape)
    text = f"All {kind.words(2, style.item)} are {said}"

    def holds(p: Panels) -> Fit:
        meant = [i for i in all_items(p) if kind(i)]
        return all(map(wanted, meant)) if len(meant) > 1 else None

    return Sentence(text, holds)


def same_box(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = draw_kind(rng, panels)

    def holds(p: Panels) -> Fit:
        counts = [how_many(panel.items, kind) for panel in p]
        return None if sum(counts) < 2 else sum(map(bool, counts)) == 1

    return Sentence(f"All {kind.words(2, style.item)} are in the same {style.box}", holds)


def more(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    a, b = draw_kind(rng, panels), draw_kind(rng, panels)
    if rng.random() < 0.7:  # of one sort, so that nothing is counted on both sides
        items = (
            rng.sample(list(all_items(panels)), 2) if len(list(all_items(panels))) > 1 else list(all_items(panels)) * 2
        )
        a, b = Kind(items[0].shape), Kind(items[1].shape)
        if a == b:
            a, b = Kind("", items[0].colour), Kind("", items[1].colour)
    word = rng.choice(("more", "fewer"))
    text = f"There are {word} {a.words(2, style.item)} than {b.words(2, style.item)}"

    def holds(p: Panels) -> Fit:
        x, y = how_many(all_items(p), a), how_many(all_items(p), b)
        return None if a == b or not x or not y else (x > y if word == "more" else x < y)

    return Sentence(text, holds)


WALLS = {"top": 1, "bottom": 3, "left wall": 0, "right wall": 2}


def touches(item: Item, panel: Panel, wall: int, reach: float = 1.5) -> Fit:
    """Whether a side of the item's box lies at that wall: at most 1.5 pixels away; less than 4 is too close to call."""
    at = (0.0, 0.0, panel.width, panel.height)[wall]
    gap = abs(item.box[wall] - at)
    return True if gap <= reach else None if gap < reach + 2.5 else False


def touching(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = draw_kind(rng, panels)
    name = rng.choice(("the wall", "the edge", "a corner", *(f"the {wall}" for wall in WALLS)))
    words = article(kind.words(1, style.item))
    tail = f" of {article(style.box)}" if name in ("a corner", "the top", "the bottom") or rng.random() < 0.3 else ""
    text = f"There is {words} {rng.choice(('touching', 'closely touching'))} {name}{tail}"
    return Sentence(text, lambda p: _any(_at_wall(i, panel, name) for panel in p for i in panel.items if kind(i)))


def _at_wall(item: Item, panel: Panel, name: str) -> Fit:
    sides = [touches(item, panel, wall) for wall in range(4)]
    if name in ("the wall", "the edge"):
        return _any(iter(sides))
    if name == "a corner":
        return _both(_any(iter((sides[0], sides[2]))), _any(iter((sides[1], sides[3]))))
    return sides[WALLS[name.removeprefix("the ")]]


def not_touching(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = draw_kind(rng, panels)
    seen = sum(kind(i) and _at_wall(i, panel, "the edge") is False for panel in panels for i in panel.items)
    fits, number = amount(rng, seen)
    verb = "is" if number == 1 else "are"
    text = f"There {verb} {fits.words} {kind.words(number, style.item)} not touching any edge"

    def holds(p: Panels) -> Fit:
        found = [_at_wall(i, panel, "the edge") for panel in p for i in panel.items if kind(i)]
        return None if None in found else fits(found.count(False))

    return Sentence(text, holds)


SIDES = {"above": (1, 1), "below": (1, -1), "to the left of": (0, 1), "to the right of": (0, -1)}


def lies(a: Item, b: Item, words: str, panel: Panel) -> Fit:
    """By the centres, with APART percent of the panel's side to spare."""
    axis, sign = SIDES[words]
    gap = sign * (b.centre[axis] - a.centre[axis]) / (panel.width, panel.height)[axis] * 100
    return True if gap >= APART else False if gap <= -APART else None


def beside(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """Somewhere a thing of one kind lies above one of another kind, in the same panel."""
    a, b = draw_kind(rng, panels), draw_kind(rng, panels)
    words = rng.choice(tuple(SIDES))
    text = f"There is {article(a.words(1, style.item))} {words} {article(b.words(1, style.item))}"

    def holds(p: Panels) -> Fit:
        pairs = [(x, y, q) for q in p for x in q.items for y in q.items if a(x) and b(y) and x is not y]
        return _any(lies(x, y, words, q) for x, y, q in pairs) if pairs else None

    return Sentence(text, holds)


def definite(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """The one red star is to the left of the one blue circle."""
    items = list(all_items(panels))
    a, b = (Kind(i.shape, i.colour) for i in (rng.choice(items), rng.choice(items)))
    words = rng.choice(tuple(SIDES))

    def holds(p: Panels) -> Fit:
        pairs = [(x, y, q) for q in p for x in q.items for y in q.items if a(x) and b(y) and x is not y]
        return lies(pairs[0][0], pairs[0][1], words, pairs[0][2]) if len(pairs) == 1 else None

    return Sentence(f"The {a.words(1, style.item)} is {words} the {b.words(1, style.item)}", holds)


def _any(fits: Iterator[Fit]) -> Fit:
    found = list(fits)
    return True if True in found else None if None in found else False


def _both(a: Fit, b: Fit) -> Fit:
    return False if a is False or b is False else None if a is None or b is None else True


BOX_MAKERS: tuple[Maker, ...] = (
    total, box_with, box_with, boxes_with, box_with_all, one_colour, every, same_box, more, touching, touching,
    not_touching, beside,
)  # fmt: skip
FREE_MAKERS: tuple[Maker, ...] = (total, total, every, more, beside, definite, definite)
