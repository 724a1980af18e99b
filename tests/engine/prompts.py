"""Prompts of tests.models as ModelInputs, and sequences alone in a cache of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.runner import Runner
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.sequence import Sequence as Answer
from qwen3vl.inputs import ModelInputs, Patches, Visual
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.types import MediaReceipt
from tests import models
from tests.models import Shown


def as_inputs(prompt: models.Prompt, config: ModelConfig) -> ModelInputs:
    visuals = tuple(_visual(shown, config.vision.spatial_merge_size) for shown in prompt.shown)
    return ModelInputs(prompt.input_ids_T.numpy(), visuals, tuple(models.spans_of(prompt, config)))


def make_inputs(config: ModelConfig, *parts: models.Part, seed: int = 0) -> ModelInputs:
    """See tests.models.make_prompt."""
    return as_inputs(models.make_prompt(config, *parts, seed=seed), config)


def joined(config: ModelConfig, *prompts: models.Prompt, answers: Sequence[Sequence[int]] = ()) -> ModelInputs:
    """A conversation: prompt, answer, prompt, answer, ..., prompt."""
    ids = [prompts[0].input_ids_T]
    for answer, prompt in zip(answers, prompts[1:], strict=True):
        ids += [torch.tensor(answer), prompt.input_ids_T]
    shown = tuple(shown for prompt in prompts for shown in prompt.shown)
    return as_inputs(models.Prompt(torch.cat(ids), shown), config)


def _visual(shown: Shown, merge_size: int) -> Visual:
    patches = shown.patches_PC.numpy()
    digest = hashlib.sha256(np.ascontiguousarray(patches).tobytes() + repr(shown.grid_thw).encode()).hexdigest()
    receipt = MediaReceipt(shown.kind, "<test>", digest, (0, 0), (0, 0), shown.grid_thw, len(patches) // merge_size**2)
    return Visual(shown.kind, Patches(patches), shown.grid_thw, receipt)


def alone(model: Qwen3VL, prompt: Prompt, room: int = 1) -> tuple[Runner, Answer]:
    """A runner with a cache for one sequence and `room` tokens behind it."""
    num_blocks = -(-(prompt.num_tokens + room) // 16)
    return Runner(model, model.new_cache(num_blocks)), Answer(prompt, BlockTable(16, range(num_blocks)))


def greedy(model: Qwen3VL, inputs: ModelInputs, num_tokens: int, max_tokens: int = 2048) -> list[int]:
    """The answer; the prompt goes through in passes of at most `max_tokens`."""
    runner, sequence = alone(model, Prompt.of(inputs, model.config), num_tokens)
    sequence.answer_ids.append(int(runner.read(sequence, max_tokens).argmax()))
    while len(sequence.answer_ids) < num_tokens:
        sequence.answer_ids.append(int(runner.decode([sequence])[0].argmax()))
    return sequence.answer_ids
