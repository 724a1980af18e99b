"""Functions of rows, run in pieces of a few fixed sizes, so that a row's result depends on that row alone.

A matrix product sums in an order that libraries choose by the shape: the same row among 3 rows and among 8
may differ in its last bit. With one fixed shape the order is fixed too. Which larger shapes sum in the very
same order is found out on this machine, and used where there are many rows. Sizes (8, 64, 512), 700 rows:

    512 | 64 | 64 | 60 + 4 rows of zeros

Shape names: T rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from qwen3vl.errors import UnsupportedOption

Rows: TypeAlias = "Tensor | tuple[Tensor, ...]"
RowFunction = Callable[[Tensor], Rows]

_CALL = 10  # what a call costs beside its rows, counted in rows: reading the weights once


class RowTiles:
    """Applies functions to pieces of `sizes` rows; the last piece is filled up with zeros.

    Args:
        sizes: ascending. Made by `verified_tiles`, they all give the same bits.
        dim: the axis of the rows, in what goes in and in what comes out.
    """

    def __init__(self, sizes: Sequence[int], dim: int = 0) -> None:
        self.sizes, self.dim = tuple(sizes), dim

    def apply(self, function: RowFunction, x: Tensor) -> Rows:
        num_rows = x.shape[self.dim]
        pieces = plan(num_rows, self.sizes) or [self.sizes[0]]  # no rows: what comes out still has its shape
        if sum(pieces) > num_rows:
            missing = list(x.shape)
            missing[self.dim] = sum(pieces) - num_rows
            x = torch.cat((x, x.new_zeros(missing)), self.dim)
        outs = [function(part.contiguous()) for part in x.split(pieces, self.dim)]
        if isinstance(outs[0], Tensor):
            return self._joined(outs, num_rows)  # type: ignore[arg-type]
        return tuple(self._joined(each, num_rows) for each in zip(*outs, strict=True))

    def _joined(self, outs: Sequence[Tensor], num_rows: int) -> Tensor:
        whole = outs[0] if len(outs) == 1 else torch.cat(tuple(outs), self.dim)
        return whole.narrow(self.dim, 0, num_rows)


@lru_cache(maxsize=4096)
def plan(num_rows: int, sizes: tuple[int, ...]) -> list[int]:
    """Sizes of the pieces that hold `num_rows` rows, largest first. See the top of the file."""
    pieces: list[int] = []
    for i in range(len(sizes) - 1, 0, -1):
        size, smaller = sizes[i], sizes[i - 1]
        whole, num_rows = divmod(num_rows, size)
        if -(-num_rows // smaller) * (smaller + _CALL) > size + _CALL:  # one piece with room left is cheaper
            whole, num_rows = whole + 1, 0
        pieces += [size] * whole
    return pieces + [sizes[0]] * -(-num_rows // sizes[0])


def verified_tiles(function: RowFunction, rows: Tensor, sizes: Sequence[int], what: str, dim: int = 0) -> RowTiles:
    """Those of `sizes` whose pieces give each row the same bits, in any place and in any company.

    Args:
        rows: random, at least as many as the largest size.
        sizes: ascending; the first must hold.
        what: the function, for people.

    Raises:
        UnsupportedOption: with the first size the result of a row depends on where it lies.
    """
    good, few = RowTiles(sizes[:1], dim), rows.narrow(dim, 0, min(2 * sizes[0], rows.shape[dim]))
    if not _place_is_free(function, few, good, good.apply(function, few)):
        raise UnsupportedOption(
            f"deterministic=True: on this machine ({rows.device}, {torch.get_num_threads()} threads) the result of a "
            f"row of {what} depends on its place among {sizes[0]} rows"
        )
    for size in sizes[1:]:
        part, tiles = rows.narrow(dim, 0, size), RowTiles((size,), dim)
        expected = good.apply(function, part)
        if _equal(tiles.apply(function, part), expected) and _place_is_free(function, part, tiles, expected):
            good = RowTiles((*good.sizes, size), dim)
    return good


def _place_is_free(function: RowFunction, rows: Tensor, tiles: RowTiles, expected: Rows) -> bool:
    """Shifted along, every row gets another place and, across the borders of pieces, other company."""
    shift = tiles.sizes[0] // 2 + 1
    moved = tiles.apply(function, rows.roll(shift, tiles.dim))
    return _equal(_roll(moved, -shift, tiles.dim), expected)


def _roll(rows: Rows, shift: int, dim: int) -> Rows:
    return rows.roll(shift, dim) if isinstance(rows, Tensor) else tuple(x.roll(shift, dim) for x in rows)


def _equal(a: Rows, b: Rows) -> bool:
    pairs = [(a, b)] if isinstance(a, Tensor) else zip(a, b, strict=True)
    return all(torch.equal(x, y) for x, y in pairs)  # type: ignore[arg-type]
