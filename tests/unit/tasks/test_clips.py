"""Frames, clips, contact sheets and overlays of a small video made here."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams, MediaDecodeError, MediaNotFound
from qwen3vl.tasks.clips import contact_sheet, cut_clip, frames_of, overlay_video, sample_frames
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.draw import PALETTE
from qwen3vl.tasks.parsing_time import Event
from qwen3vl.tasks.video import SeenBox, VideoGrounding


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 seconds at 10 frames a second, 96 x 64; the frame at t is grey of 40 + 50 * t."""
    path = tmp_path_factory.mktemp("video") / "steps.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 2_000_000
        for number in range(40):
            grey = 40 + 5 * number
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (96, 64), (grey, grey, grey)))))
        container.mux(stream.encode(None))
    return path


def second_of(picture: Image.Image) -> float:
    return (picture.convert("L").getpixel((48, 32)) - 40) / 50


def test_frames_have_their_times(video: Path) -> None:
    times = [t for t, _ in frames_of(video)]
    assert times == pytest.approx([n / 10 for n in range(40)])
    for time, picture in frames_of(video, 1.25, 2.0):
        assert 1.25 <= time < 2 and second_of(picture) == pytest.approx(time, abs=0.11)
    pictures, times = sample_frames(video, fps=2)
    assert times == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]) and len(pictures) == 8
    with pytest.raises(InvalidParams, match="max_frames=3"):
        sample_frames(video, fps=2, max_frames=3)


def test_a_clip_is_cut_exactly(video: Path, tmp_path: Path) -> None:
    cut_clip(video, 1.0, 2.5, tmp_path / "clip.mp4")
    frames = list(frames_of(tmp_path / "clip.mp4"))
    assert [t for t, _ in frames] == pytest.approx([n / 10 for n in range(15)], abs=0.001)
    assert second_of(frames[0][1]) == pytest.approx(1.0, abs=0.11)
    assert second_of(frames[-1][1]) == pytest.approx(2.4, abs=0.11)
    with pytest.raises(InvalidParams):
        cut_clip(video, 2, 2, tmp_path / "x.mp4")
    with pytest.raises(InvalidParams, match="no frame"):
        cut_clip(video, 50, 60, tmp_path / "x.mp4")


def test_contact_sheet(video: Path) -> None:
    moments = [Event(0, 1, "first"), Event(1, 2, "second"), Event(3.9, 4.0, "at the very end " * 9)]
    sheet = contact_sheet(video, moments, columns=2, width=200)
    assert sheet.width == 400 and sheet.height > 2 * 133
    assert (sheet.getpixel((100, 60))[0] - 40) / 50 == pytest.approx(0.5, abs=0.11)
    assert (sheet.getpixel((300, 60))[0] - 40) / 50 == pytest.approx(1.5, abs=0.11)


def test_overlay(video: Path, tmp_path: Path) -> None:
    boxes = (SeenBox(1.0, 1, "dog", Box(20, 10, 70, 50)),)
    found = VideoGrounding(boxes, (0.0, 1.0, 2.0), (96, 64), "", (), True)
    overlay_video(video, found, tmp_path / "out.mp4")
    frames = {round(t, 1): f for t, f in frames_of(tmp_path / "out.mp4")}
    assert len(frames) == 40
    inside = frames[1.5].getpixel((21, 30))
    assert abs(inside[0] - PALETTE[0][0]) < 60 and inside[2] < 90
    assert abs(frames[0.5].getpixel((21, 30))[0] - frames[0.5].getpixel((21, 30))[2]) < 12


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaDecodeError, match=r"x\.mp4"):
        list(frames_of(tmp_path / "x.mp4"))
    with pytest.raises(MediaNotFound, match="nowhere"):
        list(frames_of("nowhere.mp4"))
