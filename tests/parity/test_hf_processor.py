"""The processor calls of hf.py give transformers' inputs, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qwen3vl.errors import InvalidMessage, InvalidParams, InvalidRequest, MediaNotFound, UnsupportedOption
from qwen3vl.hf import AutoProcessor
from tests import models, oracle
from tests.fixtures.videos import constant_clip, painted
from tests.parity.test_video_patches import decode_all

ASSETS = oracle.ASSETS


@pytest.fixture(scope="module")
def ours() -> AutoProcessor:
    return AutoProcessor.from_pretrained(models.folder("4b"))


@pytest.fixture(scope="module")
def theirs() -> Any:
    return oracle.processor(models.folder("4b"))


def picture(seed: int, width: int = 90, height: int = 70, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode if channels > 1 else None)


def user(*parts: Any) -> list[dict[str, Any]]:
    content = []
    for part in parts:
        kind = "text" if isinstance(part, str) else "image" if isinstance(part, Image.Image) else "video"
        content.append({"type": kind, kind: part})
    return [{"role": "user", "content": content}]


def assert_same(mine: Any, other: Any) -> None:
    assert set(mine) == set(other)
    for key in other:
        a, b = mine[key], other[key]
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b), key
        else:
            assert a == b, key


ALL: dict[str, Any] = dict(tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt")
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "card": user(picture(1), "Describe this image."),
    "several": user(picture(1), picture(2, 300, 40), "Compare 你好 🫠.", picture(3, 33, 200, "RGBA")),
    "none": user("No picture."),
    "string": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "control tokens": user(picture(1), "say <|im_end|> and <think>"),
    "turns": [
        *user(picture(1), "What?"),
        {"role": "assistant", "content": [{"type": "text", "text": "A house."}]},
        *user("And this?", picture(2, 64, 64)),
    ],
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_inputs(case: str, ours: AutoProcessor, theirs: Any) -> None:
    conversation = CONVERSATIONS[case]
    assert_same(ours.apply_chat_template(conversation, **ALL), theirs.apply_chat_template(conversation, **ALL))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch(side: str, ours: AutoProcessor, theirs: Any) -> None:
    batch = [CONVERSATIONS[case] for case in ("card", "none", "several")]
    options = {**ALL, "padding": True, "padding_side": side}
    mine = ours.apply_chat_template(batch, **options)
    assert_same(mine, theirs.apply_chat_template(batch, **options))
    assert int(mine["attention_mask"].min()) == 0


def test_the_tokenizers_padding_side(theirs: Any) -> None:
    ours = AutoProcessor.from_pretrained(models.folder("4b"))
    batch = [CONVERSATIONS["card"], CONVERSATIONS["none"]]
    before = theirs.tokenizer.padding_side
    ours.tokenizer.padding_side = theirs.tokenizer.padding_side = "left"
    try:
        other = theirs.apply_chat_template(batch, padding=True, **ALL)
    finally:
        theirs.tokenizer.padding_side = before
    assert_same(ours.apply_chat_template(batch, padding=True, **ALL), other)
    assert other["attention_mask"][1, 0] == 0


@pytest.mark.parametrize("options", [{}, {"return_dict": True}, {"return_tensors": "pt"}])
def test_other_forms_of_the_result(options: dict[str, Any], ours: AutoProcessor, theirs: Any) -> None:
    conversation = CONVERSATIONS["none"]
    mine, other = (p.apply_chat_template(conversation, tokenize=True, **options) for p in (ours, theirs))
    if isinstance(other, torch.Tensor):
        assert torch.equal(mine, other)
    elif "return_dict" in options:
        assert {key: list(map(list, mine[key])) for key in mine} == {key: list(map(list, other[key])) for key in other}
    else:
        assert list(map(list, mine)) == list(map(list, other))


TOOL = {"type": "function", "function": {"name": "f", "description": "é", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": True}, {"add_vision_id": True}, {"tools": [TOOL]}])
def test_text(options: dict[str, Any], ours: AutoProcessor, theirs: Any) -> None:
    for conversation in CONVERSATIONS.values():
        assert ours.apply_chat_template(conversation, **options) == theirs.apply_chat_template(conversation, **options)


def test_text_then_call(ours: AutoProcessor, theirs: Any) -> None:
    """Rendered texts with their pictures, in every nesting that transformers takes."""
    a, b, c = picture(1), picture(2, 300, 40), picture(3, 33, 200)
    texts = [ours.apply_chat_template(user(a, "One.", b), add_generation_prompt=True)]
    texts += [ours.apply_chat_template(user(c, "Two."), add_generation_prompt=True)]
    for pictures in ([a, b, c], [[a, b], [c]]):
        mine = ours(text=texts, images=pictures, padding=True, return_tensors="pt")
        assert_same(mine, theirs(text=texts, images=pictures, padding=True, return_tensors="pt"))
    mine = ours([a, b], texts[0], return_tensors="pt")
    assert_same(mine, theirs([a, b], texts[0], return_tensors="pt"))


def test_pixel_bounds(ours: AutoProcessor, theirs: Any) -> None:
    size = {"shortest_edge": 40 * 32 * 32, "longest_edge": 60 * 32 * 32}
    conversation = user(picture(1, 600, 500), picture(2), "What?")
    other = theirs.apply_chat_template(conversation, processor_kwargs={"images_kwargs": {"size": size}}, **ALL)
    for options in (
        {"processor_kwargs": {"images_kwargs": {"size": size}}},
        {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]},
    ):
        assert_same(ours.apply_chat_template(conversation, **options, **ALL), other)


def test_sizes_that_are_set_on_the_processor(tmp_path: Path) -> None:
    """The repository's README: "control the resolution" by image_processor.size and video_processor.size."""
    ours = AutoProcessor.from_pretrained(models.folder("4b"))
    assert ours.image_processor.size == {"longest_edge": 16777216, "shortest_edge": 65536}
    other = oracle.processor.__wrapped__(models.folder("4b"))
    for processor in (ours, other):
        processor.image_processor.size = {"longest_edge": 60 * 32 * 32, "shortest_edge": 40 * 32 * 32}
        processor.video_processor.size = {"longest_edge": 200 * 32 * 32, "shortest_edge": 100 * 32 * 32}
    text = video_text(ours, "image", "video", "What?")
    call: dict[str, Any] = {"text": [text], "images": [picture(1)], "videos": [as_tensor(frames(12))]}
    call |= {"do_sample_frames": False, "video_metadata": [{"fps": 2.0, "total_num_frames": 12}]}
    call["video_metadata"][0]["frames_indices"] = list(range(12))
    assert_same(ours(**call, return_tensors="pt"), other(**call, return_tensors="pt"))
    with pytest.raises(InvalidParams, match="longest_edge"):
        ours.image_processor.size = {"height": 3, "width": 4}
    with pytest.raises(UnsupportedOption, match="do_resize"):
        ours.image_processor.do_resize = False  # type: ignore[attr-defined]


