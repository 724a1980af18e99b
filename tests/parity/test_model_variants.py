"""Logits against transformers' on checkpoints of other shapes, with YaRN, in batches and in continued conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3vl.config import MoeConfig
from qwen3vl.inputs import VisualSpan
from qwen3vl.model.positions import mrope_positions
from tests import models, oracle
from tests.models import Part, Prompt

MIXED: tuple[Part, ...] = (4, ("image", 6, 8), 3, ("video", 2, 4, 6), 30, ("image", 2, 4), 5)
ROPE = models.small_config().text.rope


def rope(*section: int, head_dim: int, theta: float = 5e6) -> dict[str, Any]:
    assert len(section) == 3
    return {"rope": replace(ROPE, mrope_section=section, theta=theta), "head_dim": head_dim}


VARIANTS = {
    "sections 12 10 10": models.small_config(text=rope(12, 10, 10, head_dim=64)),
    "sections 8 4 4, tail of 16": models.small_config(text=rope(8, 4, 4, head_dim=64)),
    "sections 6 5 5": models.small_config(text=rope(6, 5, 5, head_dim=32)),
    "sections 24 20 20": models.small_config(text=rope(24, 20, 20, head_dim=128)),
    "sections 24 20 20 of 32": models.small_config(text=rope(24, 20, 20, head_dim=64)),
    "small theta": models.small_config(text=rope(12, 10, 10, head_dim=64, theta=1e4)),
    "one key head": models.small_config(text={"num_key_value_heads": 1}),
    "no grouping": models.small_config(text={"num_key_value_heads": 4}),
    "taps out of order": models.small_config(vision={"deepstack_visual_indexes": (4, 0, 3)}),
    "one tap": models.small_config(vision={"deepstack_visual_indexes": (5,)}),
    "no tap": models.small_config(vision={"deepstack_visual_indexes": ()}),
    "as many layers as taps": models.small_config(text={"num_hidden_layers": 3}),
    "patches of 14, merge 3": models.small_config(
        vision={"patch_size": 14, "spatial_merge_size": 3, "temporal_patch_size": 1}
    ),
    "table of 5 x 5": models.small_config(vision={"num_position_embeddings": 25}),
    "some layers dense": models.small_config(
        "30b-a3b", text={"moe": MoeConfig(6, 3, 40, dense_layers=frozenset({0, 2}))}
    ),
    "tied mixture of experts": models.small_config("30b-a3b", tie_word_embeddings=True),
    "one expert of many": models.small_config("30b-a3b", text={"moe": MoeConfig(12, 1, 32)}),
}


def mixed_for(config: Any) -> Prompt:
    if config.vision.spatial_merge_size == 3:
        return models.make_prompt(config, 4, ("image", 6, 9), 3, ("video", 2, 3, 6), 9)
    return models.make_prompt(config, *MIXED)


def check_logits(folder: Path, prompts: list[Prompt]) -> None:
    mine, other = models.load_model(folder), models.load_theirs(folder)
    with torch.no_grad():
        reference = other(**models.oracle_inputs(prompts, mine.config)).logits
    for row, (prompt, logits) in enumerate(zip(prompts, models.prefill(mine, prompts), strict=True)):
        assert models.difference(logits, reference[row, -len(prompt) :]) <= models.TOLERANCE


@pytest.mark.parametrize("name", VARIANTS)
def test_other_shapes(name: str) -> None:
    check_logits(models.write(VARIANTS[name]), [mixed_for(VARIANTS[name])])


YARN = {
    "factor 2": {"factor": 2.0, "original_max_position_embeddings": 4096},
    "factor 3, official length": {"factor": 3.0, "original_max_position_embeddings": 262144},
    "factor 3, in use": {"factor": 3.0, "original_max_position_embeddings": 32},
    "own attention factor": {"factor": 2.0, "original_max_position_embeddings": 64, "attention_factor": 0.8},
    "own ramp": {"factor": 3.0, "original_max_position_embeddings": 512, "beta_fast": 20, "beta_slow": 2},
    "ramp not rounded": {"factor": 3.0, "original_max_position_embeddings": 512, "truncate": False},
}


@pytest.mark.parametrize("name", YARN)
@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_yarn(name: str, edition: str) -> None:
    config = models.small_config(edition)
    folder = models.write(config)
    scaling = {"rope_type": "yarn", "mrope_section": [12, 10, 10], "mrope_interleaved": True, **YARN[name]}
    length = int(YARN[name]["factor"] * YARN[name]["original_max_position_embeddings"])
    models.edit_config(folder, text_config={"rope_scaling": scaling, "max_position_embeddings": length})
    plain = models.prefill(models.ours(models.small_folder(edition)), [mixed_for(config)])[0]
    scaled = models.prefill(models.load_model(folder), [mixed_for(config)])[0]
    assert models.difference(scaled, plain) > 1e-3  # else the scaling would not be tested
    check_logits(folder, [mixed_for(config)])


@pytest.mark.parametrize("edition", models.EDITIONS)
def test_left_padded_batch(edition: str) -> None:
    config = models.small_config(edition)
    prompts: list[tuple[Part, ...]] = [(5, ("image", 4, 4), 3), (40,), MIXED, (1,), (("video", 2, 4, 4), 2)]
    check_logits(
        models.small_folder(edition), [models.make_prompt(config, *parts, seed=i) for i, parts in enumerate(prompts)]
    )


@pytest.mark.parametrize("edition", models.EDITIONS)
@pytest.mark.parametrize("sizes", [(1,), (7, 3, 40, 11), (64,)])
def test_chunks_are_one_shot(edition: str, sizes: tuple[int, ...]) -> None:
    model = models.ours(models.small_folder(edition))
    prompt = models.make_prompt(model.config, *MIXED)
    logits = models.prefill_in_chunks(model, prompt, models.Cached.of(model, 1, len(prompt)), sizes)
    assert models.difference(logits, models.prefill(model, [prompt])[0]) <= models.TOLERANCE


@pytest.mark.parametrize("edition", models.EDITIONS)
def test_later_turn_adds_a_picture(edition: str) -> None:
    """The cache of the first turn is continued; transformers sees the whole conversation at once."""
    model, other = models.ours(models.small_folder(edition)), models.theirs(models.small_folder(edition))
    whole = models.make_prompt(model.config, 6, ("image", 6, 10), 12, ("image", 4, 16), 8)
    cut = int((whole.input_ids_T == model.config.vision_end_token_id).nonzero()[0]) + 6
    first = Prompt(whole.input_ids_T[:cut], whole.shown[:1])
    second = Prompt(whole.input_ids_T[cut:], whole.shown[1:])
    cached = models.Cached.of(model, 1, len(whole))
    models.prefill(model, [first], cached)

    spans = models.spans_of(second, model.config)
    positions, following = mrope_positions(len(second), spans, 2, start=models.positions_of(first, model.config)[1])
    with torch.no_grad():
        logits = model(
            second.input_ids_T,
            torch.from_numpy(positions),
            cached.next([len(second)]),
            models.encode(model, [second]),
        )
        reference = other(**models.oracle_inputs([whole], model.config)).logits[0, cut:]
    assert following == models.positions_of(whole, model.config)[1]
    assert models.difference(logits, reference) <= models.TOLERANCE


def test_prompt_of_their_processor() -> None:
    """Pictures and a video as transformers' own template, processor and timestamps lay them out."""
    import numpy as np
    from PIL import Image

    model, other = models.ours(models.folder("4b")), models.theirs(models.folder("4b"))
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (90, 140, 3), dtype=np.uint8))
    video = random.integers(0, 255, (6, 3, 64, 96), dtype=np.uint8)
    content = [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "video"}, {"type": "text", "text": "?"}]
    processor = oracle.processor()
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    metadata = {"fps": 2.0, "total_num_frames": 6, "frames_indices": list(range(6))}
    inputs = processor(
        text=[text],
        images=[picture],
        videos=[torch.from_numpy(video)],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    grids = [*inputs["image_grid_thw"].tolist(), *inputs["video_grid_thw"].tolist()]
    assert [grid[0] for grid in grids] == [1, 3]
    shown = (
        models.Shown("image", tuple(grids[0]), inputs["pixel_values"]),
        models.Shown("video", tuple(grids[1]), inputs["pixel_values_videos"]),
    )
    prompt = Prompt(inputs["input_ids"][0], shown)
    spans: list[VisualSpan] = models.spans_of(prompt, model.config)
    assert len(spans) == 4 and spans[3].frame == 2
    with torch.no_grad():
        reference = other(**inputs).logits[0]
    assert models.difference(models.prefill(model, [prompt])[0], reference) <= models.TOLERANCE
