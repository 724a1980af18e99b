"""Every stage of the network against transformers', so that a failure names its stage.

Both libraries run the same prompt on the same folder in float32; what each module gave is recorded by
hooks under the module's name, which is the same on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.model.vision import FrameGeometry
from tests import models
from tests.models import Part, Prompt

PROMPTS: dict[str, tuple[Part, ...]] = {
    "one picture": (5, ("image", 6, 10), 9),
    "several pictures": (3, ("image", 2, 2), 4, ("image", 2, 64), ("image", 26, 14), 7),
    "no picture": (40,),
    "pictures and video": (4, ("image", 8, 4), 2, ("video", 3, 4, 6), 3, ("image", 2, 6), 5),
    "two videos": (2, ("video", 2, 6, 6), 3, ("video", 3, 2, 8), 4),
}
TEXT_STAGES = [
    *(f"language_model.layers.{i}" for i in range(4)),
    *(f"input of language_model.layers.{i}" for i in range(4)),  # 1..3: with DeepStack added
    "language_model.norm",
    "lm_head",
]
VISION_STAGES = [
    "visual.patch_embed",
    "input of visual.blocks.0",  # with the interpolated positions
    *(f"visual.blocks.{i}" for i in range(6)),
    *(f"visual.deepstack_merger_list.{k}" for k in range(3)),
    "visual.merger",
]


class Recorder:
    """Outputs, and inputs, of the modules named above; those of several calls are joined."""

    def __init__(self, model: torch.nn.Module, prefix: str) -> None:
        self.seen: dict[str, list[Tensor]] = defaultdict(list)
        self.handles = []
        for name, module in model.named_modules():
            name = name.removeprefix(prefix)
            if name in TEXT_STAGES + VISION_STAGES:
                self.handles.append(module.register_forward_hook(self._output(name)))
            if f"input of {name}" in TEXT_STAGES + VISION_STAGES:
                self.handles.append(module.register_forward_pre_hook(self._input(f"input of {name}")))

    def _output(self, name: str) -> Any:
        return lambda module, args, out: self.seen[name].append(out.detach())

    def _input(self, name: str) -> Any:
        return lambda module, args: self.seen[name].append(args[0].detach())

    def finish(self) -> dict[str, Tensor]:
        for handle in self.handles:
            handle.remove()
        return {name: torch.cat([x.flatten(0, -2) for x in seen]) for name, seen in self.seen.items()}


@cache
def record(edition: str, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """-> (ours, theirs), stage -> what came out."""
    mine, other = models.ours(models.small_folder(edition)), models.theirs(models.small_folder(edition))
    prompt = models.make_prompt(mine.config, *PROMPTS[case])
    recorders = Recorder(mine, ""), Recorder(other, "model.")
    models.prefill(mine, [prompt])
    with torch.no_grad():
        other(**models.oracle_inputs([prompt], mine.config))
    ours, theirs = (recorder.finish() for recorder in recorders)
    for name in VISION_STAGES:
        if name in ours:
            ours[name] = pictures_first(ours[name], prompt)
    return ours, theirs


def pictures_first(rows: Tensor, prompt: Prompt) -> Tensor:
    """transformers encodes pictures and videos one after the other, we in prompt order."""
    sizes = [len(shown.patches_PC) for shown in prompt.shown]
    parts = rows.split([size * len(rows) // sum(sizes) for size in sizes])
    ordered = sorted(zip(prompt.shown, parts, strict=True), key=lambda pair: pair[0].kind != "image")
    return torch.cat([part for _, part in ordered])


@pytest.mark.parametrize("edition", models.EDITIONS)
@pytest.mark.parametrize("case", PROMPTS)
@pytest.mark.parametrize("stage", VISION_STAGES + TEXT_STAGES)
def test_stage(stage: str, case: str, edition: str) -> None:
    ours, theirs = record(edition, case)
    if case == "no picture" and stage in VISION_STAGES:
        assert stage not in ours and stage not in theirs
        return
    assert models.difference(ours[stage], theirs[stage]) <= models.TOLERANCE


GRIDS = [(2, 2), (2, 64), (64, 2), (26, 14), (4, 6), (48, 48), (50, 4)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("frames", [1, 3])
def test_interpolated_positions(grid: tuple[int, int], frames: int) -> None:
    from transformers.vision_utils import get_vision_interpolation_indices_and_weights

    tower = models.ours(models.small_folder("8b")).visual
    other = models.theirs(models.small_folder("8b")).model.visual
    mine = tower.interpolated_positions(FrameGeometry.of([grid] * frames, tower.config, torch.device("cpu")))
    indices, weights = get_vision_interpolation_indices_and_weights(
        torch.tensor([[frames, *grid]]),
        num_grid_per_side=other.num_grid_per_side,
        mode="bilinear",
        align_corners=True,
        spatial_merge_size=2,
    )
    reference = (other.pos_embed(indices) * weights[:, :, None]).sum(1)
    assert models.difference(mine, reference) <= 1e-6


@pytest.mark.parametrize("edition", ["4b", "8b"])
@pytest.mark.parametrize("grid", GRIDS)
def test_vision_rotary(grid: tuple[int, int], edition: str) -> None:
    from qwen3vl.model.rope import vision_rotary

    config: ModelConfig = models.ours(models.small_folder(edition)).config
    other = models.theirs(models.small_folder(edition)).model.visual
    from transformers.vision_utils import get_vision_position_ids

    geometry = FrameGeometry.of([grid, grid], config.vision, torch.device("cpu"))
    mine = vision_rotary(geometry.rows_P, geometry.columns_P, config.vision.head_dim, config.vision.rope_theta)
    reference = other.rotary_pos_emb(torch.zeros(1), get_vision_position_ids(torch.tensor([[2, *grid]]), 2))
    for a, b in zip(mine, reference, strict=True):
        assert models.difference(a, b) <= 1e-6


@pytest.mark.parametrize("edition", models.EDITIONS)
@pytest.mark.parametrize("case", PROMPTS)
def test_text_rotary(case: str, edition: str) -> None:
    mine, other = models.ours(models.small_folder(edition)), models.theirs(models.small_folder(edition))
    positions, _ = models.positions_of(models.make_prompt(mine.config, *PROMPTS[case]), mine.config)
    reference = other.model.language_model.rotary_emb(torch.zeros(1), positions[:, None])
    for a, b in zip(mine.language_model.rotary(positions, torch.float32), reference, strict=True):
        assert models.difference(a, b[0]) <= 1e-6


def test_frames_in_chunks_are_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """encode_visuals bounds its memory; the features do not depend on where it cuts."""
    model = models.ours(models.small_folder("4b"))
    prompt = models.make_prompt(model.config, *PROMPTS["pictures and video"])
    whole = models.encode(model, [prompt])
    monkeypatch.setattr("qwen3vl.model.qwen3vl.PATCHES_PER_CHUNK", 30)
    parts = model.encode_visuals(prompt.patches_PC, prompt.frames)
    done = list(model.encode_visual_steps(lambda start, end: prompt.patches_PC[start:end], prompt.frames))
    assert len(set(done)) > 2 and done == sorted(done) and 0 < done[-1] < len(prompt.patches_PC)
    assert models.difference(parts.embeddings_MD, whole.embeddings_MD) <= models.TOLERANCE
    for a, b in zip(parts.deepstack, whole.deepstack, strict=True):
        assert models.difference(a, b) <= models.TOLERANCE
