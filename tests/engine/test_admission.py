"""Requests that can never fit are refused from headers, with numbers that are right and options that help."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.admission import check
from qwen3vl.engine.memory import kv_bytes_per_token, parse_bytes
from qwen3vl.engine.needs import Capacity, Needs, measure
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.errors import ContextTooLong, InvalidRequest, MediaTooLarge
from qwen3vl.model.editions import edition
from qwen3vl.processor.processor import Processor
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import ImagePart, Message, Part, TextPart, VideoPart
from tests.fixtures.conversations import picture
from tests.oracle import ASSETS

HUGE = 2**60
ROOMY = Capacity(2**40, None, 2**40, 1000, HUGE, 2**40)


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.from_folder(ASSETS)


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return edition("4b")


def photo(width: int, height: int, media: MediaOptions | None = None) -> ImagePart:
    return ImagePart(picture(width, height), media)


def video(count: int, side: int = 128, media: MediaOptions | None = None) -> VideoPart:
    return VideoPart(tuple(np.zeros((side, side, 3), np.uint8) for _ in range(count)), media, frame_rate=2.0)


REQUESTS: dict[str, tuple[Part, ...]] = {
    "text": (TextPart("word " * 300),),
    "a picture": (photo(1024, 640),),
    "many pictures": tuple(photo(200 + 64 * i, 300) for i in range(12)),
    "a video": (video(9),),
    "many videos": tuple(video(6 + 3 * i, 96 + 32 * i) for i in range(4)),
    "all": (TextPart("a " * 50), photo(640, 640), video(8), photo(256, 128), video(5, 192)),
}


def ask(processor: Processor, config: ModelConfig, parts: tuple[Part, ...], max_tokens: int | None = 10) -> Any:
    """-> options -> Needs, of one question."""
    message = [Message("user", (*parts, TextPart("What is this?")))]
    params = SamplingParams(max_tokens=max_tokens)
    return lambda media: measure(processor, config, message, params, media=media)


@pytest.mark.parametrize("name", REQUESTS)
def test_needs_are_what_the_processor_then_makes(name: str, processor: Processor, config: ModelConfig) -> None:
    message = [Message("user", REQUESTS[name])]
    needs = measure(processor, config, message, SamplingParams(max_tokens=7))
    inputs = processor(message)
    assert needs.prompt_tokens == inputs.num_tokens and needs.num_tokens == inputs.num_tokens + 7
    assert needs.next_position == Prompt.of(inputs, config).next_position
    assert needs.pictures == tuple(r.num_tokens for r in inputs.receipts if r.kind == "image")
    assert needs.videos == tuple(r.num_tokens for r in inputs.receipts if r.kind == "video")
    assert needs.num_frames == tuple(2 * r.grid_thw[0] for r in inputs.receipts if r.kind == "video")
    per_token = 4 * 1536 + 4 * 2560 * 4  # four patches of 8-bit values; main features and three of DeepStack's
    assert needs.media_bytes == needs.visual_tokens * per_token


def test_an_answer_without_a_bound_needs_one_token(processor: Processor, config: ModelConfig) -> None:
    needs = ask(processor, config, (TextPart("a"),), None)(None)
    assert needs.answer_tokens is None and needs.num_tokens == needs.prompt_tokens + 1
    exact = replace(ROOMY, context_tokens=needs.num_tokens)
    check(needs, exact)
    assert exact.room(needs) == 1 and replace(exact, cache_tokens=9).room(needs) < 0
    with pytest.raises(ContextTooLong, match="room for 1: together"):
        check(needs, replace(exact, context_tokens=needs.prompt_tokens))


def options_in(message: str) -> list[str]:
    return message.partition("; it would fit with ")[2].split(" or ")


def media_options(option: str) -> MediaOptions:
    return MediaOptions(**{name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", option)})  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "text"])
def test_options_that_are_named_make_it_fit(name: str, share: float, processor: Processor, config: ModelConfig) -> None:
    """They are read out of the message, as a person would, and the whole request is made with them."""
    small = MediaOptions(min_pixels=1024)
    measured = ask(processor, config, REQUESTS[name])
    needs = measured(small)
    room = int(needs.visual_tokens * share)
    tight = replace(ROOMY, context_tokens=needs.num_tokens - needs.visual_tokens + room)
    with pytest.raises(ContextTooLong, match=rf"\({needs.visual_tokens} of them for") as caught:
        check(needs, tight, measured, small)
    named = [option for option in options_in(str(caught.value)) if "pixels" in option or "frames" in option]
    if not named:
        assert name != "a picture" and share == 0.2, str(caught.value)
    inputs = []
    for option in named:
        media = small.merged_with(media_options(option))
        inputs.append(processor([Message("user", (*REQUESTS[name], TextPart("What is this?")))], media=media))
    assert all(each.num_tokens + 10 <= tight.context_tokens for each in inputs)
    if share == 0.5 and "picture" in name:  # not just any smaller size: most of the room is used
        assert inputs[0].num_tokens + 10 > 0.8 * tight.context_tokens


def test_worked_example() -> None:
    """The numbers at the top of admission.py."""
    needs = Needs(48 + 2700, 500, 200, (300, 900, 1500), pixels_per_token=1024)
    asked = []

    def remeasure(media: MediaOptions) -> Needs:
        asked.append(media.max_pixels)
        return Needs(48 + 1800, 500, 200, (300, 750, 750), pixels_per_token=1024)

    with pytest.raises(ContextTooLong) as caught:
        check(needs, replace(ROOMY, context_tokens=2048, native_context=2048), remeasure)
    assert asked == [750 * 1024]
    assert str(caught.value) == (
        "the prompt has 2748 tokens (2700 of them for 3 pictures) and the answer needs room for 200: "
        "together 2948, but the context holds 2048; it would fit with max_pixels=768000"
    )


def test_an_option_that_would_not_help_is_not_named(processor: Processor, config: ModelConfig) -> None:
    """The picture has settings of its own, which win over the request's."""
    own = MediaOptions(max_pixels=1024 * 1024)
    measured = ask(processor, config, (photo(900, 900, own),))
    tight = replace(ROOMY, context_tokens=300, native_context=300)
    with pytest.raises(ContextTooLong, match=r"holds 300; fewer pictures or videos need less$"):
        check(measured(None), tight, measured)
    with pytest.raises(InvalidRequest, match=r"fewer pictures or videos need less$"):  # min_pixels stands against it
        check(measured(None), tight, measured, MediaOptions(min_pixels=800 * 1024))


