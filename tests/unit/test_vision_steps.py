"""The vision tower in pieces: the same features, bit for bit, whatever happens between two pieces."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest
import torch

from qwen3vl.model import qwen3vl
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures
from tests import models

FRAMES = [(4, 6)] * 5 + [(2, 2)]


@pytest.fixture(scope="module")
def model() -> Qwen3VL:
    return models.ours(models.small_folder("4b"))


def patches_of(model: Qwen3VL, frames: list[tuple[int, int]], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = sum(height * width for height, width in frames)
    return torch.randn(count, model.config.vision.patch_values, generator=generator)


def same(a: VisualFeatures, b: VisualFeatures) -> bool:
    pairs = zip((a.embeddings_MD, *a.deepstack), (b.embeddings_MD, *b.deepstack), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def reader(patches: torch.Tensor) -> Callable[[int, int], torch.Tensor]:
    return lambda start, end: patches[start:end]


def finish(steps: Generator[object, None, VisualFeatures]) -> tuple[VisualFeatures, int]:
    """-> what came out, and after how many pieces."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


@torch.no_grad()
def test_a_piece_is_a_block(model: Qwen3VL) -> None:
    patches = patches_of(model, FRAMES, 0)
    features, pieces = finish(model.visual.encode_steps(patches, FRAMES))
    assert pieces == model.config.vision.depth
    assert same(features, model.visual(patches, FRAMES))


@torch.no_grad()
def test_pieces_of_two_videos_in_turn(model: Qwen3VL, monkeypatch: pytest.MonkeyPatch) -> None:
    """124 patches in chunks of at most 50: 48 + 48 + 28, so three times the blocks, and the mergers but for the last.
    Both keep their own bits."""
    monkeypatch.setattr(qwen3vl, "PATCHES_PER_CHUNK", 50)
    videos = [patches_of(model, FRAMES, seed) for seed in (1, 2)]
    alone = [model.encode_visuals(video, FRAMES) for video in videos]
    assert not same(*alone)
    first, second = (model.encode_visual_steps(reader(video), FRAMES) for video in videos)
    for _ in range(4):
        next(first)
        next(second)
    (late, late_pieces), (early, _) = finish(second), finish(first)
    assert late_pieces == 3 * (model.config.vision.depth + 1) - 1 - 4
    assert same(early, alone[0]) and same(late, alone[1])


@torch.no_grad()
def test_bytes_of_features(model: Qwen3VL) -> None:
    """31 tokens, main features and DeepStack's, 4 bytes a value."""
    features = model.encode_visuals(patches_of(model, FRAMES, 0), FRAMES)
    vision = model.config.vision
    assert features.num_bytes == 31 * (1 + len(vision.deepstack_visual_indexes)) * vision.out_hidden_size * 4


def test_grids_that_do_not_cover_the_patches(model: Qwen3VL) -> None:
    with pytest.raises(AssertionError, match="123 patches, but the frames' grids cover 124"):
        model.encode_visuals(patches_of(model, FRAMES, 0)[1:], FRAMES)
