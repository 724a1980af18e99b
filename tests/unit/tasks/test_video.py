"""Moments checked against the video's length, subtitles, and objects over time."""

from __future__ import annotations

import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.parsing_time import Event
from qwen3vl.tasks.subtitles import to_srt, to_vtt
from qwen3vl.tasks.video import SeenBox, locate_in_video, summarize, watch
from qwen3vl.types import ImagePart, MediaReceipt, TextPart, VideoPart
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer, recorded


def receipt(duration: float) -> MediaReceipt:
    return MediaReceipt("video", "v", "", (640, 360), (640, 352), (4, 22, 40), 880, 0, duration=duration)


def test_the_recorded_events() -> None:
    model = FakeGenerator(answer("video_13_dense_events"), receipts=[receipt(200.5)])
    seen = watch(model, "cooking.mp4")
    assert model.prompt == recorded("video_13_dense_events")["prompt"] and isinstance(model.parts[0], VideoPart)
    assert len(seen.moments) == 9 and seen.duration == 200.5 and not seen.notes
    assert seen.moments[3] == Event(100, 122, "add oil chopped onions carrots and squash to a pot and stir.")


def test_moments_are_checked_against_the_length() -> None:
    reply = '{"00:50.00 - 01:20.00": "late", "00:10.00 - 00:05.00": "swapped", "05:00 - 06:00": "never"}'
    model = FakeGenerator(reply, receipts=[receipt(60)])
    seen = watch(model, b"video", "when?")
    assert seen.moments == (Event(5, 10, "swapped"), Event(50, 60, "late"))
    assert len(seen.notes) == 3 and "when?" in model.prompt
    unknown = watch(FakeGenerator(reply), "v.mp4", "when?")
    assert len(unknown.moments) == 3 and unknown.duration is None and "not known" in unknown.notes[-1]
    assert watch(FakeGenerator(reply), "v.mp4", "when?", duration=60).moments == seen.moments
    assert watch(FakeGenerator("[]"), "v.mp4", "when?").moments == ()
    with pytest.raises(ParseError):
        watch(FakeGenerator("It does not fall."), "v.mp4", "when?")


def test_summary() -> None:
    seen = summarize(FakeGenerator(answer("video_15_framelist")), ["a.png", "b.png"])
    assert seen.text == answer("video_15_framelist") and seen.moments == ()


def test_subtitles() -> None:
    events = [Event(3723.5, 3724, "a <b> & c"), Event(5, 5, "one\n\n--> two"), Event(59.9996, 61, "")]
    assert to_srt(events) == (
        "1\n01:02:03,500 --> 01:02:04,000\na <b> & c\n\n2\n00:00:05,000 --> 00:00:05,500\none\n-> two\n\n"
        "3\n00:01:00,000 --> 00:01:01,000\n...\n\n"
    )
    assert to_vtt(events[:1]) == "WEBVTT\n\n01:02:03.500 --> 01:02:04.000\na &lt;b&gt; &amp; c\n\n"


def test_objects_over_time() -> None:
    frames = [Image.new("RGB", (200, 100))] * 3
    reply = (
        '```json\n[{"time": 1.0, "bbox_2d": [0, 0, 500, 500], "label": "dog"},'
        '{"time": "11.0", "bbox_2d": [0, 0, 1000, 1000], "label": "dog"},'
        '{"time": 5.0, "bbox_2d": [1, 2, 3, 4], "label": "dog"}, {"bbox_2d": [9, 9, 10, 10], "label": "cat"}]\n```'
    )
    model = FakeGenerator(reply)
    found = locate_in_video(model, frames, [0.0, 1.04, 11.0], "the dog")
    assert found.boxes == (SeenBox(1.04, 1, "dog", Box(0, 0, 100, 50)), SeenBox(11.0, 2, "dog", Box(0, 0, 200, 100)))
    assert len(found.notes) == 2 and "no frame stands at 5 s" in found.notes[0] and "'cat'" in found.notes[1]
    assert [type(p) for p in model.parts] == [TextPart, ImagePart] * 3 + [TextPart]
    assert model.parts[2] == TextPart("<1.0 seconds>") and 'query "the dog"' in model.prompt
    with pytest.raises(InvalidParams, match="1 times for 3 frames"):
        locate_in_video(model, frames, [0.0], "x")
