"""The reference itself, against transformers and against its own parts."""

from __future__ import annotations

import pytest
import torch

from qwen3vl import reference
from tests import models
from tests.engine.prompts import as_inputs
from tests.models import difference


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_tokens_of_transformers(edition: str) -> None:
    folder = models.small_folder(edition)
    model = models.ours(folder)
    prompt = models.make_prompt(model.config, 4, ("image", 4, 6), 3, ("video", 2, 4, 4), 5)
    expected = models.their_greedy(models.theirs(folder), [prompt], model.config, 24)[0]
    assert reference.generate_greedy(model, as_inputs(prompt, model.config), 24) == expected


def test_an_end_token_is_the_last() -> None:
    model = models.ours(models.small_folder("4b"))
    inputs = as_inputs(models.make_prompt(model.config, 9), model.config)
    answer = reference.generate_greedy(model, inputs, 10)
    end = answer[4]
    assert reference.generate_greedy(model, inputs, 10, {end}) == answer[: answer.index(end) + 1]


def test_logits_of_the_answer_follow_from_the_prompt() -> None:
    model = models.ours(models.small_folder("4b"))
    prompt = models.make_prompt(model.config, 4, ("image", 4, 6), 3)
    inputs = as_inputs(prompt, model.config)
    logits_TV = reference.all_logits(model, inputs, [5, 6, 7])
    assert len(logits_TV) == len(prompt) + 3
    longer = models.Prompt(torch.cat([prompt.input_ids_T, torch.tensor([5, 6, 7])]), prompt.shown)
    assert difference(logits_TV, models.prefill(model, [longer])[0]) < models.TOLERANCE
