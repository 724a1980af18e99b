"""What scores are made of: edit distance, overlap, pairing, and counts that add up over samples."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
PixelBox = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A quotient whose parts add up: over many samples it is sum(part) / sum(whole).

    F1 is one too: 2 x pairs over the sum of both lengths. With a whole of 0 there was nothing to be measured.
    """

    part: float
    whole: float

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None

    def __add__(self, other: Metric) -> Metric:
        return Metric(self.part + other.part, self.whole + other.whole)


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein's distance: the least number of insertions, deletions and replacements from `a` to `b`.

    A column of the table is held as bits of whole numbers (Myers 1999, in the form of Hyyrö 2001), so that
    texts of thousands of characters take milliseconds. Worked example: kitten -> sitting is 3.
    """
    if not a:
        return len(b)
    places: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        places[item] = places.get(item, 0) | 1 << i
    everything, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    plus, minus, distance = everything, 0, len(a)
    for item in b:
        equal = places.get(item, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        up = minus | ~(diagonal | plus)
        down = plus & diagonal
        distance += 1 if up & last else -1 if down & last else 0
        up = up << 1 | 1
        plus = (down << 1 | ~(diagonal | up)) & everything
        minus = up & diagonal & everything
    return distance


def plain(text: str) -> str:
    """NFC, runs of white space as one space, none at the ends; case and punctuation stay."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def error_rate(truth: Sequence[Hashable], said: Sequence[Hashable]) -> Metric:
    """Edits per item of the truth, at most all of them: an endless answer is as wrong as an empty one."""
    return Metric(min(edit_distance(truth, said), len(truth)), len(truth))


def overlap(a: PixelBox, b: PixelBox) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), 0..1; two equal boxes without area overlap fully."""
    if a == b:
        return 1.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def most_pairs(truth: Sequence[A], said: Sequence[B], fits: Callable[[A, B], bool]) -> list[tuple[int, int]]:
    """The greatest number of pairs (index in truth, index in said) that fit, each used once (Kuhn's augmenting paths).

    Taking the first that fits would be less: of truth a, b where x fits both and y only a, greedy pairs
    a with x and leaves b alone; here the result is a with y, b with x.
    """
    options = [[j for j, other in enumerate(said) if fits(item, other)] for item in truth]
    owner: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in options[i]:
            if j not in seen:
                seen.add(j)
                if j not in owner or place(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    for i in range(len(truth)):
        place(i, set())
    return sorted((i, j) for j, i in owner.items())


def f1(pairs: int, truth: int, said: int) -> Metric:
    """2 x pairs over all items of both sides; nothing to find and nothing found is nothing measured."""
    return Metric(2 * pairs, truth + said)
