"""Sentences about towers of coloured blocks; see sentences.py."""

from __future__ import annotations

import random
from collections.abc import Sequence

from qwen3vl.train.synthetic.icons import article
from qwen3vl.train.synthetic.sentences import (
    NUMBERS,
    Fit,
    Item,
    Kind,
    Maker,
    Panels,
    Sentence,
    Style,
    all_items,
    amount,
    how_many,
)


def height(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    fits, number = amount(rng, len(rng.choice(panels).items))
    words = fits.words.removeprefix("exactly ") if rng.random() < 0.5 else fits.words
    text = f"There is a tower with {words} block{'s' * (number != 1)}"
    return Sentence(text, lambda p: any(fits(len(panel.items)) for panel in p))


def at_end(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """How many towers have a block of a colour at the base or the top."""
    index, place = rng.choice(((0, "at the base"), (-1, "at the top")))
    colour = rng.choice(list(all_items(panels))).colour
    seen = sum(panel.items[index].colour == colour for panel in panels)
    tail = f"with {article(colour)} block {place}"
    if rng.random() < 0.4:
        return Sentence(f"There is a tower {tail}", lambda p: any(q.items[index].colour == colour for q in p))
    fits, number = amount(rng, seen)
    verb, towers = ("is", "tower") if number == 1 else ("are", "towers")
    text = f"There {verb} {fits.words} {towers} {tail}"
    return Sentence(text, lambda p: fits(sum(q.items[index].colour == colour for q in p)))


def stacked(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """One colour anywhere above another in the same tower."""
    colours = [i.colour for i in all_items(panels)]
    a, b, word = rng.choice(colours), rng.choice(colours), rng.choice(("above", "over", "below"))

    def holds(p: Panels) -> Fit:
        upper, lower = (b, a) if word == "below" else (a, b)
        return any(_over(q.items, upper, lower) for q in p)

    return Sentence(f"There is a tower with {article(a)} block {word} {article(b)} block", holds)


def _over(items: Sequence[Item], upper: str, lower: str) -> bool:
    return any(x.colour == lower and y.colour == upper for i, x in enumerate(items) for y in items[i + 1 :])


def only_colours(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    colours = list(dict.fromkeys(i.colour for i in rng.choice(panels).items))[: rng.choice((1, 2))]
    text = f"There is a tower with only {' and '.join(colours)} blocks"
    return Sentence(text, lambda p: any({i.colour for i in q.items} == set(colours) and len(q.items) > 1 for q in p))


def same_height(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    words = rng.choice(("the same height", "the same number of blocks"))
    text = f"There are at least two towers with {words}"
    return Sentence(text, lambda p: len({len(q.items) for q in p}) < len(p))


def blocks(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    kind = Kind("", rng.choice(list(all_items(panels))).colour)
    fits, number = amount(rng, how_many(all_items(panels), kind))
    verb = "is" if number == 1 else "are"
    text = f"There {verb} {fits.words} {kind.words(number, 'block')}"
    return Sentence(text, lambda p: fits(how_many(all_items(p), kind)))


def the_tower(rng: random.Random, panels: Panels, style: Style) -> Sentence:
    """Of the one tower with so many blocks."""
    tower = rng.choice(panels)
    size = len(tower.items)
    index, place = rng.choice(((0, "at the base"), (-1, "at the top")))
    colour = rng.choice(tower.items).colour
    text = f"The tower with {NUMBERS[size]} block{'s' * (size != 1)} has {article(colour)} block {place}"

    def holds(p: Panels) -> Fit:
        meant = [q for q in p if len(q.items) == size]
        return meant[0].items[index].colour == colour if len(meant) == 1 else None

    return Sentence(text, holds)


TOWER_MAKERS: tuple[Maker, ...] = (
    height, at_end, at_end, stacked, stacked, only_colours, same_height, blocks, the_tower,
)  # fmt: skip
