"""Sampling, sizes and timestamps of videos are transformers' own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import MediaTooLarge
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video_sampling import num_sampled_frames, patch_times, spread_indices, timestamp_text
from qwen3vl.processor.video_size import resized_frame_size
from qwen3vl.settings import MediaOptions
from tests.oracle import ASSETS, import_torchvision, processor

import_torchvision()
from transformers.video_utils import VideoMetadata  # noqa: E402  (needs the line above)

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")
RATES = st.sampled_from([1.0, 3.0, 10.0, 23.976, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 59.94, 120.0])


@settings(max_examples=300, deadline=None)
@given(total=st.integers(2, 20000), rate=RATES, fps=st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.7, 24.0, 60.0]))
def test_indices_by_fps(total: int, rate: float, fps: float) -> None:
    metadata = VideoMetadata(total_num_frames=total, fps=rate)
    theirs = processor().video_processor.sample_frames(metadata, fps=fps).tolist()
    ours = spread_indices(0, total - 1, num_sampled_frames(total, rate, MediaOptions(fps=fps), SETTINGS))
    assert ours.tolist() == theirs


@settings(max_examples=200, deadline=None)
@given(total=st.integers(2, 20000), data=st.data())
def test_indices_by_count_and_their_timestamps(total: int, data: st.DataObject) -> None:
    count, rate = data.draw(st.integers(2, min(total, 800))), data.draw(RATES)
    metadata = VideoMetadata(total_num_frames=total, fps=rate)
    theirs = processor().video_processor.sample_frames(metadata, num_frames=count)
    ours = spread_indices(0, total - 1, num_sampled_frames(total, rate, MediaOptions(num_frames=count), SETTINGS))
    assert ours.tolist() == theirs.tolist()
    told = patch_times([i / rate for i in ours.tolist()], 2)
    expected = processor()._calculate_timestamps(theirs.tolist(), rate, 2)
    assert [timestamp_text(t) for t in told] == [f"<{t:.1f} seconds>" for t in expected]


@settings(max_examples=400, deadline=None)
@given(
    count=st.integers(2, 800),
    height=st.integers(1, 4400),
    width=st.integers(1, 4400),
    longest=st.sampled_from([25165824, 1_000_000, 200_000, 786432]),
    shortest=st.sampled_from([4096, 131072]),
    cap=st.booleans(),
)
def test_frame_size(count: int, height: int, width: int, longest: int, shortest: int, cap: bool) -> None:
    theirs = processor().video_processor
    kwargs = {"size": {"shortest_edge": shortest, "longest_edge": longest}, "cap_pixels_per_frame": cap}
    ours = replace(SETTINGS, min_pixels=shortest)
    options = MediaOptions(total_pixels=longest, cap_frame_pixels=cap)
    try:
        patches = theirs.get_num_of_video_patches(count, height, width, kwargs)
    except ValueError:
        with pytest.raises(MediaTooLarge):
            resized_frame_size(count, height, width, ours, options)
        return
    h, w = resized_frame_size(count, height, width, ours, options)
    assert -(-count // 2) * (h // 16) * (w // 16) == patches
