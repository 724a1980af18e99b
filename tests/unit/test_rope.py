"""Rotary embeddings: which frequency turns with which axis, YaRN, and what turning means."""

from __future__ import annotations

import math

import pytest
import torch

from qwen3vl.config import RopeConfig
from qwen3vl.model import rope
from qwen3vl.model.rope import mrope_axes, rotate, text_frequencies, text_rotary, vision_rotary


def axes(*section: int, num_frequencies: int) -> str:
    return "".join("THW"[axis] for axis in mrope_axes(section, num_frequencies).tolist())  # type: ignore[arg-type]


def test_the_worked_example() -> None:
    """Section 3 2 2 of 8 frequencies, as in the module's docstring."""
    assert rope.__doc__ is not None
    line = next(line for line in rope.__doc__.splitlines() if line.strip().startswith("axis"))
    assert axes(3, 2, 2, num_frequencies=8) == "".join(line.split()[1:9])


def test_official_sections() -> None:
    official = axes(24, 20, 20, num_frequencies=64)
    assert official == "THW" * 20 + "TTTT"
    assert [official.count(axis) for axis in "THW"] == [24, 20, 20]


def test_other_sections() -> None:
    assert axes(12, 10, 10, num_frequencies=32) == "THW" * 10 + "TT"
    assert axes(8, 4, 4, num_frequencies=16) == "THW" * 4 + "TTTT"
    assert axes(5, 1, 2, num_frequencies=8) == "THWTTWTT"
    assert axes(4, 0, 0, num_frequencies=4) == "TTTT"


def test_plain_frequencies() -> None:
    frequencies, scale = text_frequencies(RopeConfig(10000.0, (2, 1, 1)), head_dim=8)
    torch.testing.assert_close(frequencies, torch.tensor([1.0, 0.1, 0.01, 0.001]))
    assert scale == 1.0


def test_yarn_keeps_fast_and_stretches_slow_frequencies() -> None:
    plain, _ = text_frequencies(RopeConfig(5e6, (24, 20, 20)), 128)
    scaled, scale = text_frequencies(RopeConfig(5e6, (24, 20, 20), factor=3.0, original_max_positions=262144), 128)
    ratio = plain / scaled
    assert scale == pytest.approx(0.1 * math.log(3) + 1)
    assert ratio[0] == pytest.approx(1) and ratio[-1] == pytest.approx(3)
    assert (ratio.diff() > -1e-6).all() and ratio.min() > 1 - 1e-6 and ratio.max() < 3 + 1e-6


def test_factor_one_changes_nothing() -> None:
    plain, _ = text_frequencies(RopeConfig(1e4, (2, 1, 1)), 64)
    same, scale = text_frequencies(RopeConfig(1e4, (2, 1, 1), factor=1.0, original_max_positions=4096), 64)
    torch.testing.assert_close(same, plain)
    assert scale == 1.0


def test_angles_come_from_the_axis_of_each_frequency() -> None:
    frequencies, axes_F = torch.tensor([1.0, 0.5, 0.25, 0.125]), torch.tensor([0, 1, 2, 0])
    positions = torch.tensor([[1, 8], [2, 16], [3, 32]])
    cos, sin = text_rotary(positions, frequencies, axes_F, 2.0, torch.float32)
    angles = torch.tensor([[1.0, 1.0, 0.75, 0.125], [8.0, 8.0, 8.0, 1.0]])
    torch.testing.assert_close(cos, 2 * angles.repeat(1, 2).cos())
    torch.testing.assert_close(sin, 2 * angles.repeat(1, 2).sin())


def test_vision_turns_rows_then_columns() -> None:
    cos, sin = vision_rotary(torch.tensor([3]), torch.tensor([5]), head_dim=8, theta=100.0)
    angles = torch.tensor([[3.0, 0.3, 5.0, 0.5]]).repeat(1, 2)
    torch.testing.assert_close(cos, angles.cos())
    torch.testing.assert_close(sin, angles.sin())


def test_rotation_depends_on_distance_alone() -> None:
    """<turn(q, a), turn(k, b)> is that of any other a, b as far apart."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 16), torch.randn(1, 2, 16)
    frequencies, _ = text_frequencies(RopeConfig(100.0, (4, 2, 2)), 16)

    def product(a: int, b: int) -> torch.Tensor:
        def turn(x: torch.Tensor, position: int) -> torch.Tensor:
            where = torch.full((3, 1), position)
            return rotate(x, *text_rotary(where, frequencies, torch.zeros(8, dtype=torch.long), 1.0, torch.float32))

        return (turn(q, a) * turn(k, b)).sum(-1)

    torch.testing.assert_close(product(9, 4), product(105, 100), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(product(9, 4), product(9, 5), atol=1e-2)


def test_pairs_are_half_a_head_apart() -> None:
    """A quarter turn of (1, 2, 3, 4): pairs (1, 3) and (2, 4) become (-3, 1) and (-4, 2)."""
    out = rotate(torch.tensor([[[1.0, 2, 3, 4]]]), torch.zeros(1, 4), torch.ones(1, 4))
    assert out.tolist() == [[[-3, -4, 1, 2]]]
