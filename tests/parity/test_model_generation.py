"""64 greedy tokens are those of transformers' generate, one by one and in padded batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3vl.config import ModelConfig
from tests import models
from tests.models import Part, Prompt

CASES: dict[str, list[tuple[Part, ...]]] = {
    "one picture": [(6, ("image", 8, 12), 9)],
    "several pictures": [(3, ("image", 2, 2), 4, ("image", 14, 6), 2, ("image", 6, 6), 7)],
    "no picture": [(25,)],
    "video": [(2, ("video", 3, 4, 6), 9)],
    "padded batch": [(5, ("image", 4, 10), 3), (31,), (2, ("image", 6, 6), ("video", 2, 4, 4), 8)],
}

# Among many prompts of these parts, those where two tokens come closest: even another kind of GELU turns one.
NEAR_TIES: tuple[Part, ...] = (3, ("image", 8, 6), 2, ("image", 6, 4), 2)
NEAR_TIE_SEEDS = (10, 23, 35, 77, 84, 88)


def prompts_of(case: str, config: ModelConfig) -> list[Prompt]:
    if case == "near ties":
        return [models.make_prompt(config, *NEAR_TIES, seed=seed) for seed in NEAR_TIE_SEEDS]
    return [models.make_prompt(config, *parts, seed=i) for i, parts in enumerate(CASES[case])]


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("case", [*CASES, "near ties"])
def test_greedy_tokens(case: str, edition: str) -> None:
    check(models.small_folder(edition), case)


def test_greedy_tokens_of_the_untied_model() -> None:
    check(models.small_folder("8b"), "padded batch")


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_greedy_tokens_with_the_whole_vocabulary(edition: str) -> None:
    check(models.folder(edition), "several pictures")


def check(folder: Path, case: str) -> None:
    mine, other = models.ours(folder), models.theirs(folder)
    prompts = prompts_of(case, mine.config)
    tokens = models.greedy(mine, prompts, 64)
    assert all(len(set(answer)) > 16 for answer in tokens)  # a model that repeats itself tests nothing
    assert tokens == models.their_greedy(other, prompts, mine.config, 64)
