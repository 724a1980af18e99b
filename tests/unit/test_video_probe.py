"""Headers of videos: what they claim, the limits, and the foretold number of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qwen3vl.errors import InvalidParams, MediaDecodeError, MediaTooLarge
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video import prepare_video
from qwen3vl.processor.video_probe import VideoHeader, check_video, count_video_tokens, probe_video
from qwen3vl.settings import MediaOptions
from qwen3vl.types import VideoPart
from tests.fixtures.videos import constant_clip
from tests.oracle import ASSETS

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")
HEADER = VideoHeader("clip", (1920, 1080), 30.0, 10.0, 300, "h264")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif"])
@pytest.mark.parametrize("isolate", [False, True])
def test_header(tmp_path: Path, name: str, isolate: bool) -> None:
    codec = "gif" if name.endswith("gif") else "libx264"
    header = probe_video(constant_clip(tmp_path / name, 30, codec=codec), replace(MediaPolicy(), isolate=isolate))
    assert header.size == (128, 96) and header.num_frames == 30 and header.duration == pytest.approx(3.0, abs=0.11)


@pytest.mark.parametrize(
    "options",
    [MediaOptions(), MediaOptions(fps=5), MediaOptions(num_frames=7), MediaOptions(video_start=1, video_end=2.95)],
)
def test_tokens_are_foretold(tmp_path: Path, options: MediaOptions) -> None:
    path = constant_clip(tmp_path / "a.mp4", 60, size=(320, 180), turn="90")
    header = probe_video(path, MediaPolicy())
    receipt = prepare_video(VideoPart(path), SETTINGS, options).receipt
    assert count_video_tokens(header, SETTINGS, options) == receipt.num_tokens


def test_limits() -> None:
    policy = MediaPolicy()
    check_video(HEADER, policy)
    for change, text in (
        ({"num_frames": 10**9}, "1000000000 frames"),
        ({"duration": 1e7}, "10000000 seconds"),
        ({"size": (40000, 40000)}, "1600000000 pixels"),
        ({"size": (10000, 40)}, "200 times"),
    ):
        with pytest.raises(MediaTooLarge, match=text):
            check_video(replace(HEADER, **change), policy)  # type: ignore[arg-type]
    with pytest.raises(MediaDecodeError, match="0x0"):
        check_video(replace(HEADER, size=(0, 0)), policy)
    with pytest.raises(InvalidParams, match="cannot be foretold"):
        count_video_tokens(replace(HEADER, num_frames=None), SETTINGS)
