"""Patches and grids of videos are transformers', bit for bit, on identical frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qwen3vl.inputs import Visual
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video import prepare_video
from qwen3vl.processor.video_clip import FileClip
from qwen3vl.processor.video_sampling import timestamp_text
from qwen3vl.settings import MediaOptions
from qwen3vl.types import VideoPart
from tests.fixtures.videos import constant_clip
from tests.oracle import ASSETS, import_torchvision, processor

import_torchvision()
from transformers.video_utils import VideoMetadata  # noqa: E402  (needs the line above)

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")


def transformers_on(frames_FHWC: np.ndarray, rate: float, **kwargs: object) -> tuple[np.ndarray, list[int], list[str]]:
    """Patches, grid and timestamps that transformers makes of all frames of a file and its options."""
    theirs = processor().video_processor
    metadata = VideoMetadata(total_num_frames=len(frames_FHWC), fps=rate)
    video = torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)
    out = theirs(videos=[video], video_metadata=[metadata], return_metadata=True, return_tensors="pt", **kwargs)
    told = out["video_metadata"][0]
    times = processor()._calculate_timestamps(list(told.frames_indices), told.fps, 2)
    return out["pixel_values_videos"].numpy(), out["video_grid_thw"][0].tolist(), [f"<{t:.1f} seconds>" for t in times]


def decode_all(path: Path) -> tuple[np.ndarray, float]:
    with FileClip(Media(str(path), path=path), MediaPolicy()) as clip:
        frames = [frame.pixels for frame in clip.frames(range(len(clip.times_N)))]
        assert clip.average_rate is not None
        return np.stack(frames), clip.average_rate


def assert_equal(visual: Visual, theirs: tuple[np.ndarray, list[int], list[str]]) -> None:
    patches, grid, stamps = theirs
    assert list(visual.grid_thw) == grid
    assert [timestamp_text(t) for t in visual.receipt.timestamps] == stamps
    assert np.array_equal(visual.patches.read(), patches)


@pytest.mark.parametrize(
    ("size", "count", "ours", "theirs"),
    [
        ((320, 180), 40, {}, {}),
        ((131, 97), 5, {}, {}),
        ((128, 96), 31, {"fps": 3.0}, {"fps": 3.0}),
        ((640, 360), 12, {"num_frames": 7}, {"num_frames": 7, "fps": None}),
        ((200, 300), 20, {"cap_frame_pixels": True, "total_pixels": 400_000}, {"cap_pixels_per_frame": True}),
        ((640, 480), 9, {"total_pixels": 300_000}, {}),
        ((40, 30), 4, {}, {}),
    ],
)
def test_made_clips(tmp_path: Path, size: tuple[int, int], count: int, ours: dict, theirs: dict) -> None:
    path = constant_clip(tmp_path / "clip.mp4", count, size=size, gop=5)
    frames, rate = decode_all(path)
    if "total_pixels" in ours:
        theirs = {**theirs, "size": {"shortest_edge": 4096, "longest_edge": ours["total_pixels"]}}
    visual = prepare_video(VideoPart(path), SETTINGS, MediaOptions(timestamps="index", **ours))
    assert_equal(visual, transformers_on(frames, rate, **theirs))


@pytest.mark.parametrize(
    "name",
    [
        "torchcodec/nasa_13013.mp4",
        "torchcodec/testsrc2_odd_height_and_width_444_10bit.mp4",
        "torchcodec/bt2020_10bit.mp4",
        "torchcodec/animated.gif",
        "decord/tests/test_data/video_270.mov",
        "androidx/sample_edit_list_only_preroll_sync_sample.mp4",
        "moviepy/bitmap.mp4",
    ],
)
def test_real_files(media: Path, name: str) -> None:
    path = media / "videos" / name
    frames, rate = decode_all(path)
    visual = prepare_video(VideoPart(path), SETTINGS, MediaOptions(timestamps="index"))
    assert_equal(visual, transformers_on(frames, rate))
