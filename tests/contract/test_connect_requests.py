"""What `connect` puts on the wire: whole request bodies, dialect by dialect, and what is refused instead."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import qwen3vl
from qwen3vl.errors import (
    InvalidMessage,
    InvalidParams,
    MediaDecodeError,
    MediaForbidden,
    MediaNotFound,
    UnsupportedOption,
)
from qwen3vl.remote.dialects import DIALECTS
from qwen3vl.remote.transport import normal_base_url
from qwen3vl.types import (
    ImagePart,
    MediaOptions,
    Message,
    SamplingParams,
    TextPart,
    ToolCall,
    VideoPart,
)
from tests.fixtures.openai_server import OpenAIServer, Reply, Seen, completion, models, reply_json
from tests.fixtures.videos import constant_clip, make_animation, make_clip, painted, read_number

TOOL = {"type": "function", "function": {"name": "zoom", "parameters": {"type": "object"}}}
VL = SamplingParams.preset("vl")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[OpenAIServer]:
    """Answers as many times as it is asked; shared by this file, since starting one takes longer than most tests."""
    global SERVER
    with OpenAIServer(_reply) as SERVER:
        yield SERVER


SERVER: OpenAIServer


def _reply(seen: Seen) -> Reply:
    each = [
        {"index": i, "message": {"content": "hello"}, "finish_reason": "stop"} for i in range(seen.body.get("n", 1))
    ]
    return reply_json({"choices": each})


def sent(
    messages: Any,
    params: SamplingParams | None = None,
    *,
    dialect: str = "openai",
    media: MediaOptions | None = None,
    tools: Any = None,
    tool_choice: Any = None,
    **connection: Any,
) -> tuple[dict[str, Any], qwen3vl.Completion]:
    """The body of one request, and its answer."""
    with qwen3vl.connect(SERVER.url, "m", dialect=dialect, **connection) as model:  # type: ignore[arg-type]
        answer = model.generate(messages, params, media=media, tools=tools, tool_choice=tool_choice)
    return SERVER.body, answer


def refused(*args: Any, match: str, error: type[Exception] = UnsupportedOption, **options: Any) -> None:
    """Nothing reaches the server, neither by `generate` nor by `stream`."""
    dialect, before = options.pop("dialect", "openai"), len(SERVER.requests)
    connection = {name: options.pop(name) for name in ("send_urls", "videos", "extra_body") if name in options}
    with qwen3vl.connect(SERVER.url, "m", dialect=dialect, **connection) as model:
        with pytest.raises(error, match=match):
            model.generate(*args, **options)
        with pytest.raises(error, match=match):
            model.stream(*args, **options)
    assert len(SERVER.requests) == before


def user(*parts: Any) -> list[Message]:
    return [Message("user", parts)]


def decoded(url: str) -> tuple[str, bytes]:
    head, data = url.split(",", 1)
    return head, base64.b64decode(data)


def pixels_of(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(decoded(url)[1])))


def picture_file(path: Path, size: tuple[int, int] = (300, 320), mode: str = "RGB", **options: Any) -> Path:
    generator = np.random.default_rng(0)
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    Image.fromarray(generator.integers(0, 256, shape, np.uint8), mode).save(path, **options)
    return path


# ------------------------------------------------------------------------------------------- text


def test_the_least_request() -> None:
    body, answer = sent("hi")
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert answer.text == "hello"


FULL = SamplingParams(
    temperature=0.5, top_p=0.9, presence_penalty=1.0, frequency_penalty=0.25, seed=3, max_tokens=9, stop=("a", "b"),
    n=2, logprobs=True, logit_bias={5: -1.0}, json_schema={"type": "object"},
)  # fmt: skip
FULL_BODY = {
    "temperature": 0.5, "top_p": 0.9, "presence_penalty": 1.0, "frequency_penalty": 0.25, "seed": 3, "max_tokens": 9,
    "stop": ["a", "b"], "n": 2, "logprobs": True, "logit_bias": {"5": -1.0},
    "response_format": {"type": "json_schema",
                        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}},
}  # fmt: skip
FRAME = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_openai_params() -> None:
    assert sent("hi", FULL)[0] == {**FRAME, **FULL_BODY}


VL_BODIES = {
    "vllm": {"temperature": 0.7, "top_p": 0.8, "presence_penalty": 1.5, "frequency_penalty": 0.0, "max_tokens": 16384,
             "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"temperature": 0.7, "top_p": 0.8, "presence_penalty": 1.5, "frequency_penalty": 0.0,
               "max_tokens": 16384, "top_k": 20, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"temperature": 0.7, "top_p": 0.8, "presence_penalty": 1.5, "frequency_penalty": 0.0,
                 "max_tokens": 16384, "top_k": 20, "min_p": 0.0, "repeat_penalty": 1.0},
    "dashscope": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "presence_penalty": 1.5, "max_tokens": 16384},
}  # fmt: skip


@pytest.mark.parametrize("dialect", VL_BODIES)
def test_the_cards_preset(dialect: str) -> None:
    assert sent("hi", VL, dialect=dialect)[0] == {**FRAME, **VL_BODIES[dialect]}


def test_top_k_off_is_said_where_the_servers_default_is_on() -> None:
    assert [sent("hi", SamplingParams(), dialect=d)[0]["top_k"] for d in VL_BODIES] == [-1, -1, 0, 101]


def test_vllm_params() -> None:
    params = SamplingParams(
        min_tokens=1, max_tokens=5, stop_token_ids=(7,), ignore_eos=True, logprobs=True, top_logprobs=2,
        thinking_budget=64, regex="a+",
    )  # fmt: skip
    body, _ = sent("hi", params, dialect="vllm")
    assert body == {
        **FRAME, "temperature": 0.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "max_tokens": 5,
        "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 1, "stop_token_ids": [7],
        "ignore_eos": True, "logprobs": True, "return_tokens_as_token_ids": True, "top_logprobs": 2,
        "thinking_token_budget": 64, "structured_outputs": {"regex": "a+"},
    }  # fmt: skip


def test_other_servers_own_fields() -> None:
    assert sent("hi", SamplingParams(grammar="root ::= a"), dialect="sglang")[0]["ebnf"] == "root ::= a"
    assert sent("hi", SamplingParams(grammar="root ::= a"), dialect="llamacpp")[0]["grammar"] == "root ::= a"
    assert sent("hi", SamplingParams(thinking_budget=9), dialect="dashscope")[0]["thinking_budget"] == 9


REFUSED = {
    "openai": dict(top_k=3, min_p=0.1, repetition_penalty=1.1, min_tokens=1, stop_token_ids=(1,), ignore_eos=True,
                   thinking_budget=3, regex="a", grammar="g"),
    "vllm": {},
    "sglang": dict(thinking_budget=3),
    "llamacpp": dict(n=2, min_tokens=1, stop_token_ids=(1,), thinking_budget=3, regex="a"),
    "dashscope": dict(frequency_penalty=1.0, min_p=0.1, repetition_penalty=1.1, min_tokens=1, stop_token_ids=(1,),
                      ignore_eos=True, regex="a", grammar="g", json_schema={}, logit_bias={1: 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("dialect", REFUSED)
def test_what_a_dialect_cannot_say_is_refused_by_name(dialect: str) -> None:
    assert set(REFUSED) == set(DIALECTS)
    for name, value in REFUSED[dialect].items():
        refused("hi", SamplingParams(**{name: value}), dialect=dialect, match=f"^{name}: .* a {dialect} server")  # type: ignore[arg-type]


def test_all_refused_names_are_told_at_once() -> None:
    refused("hi", SamplingParams(top_k=3, min_p=0.5), match="^min_p, top_k: ")


@pytest.mark.parametrize("dialect", ["openai", "sglang", "dashscope"])
def test_top_logprobs_without_token_ids(dialect: str) -> None:
    refused("hi", SamplingParams(logprobs=True, top_logprobs=1), dialect=dialect, match="top_logprobs: .*by text only")


def test_extra_body() -> None:
    assert sent("hi", extra_body={"enable_thinking": True})[0] == {**FRAME, "enable_thinking": True}
    refused("hi", SamplingParams(seed=1), extra_body={"seed": 2}, match="seed: set by", error=InvalidParams)
    with pytest.raises(InvalidParams, match="messages"):
        qwen3vl.connect("http://h", "m", extra_body={"messages": []})


# ---------------------------------------------------------------------------------- conversations


def test_conversation_with_tools() -> None:
    messages = [
        Message("system", (TextPart("be "), TextPart("brief"))),
        Message("user", (TextPart("zoom"),)),
        Message("assistant", (), "thought", (ToolCall("zoom", {"x": "é"}), ToolCall("zoom", "{broken", "mine"))),
        Message("tool", (TextPart("one"),)),
        Message("tool", (TextPart("two"),), tool_call_id="mine"),
        Message("assistant", (TextPart("done"),)),
    ]
    function = {"name": "zoom", "parameters": {"type": "object"}}
    body, _ = sent(messages, tools=[function], tool_choice={"type": "function", "function": {"name": "zoom"}})
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "zoom"},
            {"role": "assistant", "content": None, "reasoning_content": "thought", "tool_calls": [
                {"id": "call_0", "type": "function", "function": {"name": "zoom", "arguments": '{"x": "é"}'}},
                {"id": "mine", "type": "function", "function": {"name": "zoom", "arguments": "{broken"}},
            ]},
            {"role": "tool", "content": "one", "tool_call_id": "call_0"},
            {"role": "tool", "content": "two", "tool_call_id": "mine"},
            {"role": "assistant", "content": "done"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "zoom"}},
    }  # fmt: skip


def test_tool_choice() -> None:
    assert "tool_choice" not in sent("hi", tools=[TOOL])[0]
    assert sent("hi", tools=[TOOL], tool_choice="required")[0]["tool_choice"] == "required"
    assert sent("hi", tool_choice="none")[0] == FRAME
    refused("hi", tool_choice="required", match="needs tools", error=InvalidParams)
    refused("hi", tools=[TOOL], tool_choice="any", match="not one of", error=InvalidParams)
    named = {"type": "function", "function": {"name": "zoom"}}
    refused("hi", tools=[TOOL], tool_choice=named, dialect="llamacpp", match="cannot force")


def test_malformed_messages_do_not_go_out() -> None:
    refused([{"role": "user", "content": [{"type": "sound"}]}], match="unknown type", error=InvalidMessage)


def test_chat_has_the_local_handles_form() -> None:
    with qwen3vl.connect(SERVER.url, "m", dialect="openai") as model:
        first = model.chat("one?", system="s", max_tokens=5)
        model.chat("two?", history=[Message("user", (TextPart("one?"),)), first.as_message()], preset="greedy")
        texts = [(m["role"], m["content"]) for m in SERVER.body["messages"]]
        assert texts == [("user", "one?"), ("assistant", "hello"), ("user", "two?")]
        assert SERVER.requests[-2].body == {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "one?"}],
            "temperature": 0.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "max_tokens": 5,
        }  # fmt: skip
        with pytest.raises(InvalidParams, match="not both"):
            model.chat("x", params=VL, seed=1)
        with pytest.raises(InvalidParams, match="lists"):
            model.chat("x", images="a.jpg")


# --------------------------------------------------------------------------------------- pictures


def only_picture(body: dict[str, Any]) -> dict[str, Any]:
    (part,) = [p for p in body["messages"][0]["content"] if p["type"] == "image_url"]
    return part


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "opaque.png"])
def test_plain_pictures_go_out_byte_for_byte(name: str, tmp_path: Path) -> None:
    path = picture_file(tmp_path / name)
    if name == "opaque.png":
        Image.open(path).convert("RGBA").save(path)
    body, answer = sent(user(ImagePart(path), TextPart("what?")))
    kind = {".jpg": "jpeg", ".png": "png", ".webp": "webp"}[path.suffix]
    url = f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode()
    assert body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "what?"},
    ]
    (receipt,) = answer.receipts
    assert (receipt.original_size, receipt.resized_size, receipt.orientation) == ((300, 320), (300, 320), 1)
    assert (receipt.grid_thw, receipt.num_tokens, receipt.source) == ((0, 0, 0), 0, str(path))


def test_pixels_come_through_exactly_where_the_file_cannot_go(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    webp = tmp_path / "a.webp"
    Image.fromarray(array).save(webp, lossless=True)
    for source, dialect in ((array, "openai"), (Image.fromarray(array), "vllm"), (webp, "llamacpp")):
        url = only_picture(sent(user(ImagePart(source)), dialect=dialect)[0])["image_url"]["url"]
        assert url.startswith("data:image/png;base64,")
        assert np.array_equal(pixels_of(url), array)


def test_turned_pictures_are_sent_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    array = np.random.default_rng(2).integers(0, 256, (30, 50, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(array).save(path, exif=exif)
    body, answer = sent(user(ImagePart(path)))
    assert np.array_equal(pixels_of(only_picture(body)["image_url"]["url"]), np.rot90(array, -1))
    (receipt,) = answer.receipts
    assert (receipt.original_size, receipt.orientation, receipt.resized_size) == ((50, 30), 6, (30, 50))


def test_transparency_cmyk_and_animations_are_made_plain(tmp_path: Path) -> None:
    clear = picture_file(tmp_path / "clear.png", (40, 40), "RGBA")
    cmyk = picture_file(tmp_path / "cmyk.jpg", (40, 40), "CMYK")
    moving = make_animation(tmp_path / "moving.webp", 3)
    for path, note in ((clear, "transparency"), (cmyk, ""), (moving, "first of several")):
        body, answer = sent(user(ImagePart(path)))
        url = only_picture(body)["image_url"]["url"]
        assert url.startswith("data:image/png;base64,") and Image.open(io.BytesIO(decoded(url)[1])).mode == "RGB"
        assert note in " ".join(answer.receipts[0].notes)


def test_bad_pictures_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    refused(user(ImagePart(tmp_path / "none.jpg")), match="none.jpg", error=MediaNotFound)
    whole = picture_file(tmp_path / "a.jpg").read_bytes()
    refused(user(ImagePart(whole[: len(whole) // 2])), match="cannot be decoded", error=MediaDecodeError)


def test_policy_is_kept(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.png")
    policy = qwen3vl.MediaPolicy(allow_files=False)
    model = qwen3vl.connect("http://127.0.0.1:9", "m", dialect="openai", policy=policy)
    with model, pytest.raises(MediaForbidden, match="not allowed"):
        model.chat("x", images=[path])


URL = "https://example.com/a.png"


def test_urls_go_out_only_when_asked() -> None:
    body, answer = sent(user(ImagePart(URL), VideoPart("http://example.com/a.mp4")), dialect="vllm", send_urls=True)
    assert body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "video_url", "video_url": {"url": "http://example.com/a.mp4"}},
    ]
    assert answer.receipts == ()  # nothing is known of them
    refused(user(ImagePart(URL)), send_urls=True, media=MediaOptions(max_pixels=99999), match="send_urls is off")


def test_pixel_bounds_by_dialect(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.png", (640, 480))
    media = MediaOptions(max_pixels=320 * 320)
    plain = base64.b64encode(path.read_bytes()).decode()
    body, _ = sent(user(ImagePart(path)), dialect="vllm", media=media)
    assert body["mm_processor_kwargs"] == {"min_pixels": 65536, "max_pixels": 102400}
    assert only_picture(body)["image_url"]["url"].endswith(plain)
    body, _ = sent(user(ImagePart(path)), dialect="dashscope", media=media)
    assert only_picture(body) == {
        "type": "image_url", "image_url": {"url": f"data:image/png;base64,{plain}"}, "max_pixels": 102400
    }  # fmt: skip
    for dialect in ("openai", "sglang", "llamacpp"):
        body, answer = sent(user(ImagePart(path)), dialect=dialect, media=media)
        assert "mm_processor_kwargs" not in body
        assert pixels_of(only_picture(body)["image_url"]["url"]).shape == (256, 352, 3)
        assert answer.receipts[0].resized_size == (352, 256) and answer.receipts[0].original_size == (640, 480)


def test_bounds_that_change_nothing_leave_the_file_alone(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.jpg", (640, 480))
    body, _ = sent(user(ImagePart(path)), media=MediaOptions(max_pixels=10**6))
    assert decoded(only_picture(body)["image_url"]["url"])[1] == path.read_bytes()


def test_bounds_the_server_would_undo_are_refused(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.png")
    refused(user(ImagePart(path)), media=MediaOptions(max_pixels=4096), match="max_pixels=4096: .*65536")
    refused(user(ImagePart(path)), media=MediaOptions(min_pixels=10**8), match="min_pixels=100000000: .*16777216")


def test_vllm_pictures_with_different_bounds_are_resized_here(tmp_path: Path) -> None:
    path = picture_file(tmp_path / "a.png", (640, 480))
    parts = [ImagePart(path, MediaOptions(max_pixels=102400)), ImagePart(path)]
    body, answer = sent(user(*parts), dialect="vllm")
    assert "mm_processor_kwargs" not in body
    assert [r.resized_size for r in answer.receipts] == [(352, 256), (640, 480)]


# ----------------------------------------------------------------------------------------- videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 10 frames per second, 320 x 256."""
    return constant_clip(tmp_path_factory.mktemp("connect") / "clip.mp4", 40, size=(320, 256))


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_whole_videos(dialect: str, clip: Path) -> None:
    body, answer = sent(user(VideoPart(clip), TextPart("what?")), dialect=dialect)
    url = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "what?"}]
    assert body == {"model": "m", "messages": [{"role": "user", "content": content}]}
    (receipt,) = answer.receipts
    assert (receipt.kind, receipt.original_size, receipt.duration) == ("video", (320, 256), 4.0)


