"""Positions of mixed prompts, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3vl.inputs import VisualSpan
from qwen3vl.model import positions
from qwen3vl.model.positions import mrope_positions


def rows_of(table: str) -> list[list[int]]:
    """Numbers of a table's lines, without their first word and the bars."""
    return [[int(n) for n in line.replace("|", " ").split()[1:]] for line in table.strip().splitlines()]


def test_the_worked_example() -> None:
    """It stands in the module's docstring, and is read from there."""
    assert positions.__doc__ is not None
    lines = [line for line in positions.__doc__.splitlines() if line.strip().startswith(("time", "height", "width  "))]
    ids, following = mrope_positions(10, [VisualSpan(2, (4, 6), 0, 0)], merge_size=2)
    assert ids.tolist() == rows_of("\n".join(lines)) and ids.dtype == np.int64
    assert following == 7 and following - 10 == -3


def test_text_alone_counts_on_every_axis() -> None:
    ids, following = mrope_positions(4, [], merge_size=2, start=11)
    assert ids.tolist() == [[11, 12, 13, 14]] * 3 and following == 15


def test_two_frames_of_a_video() -> None:
    """Timestamp of 1 token, 1 x 2 merged patches, marker, timestamp of 2, 1 x 2 again; time does not stride."""
    spans = [VisualSpan(1, (2, 4), 0, 0), VisualSpan(6, (2, 4), 0, 1)]
    ids, following = mrope_positions(9, spans, merge_size=2)
    table = """
        time    0 | 1 1 | 3 4 5 | 6 6 | 8
        height  0 | 1 1 | 3 4 5 | 6 6 | 8
        width   0 | 1 2 | 3 4 5 | 6 7 | 8
    """
    assert ids.tolist() == rows_of(table) and following == 9


@pytest.mark.parametrize(("grid", "merge"), [((2, 2), 2), ((3, 3), 3), ((1, 1), 1)])
def test_a_picture_of_one_token_is_like_a_text_token(grid: tuple[int, int], merge: int) -> None:
    ids, following = mrope_positions(3, [VisualSpan(1, grid, 0, 0)], merge)
    assert ids.tolist() == [[0, 1, 2]] * 3 and following == 3


def test_start_moves_everything() -> None:
    spans = [VisualSpan(2, (4, 8), 0, 0)]
    ids, following = mrope_positions(12, spans, 2)
    moved, moved_following = mrope_positions(12, spans, 2, start=100)
    assert (moved == ids + 100).all() and moved_following == following + 100


@pytest.mark.parametrize(
    "spans", [[VisualSpan(8, (4, 4), 0, 0)], [VisualSpan(3, (2, 4), 0, 0), VisualSpan(4, (2, 2), 1, 0)]]
)
def test_spans_that_do_not_fit_are_a_mistake_of_ours(spans: list[VisualSpan]) -> None:
    with pytest.raises(AssertionError):
        mrope_positions(10, spans, 2)
