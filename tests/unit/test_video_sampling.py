"""The worked examples of video_sampling and video_size, and what the rules promise in general."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.errors import InvalidParams, MediaTooLarge
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video_sampling import (
    frames_between,
    has_constant_rate,
    num_sampled_frames,
    patch_times,
    sane_rate,
    spread_in_time,
    spread_indices,
    timestamp_text,
)
from qwen3vl.processor.video_size import grid_of, resized_frame_size, volume_bounds
from qwen3vl.settings import MediaOptions
from tests.oracle import ASSETS

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")
NONE = MediaOptions()


def test_worked_example_of_sampling() -> None:
    count = num_sampled_frames(1800, 30.0, NONE, SETTINGS)
    indices = spread_indices(0, 1799, count)
    times = (indices / 30).tolist()
    assert count == 120 and indices[:6].tolist() == [0, 15, 30, 45, 60, 76]
    assert times[:6] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 76 / 30])
    told = patch_times(times, 2)
    assert told[:3] == pytest.approx([0.25, 1.25, 2.2666667])
    assert [timestamp_text(t) for t in told[:3]] == ["<0.2 seconds>", "<1.2 seconds>", "<2.3 seconds>"]


def test_worked_example_of_sizes() -> None:
    assert resized_frame_size(10, 1080, 1920, SETTINGS, NONE) == (1088, 1920)
    assert grid_of(10, 1088, 1920, SETTINGS) == (5, 68, 120)
    assert resized_frame_size(20, 1080, 1920, SETTINGS, NONE) == (832, 1472)


def test_an_odd_count_repeats_the_last_time() -> None:
    assert patch_times([0.0, 0.5, 1.0], 2) == [0.25, 1.0]
    assert patch_times([3.0], 2) == [3.0]


def test_spread_in_time_example() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 5.0, 10.0])
    assert spread_in_time(times, 0, 5, 3).tolist() == [0, 4, 5]
    assert spread_indices(0, 5, 3).tolist() == [0, 2, 5]
    assert spread_in_time(times, 4, 4, 3).tolist() == [4]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(1, 70))
def test_spread_in_time_gives_distinct_rising_frames(gaps: list[int], count: int) -> None:
    times = np.cumsum(gaps) / 1000
    chosen = spread_in_time(times, 0, len(times) - 1, count)
    assert len(chosen) == min(count, len(times)) and (np.diff(chosen) > 0).all()
    assert chosen[0] == 0 or count == 1
    assert chosen[-1] == len(times) - 1 or len(chosen) == 1


@given(st.integers(3, 400), st.integers(2, 60))
def test_at_a_constant_rate_both_spreads_agree(total: int, count: int) -> None:
    times = np.arange(total) / 30
    count = min(count, total)
    by_time, by_index = spread_in_time(times, 0, total - 1, count), spread_indices(0, total - 1, count)
    assert np.abs(by_time - by_index).max() <= 1  # halves may go either way
    assert has_constant_rate(times)


def test_constant_rate_survives_the_rounding_of_clocks() -> None:
    assert has_constant_rate(np.round(np.arange(300) / 29.97, 3))
    assert not has_constant_rate(np.array([0.0, 0.1, 0.2, 0.3, 1.4, 1.5]))
    assert has_constant_rate(np.array([0.0])) and has_constant_rate(np.array([0.0, 7.0]))


def test_frames_between_includes_both_ends() -> None:
    times = np.arange(10) / 10
    assert frames_between(times, 1.0, None, None) == (0, 9)
    assert frames_between(times, 1.0, 0.3, 0.6) == (3, 6)
    assert frames_between(times, 1.0, 0.31, 0.39) == (3, 3)  # frame 3 is what is shown then
    assert frames_between(times, 1.0, 0.95, None) == (9, 9)
    with pytest.raises(InvalidParams, match=r"video_start=1\.0"):
        frames_between(times, 1.0, 1.0, None)
    with pytest.raises(InvalidParams, match=r"to video_end=4\.0"):
        frames_between(times + 5, 6.0, None, 4.0)


def test_rates_that_headers_state() -> None:
    times = np.arange(30) / 30
    assert sane_rate(30.0, times) == 30.0
    assert sane_rate(31.0, times) == 31.0  # the last frame's duration counted or not
    assert sane_rate(1000.0, times) == pytest.approx(30.0)
    assert sane_rate(None, times) == pytest.approx(30.0)
    assert sane_rate(None, times[:1]) is None and sane_rate(25.0, times[:1]) == 25.0


def test_bounds_of_counts() -> None:
    assert num_sampled_frames(3, 30.0, NONE, SETTINGS) == 3  # min_frames cannot make frames
    assert num_sampled_frames(30, 30.0, NONE, SETTINGS) == 4
    assert num_sampled_frames(10**6, 30.0, NONE, SETTINGS) == 768
    assert num_sampled_frames(10**6, 30.0, MediaOptions(min_frames=1000), SETTINGS) == 1000
    assert num_sampled_frames(60.0, 1.0, NONE, SETTINGS, available=7) == 7
    assert num_sampled_frames(1, 25.0, NONE, SETTINGS) == 1


@given(
    count=st.integers(1, 300),
    height=st.integers(20, 3000),
    width=st.integers(20, 3000),
    bound=st.integers(4096, 2_000_000),
)
def test_each_frame_keeps_within_its_own_bounds(count: int, height: int, width: int, bound: int) -> None:
    h, w = resized_frame_size(count, height, width, SETTINGS, MediaOptions(max_pixels=bound))
    assert h * w <= bound or min(h, w) == 32
    roomy = replace(SETTINGS, max_pixels=10**12)
    h, w = resized_frame_size(count, height, width, roomy, MediaOptions(min_pixels=bound))
    assert h * w >= bound


def test_contradicting_bounds() -> None:
    with pytest.raises(InvalidParams, match=r"min_pixels=65536 for each of 768 frames makes 50331648.*have 25165824"):
        volume_bounds(768, SETTINGS, MediaOptions(min_pixels=65536))
    assert volume_bounds(4, SETTINGS, MediaOptions(max_pixels=500)) == (2000, 2000)  # the checkpoint's least makes way
    assert volume_bounds(10, SETTINGS, MediaOptions(cap_frame_pixels=True)) == (4096, 7864320)
    with pytest.raises(MediaTooLarge, match="200 times"):
        resized_frame_size(4, 10, 2001, SETTINGS, NONE)