def test_vllm_frame_rate(clip: Path) -> None:
    body, _ = sent(user(VideoPart(clip)), dialect="vllm", media=MediaOptions(fps=1.0))
    assert body["mm_processor_kwargs"] == {"fps": 1.0, "do_sample_frames": True}
    two = user(VideoPart(clip, MediaOptions(fps=1.0)), VideoPart(clip))
    refused(two, dialect="vllm", match="one fps for all videos")


@pytest.mark.parametrize(
    ("dialect", "option"),
    [
        ("vllm", "num_frames"),
        ("vllm", "max_pixels"),
        ("vllm", "video_start"),
        ("sglang", "fps"),
        ("vllm", "max_frames"),
    ],
)
def test_what_a_whole_video_cannot_be_sent_with(dialect: str, option: str, clip: Path) -> None:
    media = MediaOptions(**{option: 4})
    refused(user(VideoPart(clip)), dialect=dialect, media=media, match=f'^{option}: .*videos="frames"')


def test_markers_are_the_servers(clip: Path) -> None:
    refused(user(VideoPart(clip)), media=MediaOptions(video_markers="transformers5"), match="video_markers")


@pytest.mark.parametrize(("dialect", "options"), [("openai", {}), ("llamacpp", {}), ("vllm", {"videos": "frames"})])
def test_frames_behind_their_true_times(dialect: str, options: dict[str, Any], clip: Path) -> None:
    media = MediaOptions(fps=1.0, video_start=1.0, video_end=3.0)
    body, answer = sent(user(VideoPart(clip), TextPart("what?")), dialect=dialect, media=media, **options)
    *frames, question = body["messages"][0]["content"]
    texts, pictures = frames[::2], frames[1::2]
    (receipt,) = answer.receipts
    # Frames 10..30 are shown from 1.0 to 3.0 s; the least is 4 of them: 10, 17, 23, 30.
    assert receipt.frame_indices == (10, 17, 23, 30)
    assert receipt.timestamps == pytest.approx((1.0, 1.7, 2.3, 3.0)) and receipt.duration == 4.0
    assert [t["text"] for t in texts] == ["<1.0 seconds>", "<1.7 seconds>", "<2.3 seconds>", "<3.0 seconds>"]
    shown = [pixels_of(p["image_url"]["url"]) for p in pictures]
    assert [read_number(frame) for frame in shown] == [10, 17, 23, 30]
    assert all(frame.shape == (256, 320, 3) for frame in shown)
    assert question == {"type": "text", "text": "what?"}


