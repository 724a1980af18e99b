"""prepare_video on clips whose frames carry their number: the right frames, times, sizes; and clear errors."""

from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from PIL import Image

from qwen3vl.errors import InvalidMessage, InvalidParams, MediaDecodeError, MediaNotFound, MediaTimeout, MediaTooLarge
from qwen3vl.inputs import Visual
from qwen3vl.processor.fetch import Media
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.video import prepare_video
from qwen3vl.processor.video_clip import FileClip
from qwen3vl.settings import MediaOptions
from qwen3vl.types import VideoPart
from tests.fixtures.videos import (
    TURNS,
    constant_clip,
    make_animation,
    make_audio,
    make_clip,
    numbers_in_patches,
    painted,
    patched,
    read_number,
)
from tests.oracle import ASSETS

SETTINGS = VisionSettings.from_file(ASSETS / "video_preprocessor_config.json")


def prepare(source: object, policy: MediaPolicy | None = None, **options: object) -> Visual:
    part = source if isinstance(source, VideoPart) else VideoPart(source)  # type: ignore[arg-type]
    return prepare_video(part, SETTINGS, MediaOptions(**options), policy)  # type: ignore[arg-type]


def numbers(visual: Visual) -> list[int]:
    return numbers_in_patches(visual.patches.read(), visual.grid_thw)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """60 frames, 6 s, B-frames, a keyframe every 12."""
    return constant_clip(folder / "constant.mp4", 60)


def test_the_painted_number_survives() -> None:
    assert [read_number(painted(n, 90, 70)) for n in (0, 1, 300, 65535)] == [0, 1, 300, 65535]


# ----------------------------------------------------------------------------------- which frames


def test_default_sampling_shows_the_frames_that_the_receipt_names(clip: Path) -> None:
    visual = prepare(clip)
    receipt = visual.receipt
    assert receipt.frame_indices == (0, 5, 11, 16, 21, 27, 32, 38, 43, 48, 54, 59)  # round(i * 59 / 11)
    assert numbers(visual) == list(receipt.frame_indices)
    assert receipt.frame_times == pytest.approx([i / 10 for i in receipt.frame_indices])
    assert receipt.timestamps[:2] == pytest.approx([0.25, 1.35])
    assert (receipt.original_size, receipt.resized_size, receipt.grid_thw) == ((128, 96), (128, 96), (6, 6, 8))
    assert receipt.num_tokens == 6 * 3 * 4 and receipt.duration == pytest.approx(6.0) and receipt.orientation == 0
    assert receipt.source == str(clip) and receipt.notes == ()


@pytest.mark.parametrize("wanted", [2, 3, 7, 59, 60, 100])
def test_num_frames(clip: Path, wanted: int) -> None:
    visual = prepare(clip, num_frames=wanted)
    count = min(wanted, 60)
    assert len(set(visual.receipt.frame_indices)) == count
    assert numbers(visual) == list(visual.receipt.frame_indices)
    if count % 2:
        assert visual.receipt.frame_indices[-1] == visual.receipt.frame_indices[-2]


def test_bounds_on_frames(clip: Path) -> None:
    assert len(prepare(clip, fps=0.1).receipt.frame_indices) == 4  # the checkpoint's least
    assert len(prepare(clip, fps=0.1, min_frames=10).receipt.frame_indices) == 10
    assert len(prepare(clip, fps=10, max_frames=6).receipt.frame_indices) == 6
    assert len(prepare(clip, fps=0.1, max_frames=2).receipt.frame_indices) == 2
    assert len(prepare(clip, min_frames=900).receipt.frame_indices) == 60


def test_part_of_a_video_keeps_absolute_times(clip: Path) -> None:
    receipt = prepare(clip, fps=5, video_start=2.0, video_end=3.0).receipt
    assert (receipt.frame_indices[0], receipt.frame_indices[-1]) == (20, 30)
    assert receipt.timestamps[0] == pytest.approx((receipt.frame_times[0] + receipt.frame_times[1]) / 2)
    assert receipt.frame_times[0] == pytest.approx(2.0)


def test_part_between_two_frames_shows_the_earlier(folder: Path) -> None:
    slow = make_clip(folder / "slow.mp4", [0, 4000, 8000], gop=1)
    visual = prepare(slow, video_start=5.0, video_end=6.0)
    assert numbers(visual) == [1, 1] and visual.receipt.frame_times == pytest.approx([4.0, 4.0])


