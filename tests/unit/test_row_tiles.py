"""Row tiles: how many rows go together, and that dependence on a place or on company is noticed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qwen3vl.errors import UnsupportedOption
from qwen3vl.model.row_tiles import RowTiles, plan, verified_tiles

ROWS = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


def test_worked_example() -> None:
    """The numbers at the top of row_tiles.py."""
    assert plan(700, (8, 64, 512)) == [512, 64, 64, 64]


@given(st.integers(1, 3000), st.sampled_from([(8,), (8, 64), (8, 64, 512), (1, 3, 100)]))
def test_pieces_hold_the_rows_without_a_whole_piece_to_spare(num_rows: int, sizes: tuple[int, ...]) -> None:
    pieces = plan(num_rows, sizes)
    assert set(pieces) <= set(sizes) and pieces == sorted(pieces, reverse=True)
    assert sum(pieces) - pieces[-1] < num_rows <= sum(pieces)


def test_no_rows() -> None:
    assert plan(0, (8, 64)) == []
    assert RowTiles((8, 64)).apply(lambda x: x[:, :1].double(), torch.empty(0, 3)).shape == (0, 1)


@pytest.mark.parametrize("num_rows", [1, 8, 9, 71, 130])
def test_apply_calls_with_fixed_sizes_and_keeps_the_rows(num_rows: int) -> None:
    seen = []

    def double(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(x))
        return 2 * x, x[:, 0]

    x = torch.randn(num_rows, 3)
    doubled, first = RowTiles((8, 64)).apply(double, x)
    assert torch.equal(doubled, 2 * x) and torch.equal(first, x[:, 0]) and set(seen) <= {8, 64}


def test_another_axis() -> None:
    x = torch.randn(2, 11, 3)
    assert torch.equal(RowTiles((4,), dim=1).apply(lambda part: part.sum(-1, keepdim=True), x), x.sum(-1, keepdim=True))


def test_all_sizes_of_a_function_of_rows() -> None:
    assert verified_tiles(lambda x: x.exp(), ROWS, (8, 16, 64), "exp").sizes == (8, 16, 64)


def test_a_size_that_gives_other_bits_is_left_out() -> None:
    def off_by_a_bit(x: Tensor) -> Tensor:
        return x * 3 if len(x) != 16 else x * (3 + 3e-7)

    assert verified_tiles(off_by_a_bit, ROWS, (8, 16, 64), "it").sizes == (8, 64)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (1 + 1e-6 * torch.arange(len(x))[:, None]),  # a row's place
        lambda x: torch.cat((x[:-1], x[-1:] * (1 + 1e-6))),  # the last place
        lambda x: x + 1e-3 * x.mean(0),  # its company
        lambda x: (x, x.cumsum(0)),  # in one of two results
    ],
)
def test_dependence_on_place_or_company_is_refused(function: object) -> None:
    with pytest.raises(UnsupportedOption, match=r"of this depends on its place among 8 rows") as caught:
        verified_tiles(function, ROWS, (8, 64), "this")  # type: ignore[arg-type]
    assert "deterministic=True: on this machine (cpu, " in str(caught.value)


def test_a_larger_size_with_places_of_its_own_is_left_out() -> None:
    def uneven(x: Tensor) -> Tensor:
        return x if len(x) < 64 else torch.cat((x[:40], x[40:] * (1 + 1e-6)))

    assert verified_tiles(uneven, ROWS, (8, 64), "this").sizes == (8,)
