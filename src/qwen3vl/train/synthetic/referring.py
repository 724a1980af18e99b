"""Descriptions that fit exactly one thing of a scene, and clearly no other.

Places are told by centres. A relation holds only by a margin and fails only by a margin; where a thing lies in
between, the description is not used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from qwen3vl.train.synthetic.arrange import Scene, Thing

MARGIN = 0.06  # of the picture's side, for places
BIGGER = 1.25  # times, for sizes
Fit = bool | None
"""True: holds. False: does not. None: too close to call."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How a first thing lies to a second; `opposite` holds when they are swapped."""

    words: str
    axis: int
    sign: int

    def fits(self, a: Thing, b: Thing, size: tuple[int, int]) -> Fit:
        """Worked example: in a picture 100 wide, x = 20 is left of 40; 38 and 40 are too close to call."""
        gap = self.sign * (b.centre[self.axis] - a.centre[self.axis]) / size[self.axis]
        return True if gap >= MARGIN else False if gap <= -MARGIN else None


LEFT, RIGHT = Relation("to the left of", 0, 1), Relation("to the right of", 0, -1)
ABOVE, BELOW = Relation("above", 1, 1), Relation("below", 1, -1)
RELATIONS = (LEFT, RIGHT, ABOVE, BELOW)
EXTREMES = {
    "leftmost": LEFT,
    "rightmost": RIGHT,
    "topmost": ABOVE,
    "bottommost": BELOW,
}


def bigger(a: Thing, b: Thing) -> Fit:
    """By the longer side and by the box's area, which must agree: 60 x 30 and 45 x 45 are too close to call."""
    longer, larger = a.extent / b.extent, a.area / b.area
    if longer >= BIGGER and larger >= BIGGER:
        return True
    return False if longer <= 1 / BIGGER and larger <= 1 / BIGGER else None


def smaller(a: Thing, b: Thing) -> Fit:
    return bigger(b, a)


def only(things: Sequence[Thing], fits: Callable[[Thing], Fit]) -> Thing | None:
    """The one thing that fits while all others clearly do not."""
    found = [fits(thing) for thing in things]
    return things[found.index(True)] if found.count(True) == 1 and None not in found else None


def alone(things: Sequence[Thing], words: str) -> Thing | None:
    """The only thing with this name, or with this colour and name."""
    return only(things, lambda t: words in (t.name, t.words))


def most(things: Sequence[Thing], before: Callable[[Thing, Thing], Fit]) -> Thing | None:
    """The thing that comes before all others, if there are others."""
    if len(things) < 2:
        return None
    return only(things, lambda t: _all(before(t, other) for other in things if other is not t))


def _all(fits: Iterator[Fit]) -> Fit:
    """True if all hold; False if one fails; None if that hangs on one too close to call."""
    found = list(fits)
    return False if False in found else None if None in found else True


def referring(rng: random.Random, scene: Scene) -> tuple[str, Thing] | None:
    """A description and its thing, of a random form; None where this scene allows none of them."""
    forms = [_plain, _extreme, _size, _relation]
    rng.shuffle(forms)
    for form in forms:
        found = form(rng, scene)
        if found is not None:
            return found
    return None


Described = tuple[str, Thing] | None


def _groups(rng: random.Random, scene: Scene, several: bool) -> list[str]:
    """Names and coloured names in random order, of at least two things or of any number."""
    words = list(dict.fromkeys(w for t in scene.things for w in (t.name, t.words)))
    words = [w for w in words if not several or len(members(scene, w)) > 1]
    rng.shuffle(words)
    return words


def members(scene: Scene, words: str) -> list[Thing]:
    return [t for t in scene.things if words in (t.name, t.words)]


def _plain(rng: random.Random, scene: Scene) -> Described:
    for words in _groups(rng, scene, several=False):
        if thing := alone(scene.things, words):
            return words, thing
    return None


def _extreme(rng: random.Random, scene: Scene) -> Described:
    for words in _groups(rng, scene, several=True):
        for name, relation in rng.sample(sorted(EXTREMES.items()), len(EXTREMES)):
            if thing := most(members(scene, words), partial(relation.fits, size=scene.picture.size)):
                return f"{name} {words}", thing
    return None


def _size(rng: random.Random, scene: Scene) -> Described:
    for words in _groups(rng, scene, several=True):
        for name, before in rng.sample((("largest", bigger), ("smallest", smaller)), 2):
            if thing := most(members(scene, words), before):
                return f"{name} {words}", thing
    return None


def _relation(rng: random.Random, scene: Scene) -> Described:
    """ "star to the left of the red circle": one star is, all others are not."""
    for words in _groups(rng, scene, several=True):
        for mark in _groups(rng, scene, several=False):
            anchor = alone(scene.things, mark)
            if anchor is None or anchor in members(scene, words):
                continue
            for relation in rng.sample(RELATIONS, len(RELATIONS)):
                fits = partial(relation.fits, b=anchor, size=scene.picture.size)
                if thing := only(members(scene, words), fits):
                    return f"{words} {relation.words} the {mark}", thing
    return None