def test_part_outside_the_video(clip: Path) -> None:
    with pytest.raises(InvalidParams, match=r"video_start=7.*0\.000 s to 6\.000 s"):
        prepare(clip, video_start=7.0)


def test_variable_rate_is_sampled_evenly_in_time(folder: Path) -> None:
    ticks = [*range(0, 1000, 50), *range(1000, 9001, 1000)]  # 20 frames in the first second, 9 in the other eight
    path = make_clip(folder / "variable.mp4", ticks)
    visual = prepare(path, num_frames=10)
    receipt = visual.receipt
    assert receipt.frame_times == pytest.approx([float(s) for s in range(10)])
    assert numbers(visual) == list(receipt.frame_indices) == [0, *range(20, 29)]
    by_index = prepare(path, num_frames=10, timestamps="index").receipt
    assert by_index.frame_indices == (0, 3, 6, 9, 12, 16, 19, 22, 25, 28)
    assert by_index.frame_times[-1] == pytest.approx(9.0) and by_index.timestamps[-1] != pytest.approx(8.5)


def test_long_clip_is_sought_and_yields_the_same_frames(folder: Path) -> None:
    path = constant_clip(folder / "long.mp4", 700, rate=25, gop=50)
    visual = prepare(path, num_frames=6)
    assert numbers(visual) == list(visual.receipt.frame_indices) == [0, 140, 280, 419, 559, 699]


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a.ts", "a.avi"])
def test_containers(folder: Path, name: str) -> None:
    visual = prepare(constant_clip(folder / name, 30), num_frames=8)
    assert numbers(visual) == list(visual.receipt.frame_indices)


def test_codecs_without_h264(folder: Path) -> None:
    for codec, name in (("mpeg4", "b.mp4"), ("mpeg2video", "b.mpg"), ("libvpx-vp9", "b.webm")):
        visual = prepare(constant_clip(folder / name, 30, rate=25, codec=codec, b_frames=0), num_frames=5)
        assert numbers(visual) == list(visual.receipt.frame_indices), name


def test_late_start(folder: Path) -> None:
    path = make_clip(folder / "late.mp4", range(5000, 8000, 100))
    receipt = prepare(path).receipt
    assert receipt.frame_times[0] == pytest.approx(5.0) and "5.000 s at its first frame" in receipt.notes[0]
    assert prepare(path, video_start=6.0).receipt.frame_times[0] == pytest.approx(6.0)


# ------------------------------------------------------------------------------- sizes and turning


@pytest.mark.parametrize("turn", TURNS)
def test_turns(folder: Path, turn: str) -> None:
    path = constant_clip(folder / f"{turn}.mp4", 4, turn=turn)
    stored = painted(3)
    expected = {
        "upright": stored,
        "90": np.rot90(stored, -1),
        "180": stored[::-1, ::-1],
        "270": np.rot90(stored),
        "mirrored": stored[:, ::-1],
        "upside down": stored[::-1],
        "mirrored 90": stored.transpose(1, 0, 2),
        "mirrored 270": stored[::-1, ::-1].transpose(1, 0, 2),
    }[turn]
    with FileClip(Media("x", path=path), MediaPolicy()) as opened:
        (shown,) = opened.frames([3])
    assert shown.pixels.shape == expected.shape
    assert np.abs(shown.pixels.astype(int) - expected).mean() < 8
    mirrored = "mirrored as the file asks" in shown.notes
    upright = np.rot90(stored, -shown.rotation // 90)
    assert np.array_equal(upright[:, ::-1] if mirrored else upright, expected)
    assert prepare(path).receipt.orientation == shown.rotation


def test_odd_sizes_and_single_frames(folder: Path) -> None:
    visual = prepare(constant_clip(folder / "odd.mp4", 3, size=(131, 97)))
    assert numbers(visual) == [0, 1, 2, 2] and visual.receipt.original_size == (131, 97)
    single = prepare(constant_clip(folder / "one.mp4", 1))
    assert numbers(single) == [0, 0] and single.receipt.notes == ("one frame only: shown as a video that stands still",)
    assert single.receipt.timestamps == (0.0,)


def test_pixel_bounds_reach_the_frames(folder: Path) -> None:
    path = constant_clip(folder / "big.mp4", 8, size=(640, 480))
    assert prepare(path, max_pixels=64 * 1024).receipt.resized_size == (288, 192)
    assert prepare(path, total_pixels=4 * 64 * 1024, num_frames=4).receipt.resized_size == (288, 192)
    width, height = prepare(path, min_pixels=640 * 512 + 1).receipt.resized_size
    assert width * height > 640 * 512
    with pytest.raises(InvalidParams, match=r"min_pixels=100000 for each of 4 frames makes 400000.*300000"):
        prepare(path, min_pixels=100_000, total_pixels=300_000)


def test_digest_follows_the_patches(clip: Path) -> None:
    one, again, other = prepare(clip, fps=1), prepare(clip.read_bytes(), fps=1), prepare(clip, fps=1, video_start=1.0)
    assert np.array_equal(one.patches.read(), again.patches.read()) and one.receipt.digest == again.receipt.digest
    assert again.receipt.source == "<bytes>"
    assert other.receipt.digest != one.receipt.digest


# ------------------------------------------------------------------------- animations and lists


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations(folder: Path, suffix: str) -> None:
    path = make_animation(folder / f"animated{suffix}", 9, [100, 100, 100, 100, 1000, 1000, 1000, 1000, 1000])
    receipt = prepare(path, num_frames=9).receipt
    assert receipt.frame_times[:9] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 1.4, 2.4, 3.4, 4.4])
    assert numbers(prepare(path, num_frames=9)) == [*range(9), 8]
    assert numbers(prepare(path, num_frames=3)) == list(prepare(path, num_frames=3).receipt.frame_indices)