def test_frames_are_resized_within_the_videos_bounds(clip: Path, tmp_path: Path) -> None:
    large = constant_clip(tmp_path / "large.mp4", 10, size=(640, 512))
    body, answer = sent(user(VideoPart(large)), media=MediaOptions(num_frames=4, total_pixels=4 * 320 * 256))
    assert answer.receipts[0].resized_size == (320, 256)
    assert pixels_of(body["messages"][0]["content"][1]["image_url"]["url"]).shape == (256, 320, 3)


def test_frames_that_the_server_would_enlarge(clip: Path, tmp_path: Path) -> None:
    """As pictures they are brought up to 65,536 pixels; in a list of frames they are not."""
    media = MediaOptions(num_frames=4, total_pixels=4 * 160 * 128)
    refused(user(VideoPart(clip)), media=media, match="^total_pixels: frames of 160 x 128 .*65536")
    assert sent(user(VideoPart(clip)), media=media, dialect="dashscope")[1].receipts[0].resized_size == (160, 128)
    small = constant_clip(tmp_path / "small.mp4", 4, size=(128, 96))
    assert "enlarges those to 65536 pixels" in sent(user(VideoPart(small)))[1].receipts[0].notes[-1]


def test_dashscope_takes_a_list_and_its_rate(clip: Path, tmp_path: Path) -> None:
    body, answer = sent(user(VideoPart(clip)), dialect="dashscope", media=MediaOptions(fps=2.0))
    (video,) = body["messages"][0]["content"]
    # 8 frames from 0 to 3.9 s: 0, 6, 11, 17, 22, 28, 33, 39, within 0.05 s of i / (7 / 3.9).
    assert answer.receipts[0].frame_indices == (0, 6, 11, 17, 22, 28, 33, 39)
    assert set(video) == {"type", "video", "fps"} and video["type"] == "video"
    assert video["fps"] == pytest.approx(7 / 3.9, abs=1e-6)
    assert [read_number(pixels_of(url)) for url in video["video"]] == [0, 6, 11, 17, 22, 28, 33, 39]
    # A rate alone cannot tell when a part of the video or an uneven one is shown.
    part, _ = sent(user(VideoPart(clip)), dialect="dashscope", media=MediaOptions(video_start=2.0))
    assert part["messages"][0]["content"][0] == {"type": "text", "text": "<2.0 seconds>"}
    uneven = make_clip(tmp_path / "uneven.mp4", [0, 100, 200, 2000, 5000])
    body, _ = sent(user(VideoPart(uneven)), dialect="dashscope", media=MediaOptions(num_frames=4))
    assert body["messages"][0]["content"][0] == {"type": "text", "text": "<0.0 seconds>"}


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_a_list_of_frames_keeps_its_times_and_pixels(dialect: str) -> None:
    frames = [painted(number, 64, 64) for number in range(3)]
    part = VideoPart(frames, frame_times=(0.0, 4.0, 9.0))  # type: ignore[arg-type]
    body, answer = sent(user(part), dialect=dialect)
    content = body["messages"][0]["content"]
    assert [p["text"] for p in content[::2]] == ["<0.0 seconds>", "<4.0 seconds>", "<9.0 seconds>"]
    assert all(np.array_equal(pixels_of(p["image_url"]["url"]), f) for p, f in zip(content[1::2], frames, strict=True))
    assert answer.receipts[0].frame_times == (0.0, 4.0, 9.0)