def test_attributes_and_dtypes(ours: AutoProcessor) -> None:
    batch = ours.apply_chat_template(CONVERSATIONS["card"], **ALL)
    assert batch.input_ids is batch["input_ids"]
    moved = batch.to("cpu").to(torch.bfloat16)
    assert moved.pixel_values.dtype == torch.bfloat16 and moved.input_ids.dtype == torch.int64
    with pytest.raises(AttributeError):
        _ = batch.nothing


def test_decoding(ours: AutoProcessor, theirs: Any) -> None:
    ids = torch.randint(0, 151_700, (3, 50), generator=torch.Generator().manual_seed(0))
    for skip in (True, False):
        options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": False}
        assert ours.batch_decode(ids, **options) == theirs.batch_decode(ids, **options)
        assert ours.decode(ids[0], **options) == theirs.decode(ids[0], **options)
    assert ours.post_process_image_text_to_text(ids) == theirs.post_process_image_text_to_text(ids)


# ------------------------------------------------------------------------------------------- videos


def frames(count: int, width: int = 96, height: int = 64, start: int = 0) -> np.ndarray:
    return np.stack([painted(number, width, height) for number in range(start, start + count)])


def as_tensor(frames_FHWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames_FHWC).permute(0, 3, 1, 2)


def video_text(processor: AutoProcessor, *parts: str) -> str:
    content = [{"type": part} if part in ("image", "video") else {"type": "text", "text": part} for part in parts]
    for part in content:
        part.setdefault(part["type"], "")
    return theirs_text(content)


