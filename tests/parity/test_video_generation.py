"""64 greedy tokens about videos are transformers', in both marker modes, from identical frames and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3vl.hf import AutoModelForImageTextToText, AutoProcessor
from qwen3vl.types import ImagePart, MediaOptions, Message, TextPart, VideoPart
from tests import models, oracle
from tests.engine.prompts import greedy
from tests.fixtures.videos import constant_clip
from tests.parity.test_hf_processor import as_tensor, frames, picture, video_text
from tests.parity.test_video_patches import decode_all

FPS = {"fps": 4}


def clip(folder: Path, number: int) -> Path:
    return constant_clip(folder / f"{number}.mp4", 12 + 5 * number, rate=10, size=(96, 64 + 32 * number))


CASES: dict[str, tuple[str, ...]] = {
    "two videos": ("video", "and", "video", "What changes?"),
    "all": ("image", "Look.", "video", "Then", "image", "and 你好", "video", "What?"),
}


def their_greedy(model: Any, inputs: Any, num_tokens: int) -> list[int]:
    out = model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False)
    tokens: list[int] = out[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


@pytest.mark.parametrize("case", CASES)
def test_markers_of_transformers(case: str, tmp_path: Path) -> None:
    """Files for us, their decoded frames for transformers."""
    folder, processor = models.folder("4b"), AutoProcessor.from_pretrained(models.folder("4b"))
    kinds = CASES[case]
    paths = [clip(tmp_path, i) for i in range(kinds.count("video"))]
    pictures = [picture(i) for i in range(kinds.count("image"))] or None
    text, decoded = video_text(processor, *kinds), [decode_all(path) for path in paths]
    other = oracle.processor(folder)(
        text=[text],
        images=pictures,
        videos=[as_tensor(f) for f, _ in decoded],
        video_metadata=[{"fps": rate, "total_num_frames": len(f)} for f, rate in decoded],
        return_tensors="pt",
        **FPS,
    )
    mine = processor(text=[text], images=pictures, videos=paths, return_tensors="pt", **FPS)
    assert torch.equal(mine["input_ids"], other["input_ids"])
    answer = AutoModelForImageTextToText.from_pretrained(folder).generate(**mine, max_new_tokens=64, do_sample=False)
    expected = their_greedy(models.theirs(folder), other, 64)
    assert len(set(expected)) > 16
    assert answer[0, mine["input_ids"].shape[1] :].tolist()[: len(expected)] == expected


def test_markers_of_the_release() -> None:
    """transformers' model on the ids that the model was released with; its processor of today makes others."""
    folder = models.folder("4b")
    model, processor = models.ours(folder), AutoProcessor.from_pretrained(folder).processor
    content = []
    for number, kind in enumerate(CASES["all"]):
        if kind == "video":
            content.append(VideoPart(tuple(frames(7, 96, 64, start=number)), frame_rate=2.0))
        else:
            content.append(ImagePart(picture(number)) if kind == "image" else TextPart(kind))
    inputs = processor([Message("user", tuple(content))], media=MediaOptions(video_markers="release"))
    by_kind = {kind: [v for v in inputs.visuals if v.kind == kind] for kind in ("image", "video")}
    ids = torch.from_numpy(inputs.input_ids_T)[None]
    config = model.config
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long() + 2 * (ids == config.video_token_id).long(),
    }
    for kind, patches, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        batch[patches] = torch.cat([torch.from_numpy(v.patches.read()) for v in by_kind[kind]])
        batch[grid] = torch.tensor([v.grid_thw for v in by_kind[kind]])
    assert greedy(model, inputs, 64, max_tokens=100) == their_greedy(models.theirs(folder), batch, 64)