def test_context_cache_and_positions() -> None:
    needs = Needs(100, 60, 50)
    cases: list[tuple[dict[str, Any], str, list[str]]] = [
        (dict(context_tokens=149), "together 150, but the context holds 149", ["max_tokens=49", "max_context=150"]),
        (dict(context_tokens=149, native_context=149), "the context holds 149", ["max_tokens=49"]),
        (dict(context_tokens=80, native_context=149), "the context holds 80", [""]),
        (
            dict(cache_tokens=128, bytes_per_token=16384, int8_cache_tokens=160),
            "together 150, but the key/value cache of 2.0 MiB holds 128",
            ["max_tokens=28", "kv_memory=3MiB", "kv_dtype=int8"],
        ),
        (dict(cache_tokens=128, int8_cache_tokens=149), "holds 128", ["max_tokens=28", "kv_memory=1MiB"]),
        (
            dict(positions=109, context_tokens=150),
            "reach position 110, but the rotary embedding is made for 109",
            ["max_tokens=49", "max_context=150 (stated, it lifts the bound on positions)"],
        ),
    ]
    for changes, message, options in cases:
        with pytest.raises(ContextTooLong, match=re.escape(message)) as caught:
            check(needs, replace(ROOMY, **changes))
        assert options_in(str(caught.value)) == options, changes
    check(needs, replace(ROOMY, context_tokens=150, cache_tokens=150, positions=110))


def test_the_memory_that_is_named_holds_it(config: ModelConfig) -> None:
    settings = EngineSettings(max_context=1_000_000)
    capacity = Capacity.of(config, settings, torch.bfloat16, cache_tokens=16_000, media_bytes=HUGE)
    assert capacity.bytes_per_token == 147_456 and capacity.positions is None
    assert capacity.int8_cache_tokens == 16_000 * 147_456 // 76_032
    with pytest.raises(ContextTooLong, match=r"key/value cache of 2\.2 GiB holds 16000") as caught:
        check(Needs(20_000, 20_000, 1000), capacity)
    memory = next(o for o in options_in(str(caught.value)) if o.startswith("kv_memory=")).partition("=")[2]
    per_block = kv_bytes_per_token(config.text, torch.bfloat16) * 16
    assert 21_000 <= parse_bytes(memory) // per_block * 16 <= 21_100
    assert "kv_dtype=int8" in str(caught.value)
    int8 = Capacity.of(config, replace(settings, kv_dtype="int8"), torch.bfloat16, 16_000, HUGE)
    assert int8.int8_cache_tokens is None and int8.bytes_per_token == 76_032
    native = Capacity.of(config, EngineSettings(), torch.bfloat16, 16_000, HUGE)
    assert native.positions == native.context_tokens == 262_144


def test_memory_of_pictures_and_videos(processor: Processor, config: ModelConfig) -> None:
    measured = partial(ask(processor, config, (photo(900, 600), video(6))))
    small = MediaOptions(min_pixels=1024)
    needs = measured(small)
    tight = replace(ROOMY, media_bytes=needs.media_bytes // 2)
    message = r"1 picture and 1 video take 2\d\.\d MiB of memory before they are read, but there are 1\d\.\d MiB"
    with pytest.raises(MediaTooLarge, match=message) as caught:
        check(needs, tight, measured, small)
    (option,) = options_in(str(caught.value))
    assert measured(small.merged_with(media_options(option))).media_bytes <= tight.media_bytes
    check(needs, replace(ROOMY, media_bytes=needs.media_bytes))


def test_the_example_of_the_docs(processor: Processor, config: ModelConfig) -> None:
    """32 frames of 512 x 512, an answer of 200 tokens, a context of 2048."""
    measured = ask(processor, config, (video(32, 512),), 200)
    with pytest.raises(ContextTooLong) as caught:
        check(measured(None), replace(ROOMY, context_tokens=2048), measured)
    page = " ".join((Path(__file__).parents[2] / "docs" / "engine.md").read_text(encoding="utf-8").split())
    assert f"ContextTooLong: {caught.value}" in page