def test_list_of_frames(folder: Path) -> None:
    paths = []
    for number in range(5):
        paths.append(folder / f"{number}.png")
        Image.fromarray(painted(number)).save(paths[-1])
    mixed = [paths[0], str(paths[1]), paths[2].read_bytes(), Image.open(paths[3]), painted(4)]
    visual = prepare(VideoPart(mixed, frame_rate=4.0))
    assert numbers(visual) == [0, 1, 2, 3, 4, 4] and visual.receipt.source == "<5 frames>"
    assert visual.receipt.timestamps == pytest.approx([0.125, 0.625, 1.0])
    timed = prepare(VideoPart(mixed, frame_times=(0.0, 1.0, 5.0, 6.0, 20.0)))
    assert timed.receipt.timestamps == pytest.approx([0.5, 5.5, 20.0])
    assumed = prepare(VideoPart(mixed)).receipt
    assert assumed.frame_times[:3] == pytest.approx([0.0, 0.5, 1.0]) and "2 frames per second" in assumed.notes[0]
    assert numbers(prepare(VideoPart(mixed, frame_rate=4.0), num_frames=3)) == [0, 2, 4, 4]


def test_long_lists_are_thinned_with_a_note() -> None:
    receipt = prepare([painted(n, 32, 32) for n in range(9)], max_frames=4).receipt
    assert receipt.frame_indices == (0, 3, 5, 8) and any("4 of 9 frames" in note for note in receipt.notes)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (VideoPart([]), "at least one"),
        (VideoPart([painted(0)], frame_times=(0.0, 1.0)), "2 frame_times for 1 frames"),
        (VideoPart("a.mp4", frame_rate=2.0), "a file has its own times"),
        (VideoPart(7), "not int"),  # type: ignore[arg-type]
    ],
)
def test_impossible_parts(part: VideoPart, message: str) -> None:
    with pytest.raises(InvalidMessage, match=message):
        prepare(part)


# -------------------------------------------------------------------------------- files that hurt


def test_what_is_no_video(folder: Path) -> None:
    with pytest.raises(MediaNotFound):
        prepare(folder / "nothing.mp4")
    (folder / "text.mp4").write_text("no video at all")
    with pytest.raises(MediaDecodeError, match=r"text\.mp4"):
        prepare(folder / "text.mp4")
    with pytest.raises(MediaDecodeError, match="only audio"):
        prepare(make_audio(folder / "sound.m4a"))
    with pytest.raises(MediaDecodeError):
        prepare(b"")


