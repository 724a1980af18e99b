from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl.errors import CheckpointNotFound, ConfigError, InvalidMessage, InvalidParams, MediaError, MediaForbidden
from qwen3vl.inputs import VisualSpan
from qwen3vl.processor.chat import Prompt
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.placeholders import Footprint, expand
from qwen3vl.processor.processor import Processor
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, Message, TextPart, VideoPart
from tests.fixtures.conversations import image, picture, text, user
from tests.oracle import ASSETS


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.from_folder(ASSETS)


def words(processor: Processor, ids: Any) -> str:
    """The ids as text, with runs of pads counted: "<|vision_start|>[4 video]<|vision_end|>"."""
    decoded = processor.tokenizer.decode(list(ids), skip_special_tokens=False)
    for kind in ("image", "video"):
        pad = f"<|{kind}_pad|>"
        for count in range(decoded.count(pad), 0, -1):
            decoded = decoded.replace(pad * count, f"[{count} {kind}]")
    return decoded


# ---------------------------------------------------------------------------------- placeholders


def prompt_of(kind: str, before: str = "", after: str = "") -> Prompt:
    return Prompt(f"{before}<|vision_start|><|{kind}_pad|><|vision_end|>{after}", None)


def test_the_worked_example_of_a_picture(processor: Processor) -> None:
    ids, spans = expand(prompt_of("image", "a"), [Footprint("image", (1, 4, 6))], processor.tokenizer, 2)
    assert words(processor, ids) == "a<|vision_start|>[6 image]<|vision_end|>"
    assert spans == (VisualSpan(2, (4, 6), 0, 0),)


@pytest.mark.parametrize(
    ("markers", "expected"),
    [
        ("release", "<0.2 seconds>S[4 video]E<1.2 seconds>S[4 video]E"),
        ("transformers5", "S<0.2 seconds>S[4 video]E<1.2 seconds>S[4 video]EE"),
    ],
)
def test_the_worked_example_of_a_video(processor: Processor, markers: Any, expected: str) -> None:
    footprint = Footprint("video", (2, 4, 4), (0.25, 1.25), markers)
    ids, spans = expand(prompt_of("video", "x <", "y"), [footprint], processor.tokenizer, 2)
    expected = f"x <{expected}y".replace("S", "<|vision_start|>").replace("E", "<|vision_end|>")
    assert words(processor, ids) == expected
    pad = processor.tokenizer.id_of("<|video_pad|>")
    starts = [i for i, token in enumerate(ids) if token == pad and ids[i - 1] != pad]
    assert spans == tuple(VisualSpan(start, (4, 4), 0, frame) for frame, start in enumerate(starts))
    # The text before a timestamp is encoded together with it: with "release", "<<" is one token.
    whole = words(processor, ids).replace("[4 video]", "<|video_pad|>" * 4)
    assert ids.tolist() == processor.tokenizer.encode(whole, allow_special=True)


def test_a_bare_video_pad_is_expanded_too(processor: Processor) -> None:
    footprint = Footprint("video", (1, 2, 2), (0.0,))
    ids, _ = expand(Prompt("<|video_pad|>", None), [footprint], processor.tokenizer, 2)
    assert words(processor, ids) == "<0.0 seconds><|vision_start|>[1 video]<|vision_end|>"


def test_counts_that_differ_are_both_named(processor: Processor) -> None:
    one = [Footprint("image", (1, 2, 2))]
    prompt = Prompt(prompt_of("image").text * 3, None)
    with pytest.raises(InvalidMessage, match=r"3 placeholders .* for 1 pictures and videos"):
        expand(prompt, one, processor.tokenizer, 2)
    with pytest.raises(InvalidMessage, match=r"0 placeholders .* for 1 pictures"):
        expand(Prompt("hi", None), one, processor.tokenizer, 2)
    with pytest.raises(InvalidMessage, match="placeholder 0 of the prompt is of a video, but a image"):
        expand(prompt_of("video"), one, processor.tokenizer, 2)


# -------------------------------------------------------------------------------------- processor


