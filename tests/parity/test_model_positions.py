"""Position ids are transformers' get_rope_index for every mixture of text, pictures and videos."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import models
from tests.models import Part

MIXTURES: dict[str, tuple[Part, ...]] = {
    "text": (17,),
    "picture first": (("image", 4, 6), 3),
    "picture last": (3, ("image", 4, 6)),
    "only a picture of one token": (("image", 2, 2),),
    "strips": (1, ("image", 2, 64), 1, ("image", 64, 2), 1),
    "two pictures, nothing between": (("image", 4, 4), ("image", 2, 8)),
    "video": (2, ("video", 4, 6, 8), 5),
    "one frame": (2, ("video", 1, 6, 8), 5),
    "videos": (("video", 2, 4, 4), ("video", 3, 2, 6), 1),
    "picture, video, picture": (2, ("image", 6, 4), 1, ("video", 2, 4, 8), 9, ("image", 2, 4), 2),
    "video, picture, video": (("video", 2, 8, 2), 1, ("image", 10, 4), ("video", 2, 2, 2)),
}


def both(prompts: list[models.Prompt]) -> tuple[list[torch.Tensor], torch.Tensor, list[int], torch.Tensor]:
    """-> (our positions, theirs_3BT), (our next positions, their deltas)."""
    other = models.theirs(models.small_folder("4b")).model
    config = models.ours(models.small_folder("4b")).config
    inputs = models.oracle_inputs(prompts, config)
    keep = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw", "video_grid_thw")
    positions, deltas = other.get_rope_index(**{name: inputs[name] for name in keep if name in inputs})
    mine = [models.positions_of(prompt, config) for prompt in prompts]
    return [m for m, _ in mine], positions, [n for _, n in mine], deltas


def check(prompts: list[models.Prompt]) -> None:
    mine, theirs, following, deltas = both(prompts)
    for row, prompt in enumerate(prompts):
        assert torch.equal(mine[row], theirs[:, row, -len(prompt) :])
        assert following[row] == len(prompt) + int(deltas[row])


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture(name: str) -> None:
    check([models.make_prompt(models.small_config(), *MIXTURES[name])])


def test_left_padded_batch_of_all() -> None:
    check([models.make_prompt(models.small_config(), *parts) for parts in MIXTURES.values()])


side = st.integers(1, 8).map(lambda n: 2 * n)
parts = st.lists(
    st.one_of(
        st.integers(1, 20),
        st.tuples(st.just("image"), side, side),
        st.tuples(st.just("video"), st.integers(1, 4), side, side),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(parts)
def test_any_mixture(parts: list[Part]) -> None:
    check([models.make_prompt(models.small_config(), *parts)])


def test_with_other_merge_size() -> None:
    config = models.small_config(vision={"spatial_merge_size": 3})
    prompt = models.make_prompt(config, 3, ("image", 6, 12), 2, ("video", 2, 3, 9), 4)
    inputs = models.oracle_inputs([prompt], config)
    other = models.load_theirs(models.write(config)).model
    keep = ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw", "video_grid_thw")
    positions, _ = other.get_rope_index(**{name: inputs[name] for name in keep})
    assert torch.equal(models.positions_of(prompt, config)[0], positions[:, 0])
