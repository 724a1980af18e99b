"""Prompts of tests.models as ModelInputs, and greedy answers through a Runner."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.conversation import Conversation
from qwen3vl.engine.conversation import ConversationRunner as Runner
from qwen3vl.engine.sequence import Prompt
from qwen3vl.inputs import ModelInputs, Patches, Visual
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


def greedy(runner: Runner, sequence: Conversation, inputs: ModelInputs, num_tokens: int) -> tuple[list[int], int]:
    """-> the answer, and how many tokens of the prompt the cache had. All but the last token end in the cache."""
    prefilled = runner.prefill(sequence, Prompt.of(inputs, runner.model.config))
    answer = [int(prefilled.logits_V.argmax())]
    while len(answer) < num_tokens:
        answer.append(int(runner.decode([sequence], answer[-1:])[0].argmax()))
    return answer, prefilled.num_cached_tokens
