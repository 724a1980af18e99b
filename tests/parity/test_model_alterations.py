"""Random weights could hide faults: each of these, put into our model alone, changes the greedy tokens.

So the comparison of tokens with transformers (test_model_generation.py, same folders and prompts) sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.config import RopeConfig
from qwen3vl.model import text, vision
from qwen3vl.model.fusion import Fused
from qwen3vl.model.moe import Router
from qwen3vl.model.packed_attention import PackedLayout
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models
from tests.parity.test_model_generation import prompts_of

Patch = pytest.MonkeyPatch
ALTERATIONS: dict[str, Callable[[Qwen3VL, Patch], Any]] = {}


def alteration(function: Callable[[Qwen3VL, Patch], Any]) -> Callable[[Qwen3VL, Patch], Any]:
    ALTERATIONS[function.__name__] = function
    return function


def tokens_of(model: Qwen3VL, subtle: bool = False) -> list[list[int]]:
    """Of prompts with pictures and videos; a subtle alteration needs those where two tokens come close."""
    if subtle:
        return models.greedy(model, prompts_of("near ties", model.config), 64)
    prompts = [*prompts_of("several pictures", model.config), prompts_of("padded batch", model.config)[2]]
    return models.greedy(model, prompts, 32)


@cache
def right_tokens(folder: Path, subtle: bool = False) -> list[list[int]]:
    return tokens_of(models.load_model(folder), subtle)


@alteration
def one_deepstack_index(model: Qwen3VL, patch: Patch) -> None:
    model.visual.config = replace(model.visual.config, deepstack_visual_indexes=(1, 3, 4))


@alteration
def height_and_width_swapped(model: Qwen3VL, patch: Patch) -> None:
    axes = text.mrope_axes
    patch.setattr(text, "mrope_axes", lambda *a: torch.tensor([0, 2, 1])[axes(*a)])


@alteration
def time_and_height_swapped(model: Qwen3VL, patch: Patch) -> None:
    axes = text.mrope_axes
    patch.setattr(text, "mrope_axes", lambda *a: torch.tensor([1, 0, 2])[axes(*a)])


@alteration
def mrope_in_one_piece_per_axis(model: Qwen3VL, patch: Patch) -> None:
    patch.setattr(text, "mrope_axes", lambda section, n: torch.arange(3).repeat_interleave(torch.tensor(section)))


@alteration
def deepstack_before_the_layers(model: Qwen3VL, patch: Patch) -> None:
    add, current = Fused.add_deepstack, []
    embed = model.embed
    patch.setattr(model, "embed", lambda *a: current.append(embed(*a)) or current[-1])
    patch.setattr(Fused, "add_deepstack", lambda self, x, k: x)
    for k, layer in enumerate(model.language_model.layers[:3]):

        def before(module: Any, args: Any, k: int = k) -> Any:
            return (add(current[-1], args[0], k), *args[1:]) if current[-1].deepstack else None

        layer.register_forward_pre_hook(before)


@alteration
def deepstack_left_out(model: Qwen3VL, patch: Patch) -> None:
    patch.setattr(Fused, "add_deepstack", lambda self, x, k: x)


@alteration
def deepstack_in_reverse(model: Qwen3VL, patch: Patch) -> None:
    add = Fused.add_deepstack
    patch.setattr(Fused, "add_deepstack", lambda self, x, k: add(self, x, 2 - k))


@alteration
def patches_in_rows(model: Qwen3VL, patch: Patch) -> None:
    """Patches come row by row, but the tower still takes them for merge blocks."""
    encode = model.encode_visuals

    def in_rows(patches: Tensor, frames: Any) -> Any:
        parts = patches.split([h * w for h, w in frames])
        shapes = [(h // 2, w // 2, 2, 2, -1) for h, w in frames]
        rows = [p.reshape(s).transpose(1, 2).reshape(p.shape) for p, s in zip(parts, shapes, strict=True)]
        return encode(torch.cat(rows), frames)

    patch.setattr(model, "encode_visuals", in_rows)


@alteration
def positions_in_rows(model: Qwen3VL, patch: Patch) -> None:
    """Positions and rotary count row by row, while the patches come in merge blocks."""
    of = vision.FrameGeometry.of
    merge_1 = classmethod(lambda cls, frames, config, device: of(frames, replace(config, spatial_merge_size=1), device))
    patch.setattr(vision.FrameGeometry, "of", merge_1)


@alteration
def exact_gelu_in_the_blocks(model: Qwen3VL, patch: Patch) -> None:
    patch.setattr(vision.VisionMlp, "forward", lambda self, x: self.linear_fc2(F.gelu(self.linear_fc1(x))))


@alteration
def tanh_gelu_in_the_mergers(model: Qwen3VL, patch: Patch) -> None:
    patch.setattr(vision.Merger, "forward", merger_with(lambda x: F.gelu(x, approximate="tanh")))


@alteration
def merger_norm_after_merging(model: Qwen3VL, patch: Patch) -> None:
    model.visual.merger.norm = widened(model.visual.merger.norm)
    model.visual.merger.norm_after_merging = True


@alteration
def corners_not_aligned(model: Qwen3VL, patch: Patch) -> None:
    def nearest(index: Tensor, size: Tensor, side: int) -> Any:
        source = ((index.float() + 0.5) * side / size - 0.5).clamp(0, side - 1)
        low = source.floor()
        return (low.long(), 1 - (source - low)), ((low.long() + 1).clamp(max=side - 1), source - low)

    patch.setattr(vision, "_two_nearest", nearest)


@alteration
def frames_see_each_other(model: Qwen3VL, patch: Patch) -> None:
    for block in model.visual.blocks:
        frames = block.attn.attention.frames
        one = lambda q, k, v, _, f=frames: f(q, k, v, PackedLayout.of([len(q)]))  # noqa: E731
        block.attn.attention = type("Full", (), {"frames": staticmethod(one)})


@alteration
def vision_rotary_columns_first(model: Qwen3VL, patch: Patch) -> None:
    rotary = vision.vision_rotary
    patch.setattr(vision, "vision_rotary", lambda rows, columns, *a: rotary(columns, rows, *a))


@alteration
def vision_theta(model: Qwen3VL, patch: Patch) -> None:
    model.visual.config = replace(model.visual.config, rope_theta=20000.0)


@alteration
def text_theta(model: Qwen3VL, patch: Patch) -> None:
    config = model.language_model.config
    model.language_model.config = replace(config, rope=replace(config.rope, theta=1e6))


@alteration
def no_norm_of_keys(model: Qwen3VL, patch: Patch) -> None:
    model.language_model.layers[1].self_attn.k_norm = torch.nn.Identity()


@alteration
def positions_go_on_behind_all_visual_tokens(model: Qwen3VL, patch: Patch) -> None:
    """Text behind a picture at start + number of its tokens, instead of + its longer side."""
    positions_of = models.positions_of

    def counted(prompt: models.Prompt, config: Any) -> Any:
        positions, _ = positions_of(prompt, config)
        pads = (prompt.input_ids_T == config.image_token_id) | (prompt.input_ids_T == config.video_token_id)
        positions[:, ~pads] = torch.arange(len(prompt))[~pads]
        return positions, len(prompt)

    patch.setattr(models, "positions_of", counted)


def merger_with(gelu: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def forward(self: vision.Merger, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.merged_size) if self.norm_after_merging else x
        return self.linear_fc2(gelu(self.linear_fc1(self.norm(x).reshape(-1, self.merged_size))))

    return forward


def widened(norm: torch.nn.LayerNorm) -> torch.nn.LayerNorm:
    """The same weights repeated for each of the four patches."""
    wide = torch.nn.LayerNorm(4 * norm.weight.numel(), eps=norm.eps)
    wide.weight.data, wide.bias.data = norm.weight.data.repeat(4), norm.bias.data.repeat(4)
    return wide


@pytest.mark.parametrize("name", ALTERATIONS)
def test_alteration_changes_the_tokens(name: str, monkeypatch: Patch) -> None:
    folder = models.small_folder("4b")
    subtle = "gelu" in name or "theta" in name
    right, model = right_tokens(folder, subtle), models.load_model(folder)
    ALTERATIONS[name](model, monkeypatch)
    assert tokens_of(model, subtle) != right


def test_tail_of_the_sections_changes_the_tokens(monkeypatch: Patch) -> None:
    """Sections 24 4 4 leave frequencies 12..31 to time; the last are slow, so the base is small here."""
    rope = RopeConfig(theta=100.0, mrope_section=(24, 4, 4))
    folder = models.write(models.small_config(text={"rope": rope}))
    right, model = right_tokens(folder), models.load_model(folder)
    monkeypatch.setattr(text, "mrope_axes", lambda section, n: torch.arange(n) % 3)
    assert tokens_of(model) != right


def test_router_weights_that_do_not_sum_to_1_change_the_tokens(monkeypatch: Patch) -> None:
    def unscaled(self: Router, x: Tensor) -> Any:
        return F.linear(x, self.weight).softmax(-1).topk(self.num_experts_per_tok, dim=-1)

    folder = models.small_folder("30b-a3b")
    right, model = right_tokens(folder), models.load_model(folder)
    monkeypatch.setattr(Router, "forward", unscaled)
    assert tokens_of(model) != right


def test_nothing_altered_changes_nothing() -> None:
    folder = models.small_folder("4b")
    assert tokens_of(models.load_model(folder)) == right_tokens(folder)