def test_playlists_are_not_followed(folder: Path, clip: Path) -> None:
    for name, text in (
        ("list.m3u8", f"#EXTM3U\n#EXTINF:6,\n{clip}\n"),
        ("list.txt", f"ffconcat version 1.0\nfile {clip}\n"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(MediaDecodeError):
            prepare(folder / name)


def test_names_that_look_like_protocols(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name in ("concat:a.mp4", "-x.mp4", "a %03d #?.mp4"):
        constant_clip(folder / "plain.mp4", 4).rename(folder / name)
        assert numbers(prepare(name)) == [0, 1, 2, 3]


def test_limits_of_the_policy(clip: Path) -> None:
    policy = MediaPolicy()
    for field, limit in (("max_frames", 59), ("max_seconds", 3.0), ("max_pixels", 9000)):
        with pytest.raises(MediaTooLarge, match=f"limit of {limit:.0f} .*{field}"):
            prepare(clip, replace(policy, **{field: limit}))  # type: ignore[arg-type]
    with pytest.raises(MediaTimeout, match="decode_timeout"):
        prepare(clip, replace(policy, decode_timeout=1e-9))


def test_a_broken_tail_is_told(folder: Path) -> None:
    path = constant_clip(folder / "tail.mkv", 60, gop=12)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    visual = prepare(path, fps=10)
    count = len(visual.receipt.frame_indices)
    assert 20 < count < 60 and numbers(visual) == list(visual.receipt.frame_indices)


def test_damage_in_the_middle_loses_frames_and_says_so(folder: Path) -> None:
    path = constant_clip(folder / "damaged.mp4", 24, gop=1, b_frames=0)
    with_holes = bytearray(path.read_bytes())
    start = with_holes.index(b"mdat") + 4
    end = start + int.from_bytes(with_holes[start - 8 : start - 4], "big") - 8
    middle, width = (start + end) // 2, (end - start) // 4
    with_holes[middle : middle + width] = bytes(width)
    visual = prepare(bytes(with_holes), num_frames=24)
    kept = visual.receipt.frame_indices
    assert numbers(visual) == list(kept) and 10 < len(set(kept)) < 24
    assert any("frames could not be decoded" in note for note in visual.receipt.notes)


def test_wrong_keyframes_do_not_spoil_frames(folder: Path) -> None:
    path = constant_clip(folder / "keys.mp4", 90, gop=45)
    data = patched(path.read_bytes(), b"stss", 12, 31)  # seeking lands there; the keyframe is the 46th
    for wanted in ({"num_frames": 5}, {"video_start": 3.5, "video_end": 4.2}, {"video_start": 8.5}):
        visual = prepare(data, **wanted)
        assert numbers(visual) == list(visual.receipt.frame_indices)
        assert np.array_equal(visual.patches.read(), prepare(path, **wanted).patches.read())


def test_headers_that_claim_a_billion_frames(clip: Path) -> None:
    data, billion = clip.read_bytes(), 10**9
    with pytest.raises(MediaTooLarge, match="1000000000 frames"):
        prepare(patched(data, b"stts", 8, billion, 1024))
    with pytest.raises(MediaDecodeError):
        prepare(patched(data, b"stsz", 4, 0, billion))
    lying = prepare(patched(patched(data, b"mvhd", 16, 2**31), b"mdhd", 16, 2**31))
    assert lying.receipt.duration == pytest.approx(6.0)


def test_frames_do_not_pile_up(clip: Path) -> None:
    def held() -> int:
        return sum(isinstance(thing, VideoFrame) for thing in gc.get_objects())

    gc.collect()
    before = held()
    gc.disable()
    try:
        with FileClip(Media("x", path=clip), MediaPolicy()) as opened:
            most = max(held() - before for _ in opened.frames(range(60)))
    finally:
        gc.enable()
    assert most <= 8


def test_isolated_decoding_gives_the_same(folder: Path) -> None:
    policy = replace(MediaPolicy(), isolate=True)
    odd = constant_clip(folder / "isolated.mp4", 5, size=(131, 97))
    here, there = prepare(odd), prepare(odd, policy)
    assert np.array_equal(here.patches.read(), there.patches.read()) and here.receipt == there.receipt
    with pytest.raises(MediaDecodeError, match="not a video"):
        prepare(b"rubbish", policy)


def test_time_base_of_frames(folder: Path) -> None:
    ntsc = make_clip(folder / "ntsc.mp4", [k * 1001 for k in range(31)], time_base=Fraction(1, 30000), rate=30)
    receipt = prepare(ntsc, num_frames=31).receipt
    assert receipt.frame_times[30] == pytest.approx(30 * 1001 / 30000, abs=1e-9)