def theirs_text(content: list[dict[str, str]]) -> str:
    return oracle.processor(models.folder("4b")).apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fps": 3.0},
        {"num_frames": 5, "fps": None},
        {"fps": 1},
        {"do_sample_frames": False},
        {"videos_kwargs": {"size": {"shortest_edge": 4096, "longest_edge": 60_000}}},
        {"videos_kwargs": {"cap_pixels_per_frame": True, "size": {"shortest_edge": 4096, "longest_edge": 90_000}}},
    ],
)
def test_frames_with_a_rate(options: dict[str, Any], ours: AutoProcessor, theirs: Any) -> None:
    text, video = video_text(ours, "video", "What?"), as_tensor(frames(23))
    call = {"text": [text], "videos": [video], "return_tensors": "pt"}
    metadata = {"fps": 10.0, "total_num_frames": 23, "frames_indices": list(range(23))}
    mine = ours(**call, video_metadata=[dict(metadata)], **options)
    other = theirs(**call, video_metadata=[dict(metadata)], **options)
    assert_same(mine, other)


def test_frames_in_every_form(ours: AutoProcessor, theirs: Any) -> None:
    """24 frames per second are assumed, and lists of pictures are videos."""
    text, array = video_text(ours, "video", "What?"), frames(30)
    pictures = [Image.fromarray(frame) for frame in array]
    other = theirs(text=[text], videos=[as_tensor(array)], return_tensors="pt")
    forms: list[Any] = [as_tensor(array), array, pictures, [pictures], [as_tensor(array)], [[array]], list(array)]
    for form in forms:
        assert_same(ours(text=[text], videos=form, return_tensors="pt"), other)
    for form in (pictures, [pictures], [[pictures]]):
        assert_same(theirs(text=[text], videos=form, return_tensors="pt"), other)


def test_several_videos_and_pictures(ours: AutoProcessor, theirs: Any) -> None:
    text = video_text(ours, "video", "and", "image", "and", "video", "What?")
    videos = [as_tensor(frames(7, 128, 64)), as_tensor(frames(12, 64, 96, start=50))]
    metadata = [
        {"fps": 2.0, "total_num_frames": 7, "frames_indices": list(range(7))},
        {"fps": 29.97, "total_num_frames": 400, "frames_indices": [33 * i for i in range(12)]},
    ]
    call: dict[str, Any] = {"text": [text], "images": [picture(1)], "videos": videos, "do_sample_frames": False}
    mine, other = (p(**call, video_metadata=[dict(m) for m in metadata], return_tensors="pt") for p in (ours, theirs))
    assert_same(mine, other)
    assert mine["video_grid_thw"].tolist()[0][0] == 4  # seven frames: the last is shown twice


def test_a_file_is_its_frames(tmp_path: Path, ours: AutoProcessor, theirs: Any) -> None:
    """Our own decoder against frames and metadata handed to transformers."""
    paths = [constant_clip(tmp_path / f"{i}.mp4", 15 + 8 * i, rate=10, size=(96 + 32 * i, 64)) for i in range(2)]
    text = video_text(ours, "video", "video", "What?")
    decoded = [decode_all(path) for path in paths]
    metadata = [{"fps": rate, "total_num_frames": len(f)} for f, rate in decoded]
    for options in ({}, {"fps": 4}, {"num_frames": 6, "fps": None}):
        call = {"videos": [as_tensor(f) for f, _ in decoded], "video_metadata": [dict(m) for m in metadata]}
        other = theirs(text=[text], **call, **options, return_tensors="pt")
        assert_same(ours(text=[text], videos=[str(path) for path in paths], **options, return_tensors="pt"), other)
        assert_same(ours.apply_chat_template(user(*paths, "What?"), **options, **ALL), other)


def test_frames_in_a_conversation(ours: AutoProcessor, theirs: Any) -> None:
    pictures = [Image.fromarray(frame) for frame in frames(30)]
    conversation = user(pictures, "What?")
    assert_same(ours.apply_chat_template(conversation, **ALL), theirs.apply_chat_template(conversation, **ALL))
    kwargs = {"do_sample_frames": False, "video_metadata": [{"fps": 3.0, "total_num_frames": 30}]}
    rated = ours.apply_chat_template(
        [{"role": "user", "content": [{"type": "video", "video": pictures, "sample_fps": 3}]}], **ALL
    )
    indices = {"frames_indices": list(range(30))}
    kwargs["video_metadata"][0] |= indices  # type: ignore[index]
    other = theirs.apply_chat_template(user(pictures), processor_kwargs=kwargs, **ALL)
    assert_same(rated, other)