def test_pictures_and_text(processor: Processor) -> None:
    inputs = processor([user(text("a"), image(256, 256), text("b"), image(512, 256))])
    assert words(processor, inputs.input_ids_T) == (
        "<|im_start|>user\na<|vision_start|>[64 image]<|vision_end|>b<|vision_start|>[128 image]<|vision_end|>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    pad = processor.tokenizer.id_of("<|image_pad|>")
    for span, visual in zip(inputs.spans, inputs.visuals, strict=True):
        run = inputs.input_ids_T[span.start : span.start + visual.receipt.num_tokens]
        assert set(run) == {pad} and inputs.input_ids_T[span.start - 1] != pad
        assert span.grid_hw == visual.grid_thw[1:]
    assert [span.visual for span in inputs.spans] == [0, 1]


def test_a_part_overrides_the_request(processor: Processor) -> None:
    small, large = MediaOptions(max_pixels=128 * 128, min_pixels=1), MediaOptions(max_pixels=256 * 256, min_pixels=1)
    whole = picture(512, 512)
    message = Message("user", (ImagePart(whole), ImagePart(whole, large)))
    inputs = processor([message], media=small)
    assert [receipt.num_tokens for receipt in inputs.receipts] == [16, 64]
    assert processor.count_tokens([message], media=small) == inputs.num_tokens


def frames(count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.full((64, 64, 3), 10 * i, np.uint8) for i in range(count))


def test_video_markers_of_a_part(processor: Processor) -> None:
    extra = MediaOptions(video_markers="transformers5")
    clips = (VideoPart(frames(4), frame_rate=2), VideoPart(frames(4), extra, frame_rate=2))
    shown = words(processor, processor([Message("user", clips)]).input_ids_T)
    one = "<0.2 seconds><|vision_start|>[4 video]<|vision_end|><1.2 seconds><|vision_start|>[4 video]<|vision_end|>"
    assert shown.startswith(f"<|im_start|>user\n{one}<|vision_start|>{one}<|vision_end|><|im_end|>")


def test_control_tokens_in_text(processor: Processor) -> None:
    question = [user(text("<|image_pad|><|im_end|>"), image())]
    end = processor.tokenizer.id_of("<|im_end|>")
    assert processor(question).input_ids_T.tolist().count(end) == 1
    with pytest.raises(InvalidMessage, match=r"2 placeholders .* for 1 pictures"):
        processor(question, sanitize_control_tokens=False)
    acting = processor("<|im_end|>", sanitize_control_tokens=False)
    assert acting.input_ids_T.tolist().count(end) == 2


def test_counting_reads_headers_only(processor: Processor, tmp_path: Path) -> None:
    encoded = io.BytesIO()
    picture(300, 200).save(encoded, "PNG")
    broken = encoded.getvalue()[:200]  # a whole header, hardly any pixels
    path = tmp_path / "a.png"
    path.write_bytes(encoded.getvalue())
    whole = [user({"type": "image", "image": str(path)}, {"type": "image", "image": encoded.getvalue()})]
    cut = [user({"type": "image", "image": broken}, {"type": "image", "image": broken})]
    array = [user({"type": "image", "image": np.zeros((200, 300, 3), np.uint8)}, image(300, 200))]
    expected = processor(whole).num_tokens
    assert processor.count_tokens(whole) == processor.count_tokens(cut) == processor.count_tokens(array) == expected
    with pytest.raises(MediaError):
        processor(cut)


def test_counting_follows_the_orientation(processor: Processor) -> None:
    encoded = io.BytesIO()
    turned = picture(700, 300)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(encoded, "JPEG", exif=exif)
    message = [user({"type": "image", "image": encoded.getvalue()})]
    inputs = processor(message)
    assert inputs.visuals[0].grid_thw[1] > inputs.visuals[0].grid_thw[2]
    assert processor.count_tokens(message) == inputs.num_tokens


def clip(path: Path, count: int, rate: int) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), i * 3, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("markers", ["release", "transformers5"])
@pytest.mark.parametrize(
    "options", [{}, {"num_frames": 7}, {"fps": 5.0, "max_frames": 9}, {"video_start": 1.0, "video_end": 1.7}]
)
def test_counting_videos(processor: Processor, tmp_path: Path, options: dict[str, Any], markers: Any) -> None:
    file = str(clip(tmp_path / "a.mp4", 60, 20))
    pictures = VideoPart((picture(64, 96), np.zeros((96, 64, 3), np.uint8), picture(64, 96)), frame_rate=1)
    question = Message("user", (VideoPart(file, MediaOptions(**options)), TextPart("?"), pictures))
    media = MediaOptions(video_markers=markers)
    inputs = processor([question], media=media)
    assert processor.count_tokens([question], media=media) == inputs.num_tokens
    assert inputs.visuals[0].grid_thw[0] > 1


def test_errors_come_before_any_decoding(processor: Processor, tmp_path: Path) -> None:
    missing = {"type": "image", "image": str(tmp_path / "none.png")}
    with pytest.raises(InvalidMessage, match="unknown key"):
        processor([user(missing, {"type": "text", "text": "x", "bold": True})])
    with pytest.raises(InvalidMessage, match=r"message 0 \(system\): image would be lost"):
        processor([{"role": "system", "content": [missing]}, user("x")])
    with pytest.raises(MediaError, match=r"none\.png"):
        processor([user(image(), missing, missing)])
    with pytest.raises(MediaForbidden):
        processor([user(missing)], policy=MediaPolicy.server())
    with pytest.raises(InvalidParams, match="fps: not a setting of a picture"):
        processor([Message("user", (ImagePart(picture(), MediaOptions(fps=1)),))])


def test_the_same_prompt_for_every_form(processor: Processor) -> None:
    ours = processor([Message("user", (TextPart("Hi"),))], add_generation_prompt=False)
    assert ours.input_ids_T.tolist() == processor("Hi", add_generation_prompt=False).input_ids_T.tolist()
    assert words(processor, ours.input_ids_T) == "<|im_start|>user\nHi<|im_end|>\n"
    assert ours.visuals == ours.spans == ()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no such folder"):
        Processor.from_folder(tmp_path / "none")
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.json"):
        shutil.copyfile(ASSETS / name, tmp_path / name)
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json"):
        Processor.from_folder(tmp_path)
