"""Tiny deterministic models for the tests of what determinism promises.

kinds          marks a test to be run with every edition and dtype
load           the model of one of them
short_blocks   a fixture to be imported: prompts of some tens of tokens then have several blocks of keys in torch
by_torch       a fixture to be imported: without the kernels for attention
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from qwen3vl.kernels.cpu import attention as kernels
from qwen3vl.model import tile_attention
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.deterministic import make_deterministic
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models

KINDS = [("4b", torch.float32), ("4b", torch.bfloat16), ("30b-a3b", torch.float32), ("30b-a3b", torch.bfloat16)]
kinds = pytest.mark.parametrize(("edition", "dtype"), KINDS)


@pytest.fixture(scope="module", autouse=True)
def short_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_attention, "BLOCK", 32)
        yield


@pytest.fixture(scope="module", autouse=True)
def by_torch() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "can_attend", lambda *_: False)
        yield


@cache
def load(edition: str, dtype: torch.dtype) -> Qwen3VL:
    model = load_model(models.small_folder(edition), dtype=dtype)
    make_deterministic(model)
    return model