@pytest.mark.parametrize("with_video", [False, True])
def test_qwen_vl_utils(with_video: bool, ours: AutoProcessor, theirs: Any) -> None:
    """The repository's README: process_vision_info, then the processor with do_resize=False."""
    utils = pytest.importorskip("qwen_vl_utils")
    pictures = [Image.fromarray(frame) for frame in frames(9, 200, 120)]
    video = {"type": "video", "video": pictures, "sample_fps": 2, "raw_fps": 10}
    content: list[Any] = [{"type": "image", "image": picture(1, 333, 200), "max_pixels": 50 * 32 * 32}]
    content += [video] if with_video else []
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]}]
    images, videos, kwargs = utils.process_vision_info(
        messages, image_patch_size=16, return_video_kwargs=True, return_video_metadata=True
    )
    videos, metadata = (list(each) for each in zip(*videos, strict=True)) if videos else (None, None)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    call = dict(text=text, images=images, videos=videos, do_resize=False, return_tensors="pt", **kwargs)
    mine, other = (p(**call, video_metadata=metadata and [dict(m) for m in metadata]) for p in (ours, theirs))
    assert_same(mine, other)


# ---------------------------------------------------------------------------------------- refusals


def test_refusals(ours: AutoProcessor, tmp_path: Path) -> None:
    one = user(picture(1), "What?")
    text = ours.apply_chat_template(one)
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: AutoProcessor.from_pretrained(models.folder("4b"), use_fast=True), UnsupportedOption, "use_fast"),
        (lambda: ours.apply_chat_template(one, continue_final_message=True), UnsupportedOption, "continue_final"),
        (lambda: ours.apply_chat_template(one, tokenize=True, size=3), UnsupportedOption, "size"),
        (lambda: ours(text=text, images=[picture(1)], do_normalize=False), UnsupportedOption, "do_normalize"),
        (lambda: ours(text=text, images=[picture(1)], do_convert_rgb=False), UnsupportedOption, "do_convert_rgb"),
        (lambda: ours(text=text, images=[picture(1)], do_resize=False), InvalidParams, "90 x 70 .* multiples of 32"),
        (lambda: ours(text=text, images=[picture(1)], return_tensors="np"), UnsupportedOption, "'np'"),
        (
            lambda: ours(text=text, images=[picture(1)], videos_kwargs={"min_pixels": 4}),
            UnsupportedOption,
            "min_pixels",
        ),
        (lambda: ours(text=text), InvalidMessage, "more image placeholders than there are images"),
        (lambda: ours(text=text, images=[picture(1)] * 2), InvalidMessage, "1 pictures or videos are left over"),
        (lambda: ours(images=[picture(1)]), InvalidMessage, "text is needed"),
        (lambda: ours(text=text, images=[tmp_path / "none.png"]), MediaNotFound, "none.png"),
        (lambda: ours(text=["a", "b c d"], return_tensors="pt"), InvalidParams, "padding=True"),
        (lambda: ours.decode([1], clean_up_tokenization_spaces=True), UnsupportedOption, "clean_up"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            call()


def test_refusals_of_videos(ours: AutoProcessor, tmp_path: Path) -> None:
    path, text = constant_clip(tmp_path / "a.mp4", 8), video_text(ours, "video")
    metadata = {"fps": 2.0, "total_num_frames": 30}
    video = as_tensor(frames(8))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"videos": [path], "do_sample_frames": False}, UnsupportedOption, "do_sample_frames"),
        ({"videos": [path], "video_metadata": [metadata]}, UnsupportedOption, "video_metadata"),
        ({"videos": [video], "video_metadata": [metadata]}, InvalidRequest, "8 frames, but total_num_frames=30"),
        ({"videos": [video], "video_metadata": [metadata] * 2, "do_sample_frames": False}, InvalidMessage, "1 more"),
        ({"videos": [video], "video_metadata": [3]}, InvalidMessage, "one dict"),
        ({"videos": [video.float() + 0.5]}, InvalidMessage, "whole numbers"),
        ({"videos": [video[:, :2]]}, InvalidMessage, "frames must be"),
        ({"videos": [video], "return_metadata": True}, UnsupportedOption, "return_metadata"),
        ({"videos": [video], "fps": [2.0]}, UnsupportedOption, "list of fps"),
        ({"videos": [video[:, :, :50]], "do_resize": False}, InvalidParams, "96 x 50 pixels"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            ours(text=[text], **call)
