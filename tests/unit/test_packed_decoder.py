"""The layers of a quantised model in one call of the kernels, against the same layers one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor

from qwen3vl.kernels.cpu.library import library
from qwen3vl.model.attention import ForwardContext, SdpaAttention
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.packed_decoder import MOST_TOKENS, PackedDecoder
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_model import random_model
from qwen3vl.settings import KvDtype
from tests import models

NUM_TOKENS = (5, 1, 7)  # of three sequences, behind 20, 33 and 0


@pytest.fixture(autouse=True)
def _kernels() -> Iterator[None]:
    kernels = library()
    if kernels is None or kernels.qwen3vl_isa() == b"plain":
        pytest.skip("the kernels were not built for this CPU")
    with torch.inference_mode():
        yield


def new_model(bits: Literal[4, 8] = 4) -> Qwen3VL:
    return random_model(models.small_config("4b"), quantize=Quantization(bits))


def new_pass(model: Qwen3VL, kv_dtype: KvDtype | None = None) -> tuple[PagedKVCache, ForwardContext]:
    cache = model.new_cache(16, 16, kv_dtype)
    tables = [BlockTable(16, blocks) for blocks in ((3, 1), (0, 2, 9), (5,))]
    past = [(table, 0, n) for table, n in zip(tables, (20, 33, 0), strict=True) if n]
    run(model, ForwardContext.paged(cache, past), seed=1)
    return cache, ForwardContext.paged(cache, list(zip(tables, (20, 33, 0), NUM_TOKENS, strict=True)))


def run(model: Qwen3VL, context: ForwardContext, seed: int = 0) -> Tensor:
    n = context.num_tokens
    generator = torch.Generator().manual_seed(seed)
    ids_T = torch.randint(1000, (n,), generator=generator)
    return model(ids_T, torch.randint(200, (3, n), generator=generator), context)


def one_by_one(model: Qwen3VL, context: ForwardContext, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(PackedDecoder, "takes", staticmethod(lambda *_: False))
        return run(model, context)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kv_dtype", ["model", "bfloat16", "int8"])
def test_same_bits_and_same_cache(
    bits: Literal[4, 8], kv_dtype: KvDtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model(bits)
    cache, context = new_pass(model, kv_dtype)
    slots_S = torch.cat([torch.arange(start, end) for s in context.segments for start, end in s.runs])
    expected = one_by_one(model, context, monkeypatch)
    held = [x.clone() for layer in range(len(model.language_model.layers)) for x in cache.gather(layer, slots_S)]
    again, context = new_pass(model, kv_dtype)
    calls: list[int] = []
    whole = PackedDecoder.run
    monkeypatch.setattr(PackedDecoder, "run", lambda self, *args: (calls.append(1), whole(self, *args))[1])
    assert torch.equal(run(model, context), expected) and len(calls) == 1
    assert torch.equal(one_by_one(model, new_pass(model, kv_dtype)[1], monkeypatch), expected)
    for layer, (k, v) in enumerate(zip(held[::2], held[1::2], strict=True)):
        assert all(torch.equal(mine, x) for mine, x in zip(again.gather(layer, slots_S), (k, v), strict=True))


def test_keys_and_values_are_rounded_where_weights_are() -> None:
    packed, plain = new_model(4), models.ours(models.small_folder("4b"))
    assert (packed.usual_kv_dtype, plain.usual_kv_dtype) == ("bfloat16", "model")
    kept = [model.new_cache(2).slots(0, torch.zeros(0, dtype=torch.int64)).keys_KXH.dtype for model in (packed, plain)]
    assert kept == [torch.bfloat16, torch.float32]
    k_KSH, _ = packed.new_cache(2).read(0, (0, 3))
    assert k_KSH.dtype == torch.float32, "as the model computes"


def test_what_goes_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody looks into a layer, another attention, many tokens, a model that is not quantised, gradients."""
    model = new_model()
    _, context = new_pass(model)
    layers, x = model.language_model.layers, torch.zeros(3, 96)
    assert PackedDecoder.takes(layers, x, context)
    seen: list[Tensor] = []
    handle = layers[1].register_forward_hook(lambda module, given, out: seen.append(out))
    run(model, context)
    assert len(seen) == 1
    handle.remove()
    assert PackedDecoder.takes(layers, x, context)
    assert not PackedDecoder.takes(layers, torch.zeros(MOST_TOKENS + 1, 96), context)
    assert not PackedDecoder.takes(layers, x.bfloat16(), context)
    with torch.inference_mode(False), torch.enable_grad():
        assert not PackedDecoder.takes(layers, x, context)
    layers[1].self_attn.attention = SdpaAttention()
    assert not PackedDecoder.takes(layers, x, context)
    ordinary = random_model(models.small_config("4b"), dtype=torch.float32)
    assert not PackedDecoder.takes(ordinary.language_model.layers, x, new_pass(ordinary)[1])


def test_altered_layers_are_not_taken_for_ordinary_ones() -> None:
    model = new_model()
    cache, _ = new_pass(model)
    assert PackedDecoder.knows(model.language_model.layers, cache)
    model.language_model.layers[1].self_attn.k_norm = torch.nn.Identity()
    assert not PackedDecoder.knows(model.language_model.layers, cache)


def test_copies_make_their_own() -> None:
    model = new_model()
    _, context = new_pass(model)
    expected = run(model, context)
    assert model.language_model._decoder is not None
    copied = copy.deepcopy(model)
    assert copied.language_model._decoder is None
    del model
    assert torch.equal(run(copied, new_pass(copied)[1]), expected)
