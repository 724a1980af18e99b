"""Loss and every gradient are transformers', packed or not, with pictures and videos.

Gradients in the tower differ by some 5e-6: transformers' convolution of the patches is 7e-7 away from what float64
gives (ours 2e-7), and six random blocks amplify it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.data import Example
from qwen3vl.train.examples import Encoded, Encoder
from qwen3vl.train.loss import batch_loss
from qwen3vl.train.packing import TrainBatch, pack
from qwen3vl.types import ImagePart, Message, TextPart, VideoPart
from tests import models
from tests.train import tiny


def turn(role: Any, *content: Any) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in content))


def clip(width: int, height: int, num_frames: int) -> VideoPart:
    return VideoPart([tiny.picture(width, height, 40 * i) for i in range(num_frames)], frame_rate=2.0)


CONVERSATIONS = {
    "text": [turn("user", "Say a word."), turn("assistant", "Word."), turn("user", "?"), turn("assistant", "Yes!")],
    "picture": [turn("user", ImagePart(tiny.picture(96, 64)), "What?"), turn("assistant", "A slope.")],
    "video": [turn("user", clip(64, 64, 6), "When?"), turn("assistant", "At 0.5 seconds.")],
    "mixed": [
        turn("system", "Be brief."),
        turn("user", ImagePart(tiny.picture(32, 64)), "or", clip(64, 32, 4), ImagePart(tiny.picture(64, 64, 10)), "?"),
        turn("assistant", "Both."),
        turn("user", ImagePart(tiny.picture(64, 32, 200)), "and now"),
        turn("assistant", "None."),
    ],
}


@cache
def encoded(name: str) -> Encoded:
    return Encoder(tiny.processor(), tiny.SMALL)(Example(tuple(CONVERSATIONS[name]), where=name))


def batch(*names: str) -> TrainBatch:
    return pack([encoded(name) for name in names], 2)


def trained(model: Qwen3VL, *batches: TrainBatch) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over all labels, and the gradients of all weights."""
    model.zero_grad()
    model.requires_grad_(True)
    num_labels = sum(b.num_labels for b in batches)
    total = 0.0
    for b in batches:
        loss = batch_loss(model, b)
        assert loss.num_labels == b.num_labels
        (loss.total / num_labels).backward()
        total += loss.total.item()
    return total / num_labels, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def their_inputs(example: Encoded, model: Any) -> dict[str, Tensor]:
    ids = torch.from_numpy(example.inputs.input_ids_T)[None]
    kinds = (ids == model.config.image_token_id).int() + 2 * (ids == model.config.video_token_id).int()
    inputs = {"input_ids": ids, "mm_token_type_ids": kinds, "labels": torch.from_numpy(example.labels_T)[None]}
    for kind, patches, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        shown = [v for v in example.inputs.visuals if v.kind == kind]
        if shown:
            inputs[patches] = torch.cat([torch.from_numpy(v.patches.read()) for v in shown])
            inputs[grid] = torch.tensor([v.grid_thw for v in shown])
    return inputs


def their_loss(model: Any, names: Sequence[str]) -> tuple[float, dict[str, Tensor]]:
    """transformers, one conversation after the other, weighted by their labels."""
    model.zero_grad()
    model.requires_grad_(True)
    num_labels, total = sum(encoded(name).num_labels for name in names), 0.0
    for name in names:
        loss = model(**their_inputs(encoded(name), model)).loss * encoded(name).num_labels
        (loss / num_labels).backward()
        total += loss.item()
    gradients = {n.removeprefix("model."): p.grad for n, p in model.named_parameters() if p.grad is not None}
    return total / num_labels, gradients


@pytest.fixture(scope="module", params=["4b", "8b", "30b-a3b"])
def pair(request: Any) -> tuple[Qwen3VL, Any]:
    path = tiny.folder(request.param)
    return load_model(path), models.load_theirs(path).train()


def check(mine: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    assert abs(mine[0] - theirs[0]) <= 1e-5 * theirs[0], (mine[0], theirs[0])
    assert mine[1].keys() == theirs[1].keys(), mine[1].keys() ^ theirs[1].keys()
    worst = {name: distance(mine[1][name], theirs[1][name]) for name in mine[1]}
    name = max(worst, key=lambda n: worst[n])
    assert worst[name] <= 1e-5, (name, worst[name])


def distance(mine: Tensor, theirs: Tensor) -> float:
    """|a - b| / |b|. transformers keeps the patch embedding as a convolution."""
    theirs = theirs.reshape(mine.shape) if theirs.ndim == 5 else theirs
    assert mine.shape == theirs.shape, (mine.shape, theirs.shape)
    return float((mine - theirs).double().norm() / theirs.double().norm())


@pytest.mark.parametrize("names", [("picture",), ("mixed", "text", "video", "picture")], ids="+".join)
def test_one_batch(pair: Any, names: tuple[str, ...]) -> None:
    """One conversation alone, and several packed."""
    check(trained(pair[0], batch(*names)), their_loss(pair[1], names))


def test_accumulated(pair: Any) -> None:
    """Two batches of a step weigh by their labels."""
    names = ("mixed", "text", "picture")
    check(trained(pair[0], batch("mixed"), batch("text", "picture")), their_loss(pair[1], names))