def test_a_video_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    for dialect in ("openai", "vllm"):
        refused(user(VideoPart(path)), dialect=dialect, match="text.mp4", error=MediaDecodeError)


# --------------------------------------------------------------------------------- the connection


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://h:8000", "http://h:8000/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("https://h/compatible-mode/v1", "https://h/compatible-mode/v1"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/llm", "https://h/llm/v1"),
    ],
)
def test_base_urls(given: str, used: str) -> None:
    assert normal_base_url(given) == used


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "", "http://h/v1?key=1", None])
def test_what_is_no_base_url(url: Any) -> None:
    with pytest.raises(InvalidParams, match="base_url"):
        qwen3vl.connect(url, "m")


@pytest.mark.parametrize(
    "options",
    [dict(timeout=0), dict(max_retries=-1), dict(concurrency=0), dict(dialect="x"), dict(videos="x"),
     dict(api_key="a\nb"), dict(api_key="a\nb "), dict(headers={"X": "é"}), dict(connect_timeout=float("nan"))],
)  # fmt: skip
def test_settings_are_checked_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as caught:
        qwen3vl.connect("http://h", "m", **options)
    assert "a\nb" not in str(caught.value)


def test_key_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((None, "", "EMPTY"), (None, "from-env", "from-env"), ("given", "from-env", "given"))
    for key, variable, expected in cases:
        monkeypatch.setenv("OPENAI_API_KEY", variable)
        with qwen3vl.connect(SERVER.url, "m", api_key=key, dialect="openai", headers={"X-Team": "blue"}) as model:
            model.chat("hi")
            assert expected not in repr(model)
        assert SERVER.requests[-1].headers["authorization"] == f"Bearer {expected}"
        assert SERVER.requests[-1].headers["x-team"] == "blue"
    with qwen3vl.connect(SERVER.url, "m", dialect="openai", headers={"authorization": "Basic eA=="}) as model:
        model.chat("hi")
    assert SERVER.requests[-1].headers["authorization"] == "Basic eA=="
    with qwen3vl.connect(SERVER.url, "m", dialect="openai", api_key="") as model:
        model.chat("hi")
    assert "authorization" not in SERVER.requests[-1].headers


