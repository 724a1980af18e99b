"""Two sides that share nothing: what the held-out side shows is never seen in training.

A name (a word, a font family, a shop) belongs to a side by its own hash, so that machines with other fonts
or word lists still agree. A short fixed list (layouts, themes) is cut by rank, so that both sides have some.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

from qwen3vl.train.synthetic.sample import Side

HELD_OUT = 0.2  # of the names of every kind
T = TypeVar("T")


def rng_of(side: Side, seed: int, task: str, index: int) -> random.Random:
    """The random numbers of one sample: the same on every machine and in every process."""
    return random.Random(f"{side}/{seed}/{task}/{index}")


@lru_cache(maxsize=1 << 17)
def side_of(kind: str, name: str) -> Side:
    """The side that a name belongs to, by its hash alone."""
    return "heldout" if _part(kind, name) < HELD_OUT else "train"


def of_side(side: Side, kind: str, names: Iterable[T], name_of: Callable[[T], str] = str) -> tuple[T, ...]:
    """Those of many names that belong to a side."""
    return tuple(name for name in names if side_of(kind, name_of(name)) == side)


def ranked(side: Side, kind: str, names: Sequence[T], name_of: Callable[[T], str] = str) -> tuple[T, ...]:
    """One side's part of a short fixed list of at least two: the held-out side gets a fifth, at least one.

    Of 4 layouts the one with the smallest hash is held out. Adding to the list can move a name: a model
    trained before is then to be evaluated on the old list.
    """
    assert len(names) >= 2, f"{kind}: {len(names)} name(s) cannot be split"
    count = max(1, round(HELD_OUT * len(names)))
    held = set(sorted((name_of(n) for n in names), key=lambda n: _part(kind, n))[:count])
    return tuple(n for n in names if (name_of(n) in held) == (side == "heldout"))


def combined(side: Side, kind: str, names: Sequence[str], variants: Sequence[str]) -> tuple[str, ...]:
    """Layouts "name/variant". A fifth of the names is held out in all variants, and of the others a fifth of the
    combinations: the held-out side shows unknown layouts, and known ones placed in unknown ways."""
    held = set(ranked("heldout", f"{kind} kind", names))
    mine = [n for n in names if (n in held) == (side == "heldout")]
    all_of = [f"{name}/{variant}" for name in mine for variant in variants]
    if side == "train":
        return of_side("train", f"{kind} layout", all_of)
    others = [f"{name}/{variant}" for name in names if name not in held for variant in variants]
    return (*all_of, *of_side("heldout", f"{kind} layout", others))


def _part(kind: str, name: str) -> float:
    digest = hashlib.blake2b(f"{kind}/{name}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)
