"""The engine's own tests once more, with every model on a CUDA device: the reference's tokens, and deterministic."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import pytest
import torch

from qwen3vl.engine.memory import default_kv_memory, free_cuda_memory
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import deterministic_models, models
from tests.engine import driving, test_deterministic_engine
from tests.engine.test_deterministic_engine import *  # noqa: F403
from tests.engine.test_engine import *  # noqa: F403

DEVICE = "cuda"
_CACHES = (driving.model, driving.expected, test_deterministic_engine.load, test_deterministic_engine.alone)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@cache
def on_device(path: object) -> Qwen3VL:
    return load_model(path, device=DEVICE)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _models_on_the_device() -> Iterator[None]:
    """Whatever loads a model in the tests above gets it there; nothing of it stays for tests on the CPU."""
    for cached in _CACHES:
        cached.cache_clear()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "ours", on_device)
        for module in (deterministic_models, test_deterministic_engine):
            patch.setattr(module, "load_model", partial(load_model, device=DEVICE))
        yield
    torch.backends.cuda.matmul.allow_tf32 = tf32
    for cached in _CACHES:
        cached.cache_clear()


def test_the_models_are_there() -> None:
    assert driving.model().device.type == DEVICE
    assert test_deterministic_engine.load("4b", torch.float32).device.type == DEVICE


@torch.no_grad()
def test_int8_cache_equals_the_cpus() -> None:
    pools = []
    for device in ("cpu", DEVICE):
        cache = load_model(models.small_folder("4b"), device=device).new_cache(4, 16, "int8")
        table = BlockTable(16, (2, 0, 3))
        x = torch.randn(40, 2, 64, generator=torch.Generator().manual_seed(0)).to(device)
        cache.write(1, torch.from_numpy(table.slots(0, 40)), x, 2 * x)
        pools.append([part.cpu() for part in cache.gather(1, torch.from_numpy(table.slots(0, 40)))])
    for ours, theirs in zip(*pools, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.03, rtol=0)  # halves may round to either side


def test_memory_that_is_free() -> None:
    device = torch.device(DEVICE, 0)
    free = free_cuda_memory(device)
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    assert free_cuda_memory(device) <= free - 2**27
    del held
    assert 0 < default_kv_memory([device] * 4) < free + 2**28
