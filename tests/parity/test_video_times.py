"""Times of frames are ffprobe's, and the frames at those times are those of plain sequential decoding."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from qwen3vl.errors import MediaError
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video import prepare_video
from qwen3vl.processor.video_clip import FileClip
from qwen3vl.settings import MediaOptions
from qwen3vl.types import VideoPart
from tests.oracle import ASSETS

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")
SMALL = MediaOptions(max_pixels=64 * 1024, max_frames=24)
TINY = MediaOptions(max_pixels=16 * 1024, num_frames=4)
VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg"}

TIMED = (  # edit lists, late starts, variable rates, rotations, fragments, B-frames, many containers
    "androidx/dolbyVision-hdr.MOV",
    "androidx/fragmented_captions_h265.mp4",
    "androidx/sample-unflagged-audio-keyframes.avi",
    "androidx/sample.mkv",
    "androidx/sample_edit_list_only_preroll_sync_sample.mp4",
    "androidx/sample_empty_track.mp4",
    "androidx/sample_fragmented_unsupported_brands.mp4",
    "androidx/sample_rotate_and_reflect.mp4",
    "androidx/sample_sef_slow_motion.mp4",
    "androidx/sample_with_chapters.mp4",
    "androidx/sample_with_null_terminated_ssa_subtitles.mkv",
    "androidx/sample_with_pgs_subtitles.mkv",
    "decord/tests/test_data/unordered.mov",
    "decord/tests/test_data/video_90.mov",
    "moviepy/big_buck_bunny_432_433.webm",
    "moviepy/fire2.mp4",
    "moviepy/no_duration.webm",
    "qwen_demo/videos/v_rBMQFpHspmo.mp4",
    "torchcodec/animated.gif",
    "torchcodec/discard_first_keyframe.mp4",
    "torchcodec/nasa_13013.mp4",
    "torchcodec/test_non_zero_start.mp4",
    "torchcodec/testsrc2_vp9.webm",
)
SOUGHT = (  # several keyframes, wrong keyframes, edit lists, decoders that count or delay in their own ways
    "torchcodec/nasa_13013.mp4",
    "androidx/sample_without_stss.mp4",
    "torchcodec/h265_video.mp4",
    "torchcodec/av1_video.mkv",
    "torchcodec/discard_first_keyframe.mp4",
    "decord/examples/flipping_a_pancake.mkv",
    "torchcodec/testsrc2_mpeg4.avi",
    "torchcodec/sine_stereo_mp2.mpg",
    "androidx/sample-with-large-length.avi",
    pytest.param("androidx/sample_vvc.mp4", marks=pytest.mark.slow),
)
ODD = {  # file -> its answer's tokens, or what its error says
    "decord/tests/test_data/corrupted.mp4": 30,
    "androidx/sample_malformed_free_box.mp4": "not a video that can be read",
    "androidx/subsample_encrypted_altref.webm": "could be decoded",
    "androidx/long_edit_list_audioonly.mp4": "only audio",
    "androidx/bbb_1ch_48kHz_q10_opus.webm": "only audio",
    "moviepy/bitmap.mp4": 2,
    "torchcodec/frame_exceeds_screen.gif": 4,
    "torchcodec/transparent.gif": 4,
    "torchcodec/rgba.webp": 15,
    "torchcodec/sigsegv.png": "claims a size of 0x0",
    "torchcodec/heapbof.png": "not a video that can be read",
}


def ffprobe_times(path: Path) -> list[str]:
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed: run scripts/system_packages.sh")
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]
    done = subprocess.run([*command, "-of", "json", str(path)], capture_output=True, text=True, check=False)
    return [frame["best_effort_timestamp_time"] for frame in json.loads(done.stdout)["frames"]]


@pytest.mark.parametrize("name", TIMED)
def test_times_are_ffprobes(media: Path, name: str) -> None:
    path = media / "videos" / name
    theirs = ffprobe_times(path)
    receipt = prepare_video(VideoPart(path), SETTINGS, SMALL).receipt
    assert len(receipt.frame_times) >= 2
    for index, seconds in zip(receipt.frame_indices, receipt.frame_times, strict=True):
        assert f"{seconds:.6f}" == theirs[index]


@pytest.mark.parametrize(("name", "stream"), [("nasa_13013_rotated", 0), ("test_non_zero_start", 0), ("nasa_13013", 0)])
def test_times_are_the_recorded_ones(media: Path, name: str, stream: int) -> None:
    folder = media / "videos/torchcodec"
    recorded = json.loads((folder / f"{name}.mp4.stream{stream}.all_frames_info.json").read_text())
    receipt = prepare_video(VideoPart(folder / f"{name}.mp4"), SETTINGS, SMALL).receipt
    times = [float(recorded[index]["pts_time"]) for index in receipt.frame_indices]
    assert receipt.frame_times == pytest.approx(times, abs=2e-6)
    if name == "test_non_zero_start":
        assert receipt.frame_times[0] == pytest.approx(8.333, abs=1e-3) and "8.333 s" in receipt.notes[0]


@pytest.mark.parametrize("name", SOUGHT)
def test_seeking_finds_the_frames_of_sequential_decoding(media: Path, name: str) -> None:
    path = media / "videos" / name
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for wanted in ([len(expected) - 1], [1, len(expected) // 2, len(expected) - 2], range(0, len(expected), 9)):
        with FileClip(Media(name, path=path), MediaPolicy()) as clip:
            assert len(clip.times_N) == len(expected)
            shown = list(clip.frames(list(wanted)))
        assert [frame.number for frame in shown] == list(wanted)
        assert all(np.array_equal(frame.pixels, expected[frame.number]) for frame in shown)


@pytest.mark.parametrize("name", ODD)
def test_odd_files(media: Path, name: str) -> None:
    path, expected = media / "videos" / name, ODD[name]
    if isinstance(expected, int):
        assert prepare_video(VideoPart(path), SETTINGS, TINY).receipt.num_tokens == expected
    else:
        with pytest.raises(MediaError, match=expected) as caught:
            prepare_video(VideoPart(path), SETTINGS, TINY)
        assert str(path) in str(caught.value)


@pytest.mark.slow
def test_every_file_gives_an_answer_or_an_error(media: Path) -> None:
    files = sorted(path for path in (media / "videos").rglob("*") if path.suffix.lower() in VIDEOS)
    answered = 0
    for path in files:
        try:
            prepare_video(VideoPart(path), SETTINGS, TINY)
        except MediaError:
            continue
        answered += 1
    assert len(files) > 100 and answered > 80