@pytest.mark.parametrize(
    ("owner", "dialect"), [("vllm", "vllm"), ("sglang", "sglang"), ("llamacpp", "llamacpp"), ("library", "openai")]
)
def test_auto_asks_the_list_of_models_once(owner: str, dialect: str) -> None:
    with OpenAIServer([completion()], models(owner)) as server, qwen3vl.connect(server.url, "m") as model:
        assert server.others == []
        model.chat("one")
        model.chat("two")
        assert model.dialect is DIALECTS[dialect]
        assert [(seen.method, seen.path) for seen in server.others] == [("GET", "/v1/models")]


def test_auto_without_a_list_is_plain_openai() -> None:
    with OpenAIServer([completion()]) as server, qwen3vl.connect(server.url, "m") as model:
        assert model.dialect is DIALECTS["openai"]  # the fixture answers 404


def test_auto_knows_services_by_their_host() -> None:
    with qwen3vl.connect("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen3-vl-plus") as model:
        assert model.dialect is DIALECTS["dashscope"]
    with qwen3vl.connect("http://notaliyuncs.com.example", "m", max_retries=0) as model:
        assert model._dialect is None


def test_connecting_loads_no_torch() -> None:
    code = "import sys, qwen3vl; qwen3vl.connect('http://h', 'm'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
