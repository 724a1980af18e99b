"""Keys and values as 8-bit numbers: what is kept, what it costs, and how far answers are off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qwen3vl.engine.memory import kv_bytes_per_token
from qwen3vl.model.attention import ForwardContext, SdpaAttention, write
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.int8_cache import Int8KVCache, quantize
from tests import models

SIZE = 8


def new_cache(num_blocks: int, block_size: int, dtype: torch.dtype = torch.float32, layers: int = 1) -> Int8KVCache:
    config = replace(models.small_config().text, num_hidden_layers=layers, num_key_value_heads=2, head_dim=SIZE)
    return Int8KVCache(config, num_blocks, block_size, dtype, [torch.device("cpu")] * layers)


def test_worked_example() -> None:
    """The numbers at the top of int8_cache.py."""
    kept, scale = quantize(torch.tensor([[0.5, -1.27, 0.004]]))
    assert kept.tolist() == [[50, -127, 0]] and kept.dtype == torch.int8
    torch.testing.assert_close(scale, torch.tensor([[0.01]]))


def test_no_value_is_off_by_more_than_half_a_step() -> None:
    torch.manual_seed(0)
    x_TKH = torch.randn(50, 2, SIZE) * torch.logspace(-6, 6, 50)[:, None, None]
    x_TKH[3, 1] = 0
    cache = new_cache(13, 4)
    cache.write(0, torch.arange(50), x_TKH, 3 * x_TKH)
    step_TK1 = x_TKH.abs().amax(-1, keepdim=True) / 127
    for factor, read_KTH in zip((1, 3), cache.read(0, (0, 50)), strict=True):
        error_TKH = (read_KTH.transpose(0, 1) - factor * x_TKH).abs()
        assert (error_TKH <= factor * step_TK1 * 0.5001).all() and error_TKH.max() > 0
    assert torch.equal(cache.read(0, (3, 4))[0][1], torch.zeros(1, SIZE))
    for gathered, read in zip(cache.gather(0, torch.tensor([7, 2])), cache.read(0, (0, 50)), strict=True):
        assert torch.equal(gathered, read[:, [7, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_of_the_models_type(dtype: torch.dtype) -> None:
    cache = new_cache(1, 4, dtype)
    cache.write(0, torch.tensor([0]), torch.ones(1, 2, SIZE, dtype=dtype), torch.ones(1, 2, SIZE, dtype=dtype))
    assert all(x.dtype == dtype and (x == 1).all() for x in cache.read(0, (0, 1)))


def test_bytes() -> None:
    cache = new_cache(3, 4, layers=2)
    config = replace(models.small_config().text, num_hidden_layers=2, num_key_value_heads=2, head_dim=SIZE)
    assert cache.num_bytes == 12 * kv_bytes_per_token(config, torch.float32, "int8") == 12 * 2 * 2 * 2 * (SIZE + 4)


def test_a_copied_block_has_its_scales() -> None:
    cache = new_cache(3, 2, layers=2)
    x = torch.arange(1, 7.0)[:, None, None].expand(6, 2, SIZE)
    for layer in range(2):
        cache.write(layer, torch.arange(6), x, -x)
    cache.copy_block(2, 0)
    assert cache.read(1, (0, 6))[1][0, :, 0].tolist() == pytest.approx([-5, -6, -3, -4, -5, -6])


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 7])
def test_attention_is_that_over_what_is_read(scattered: bool, num_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 tokens read 13 at a time: more pieces than are joined at once; and never more than 13 of them made."""
    monkeypatch.setattr("qwen3vl.model.cache.MOST_COPIED", 13)
    torch.manual_seed(0)
    table = BlockTable(4, range(99, -1, -2) if scattered else range(50))
    cache, past = new_cache(100, 4), 200 - num_tokens
    k, v = (torch.randn(200, 2, SIZE) for _ in range(2))
    q = torch.randn(num_tokens, 4, SIZE)
    cache.write(0, torch.from_numpy(table.slots(0, past)), k[:past], v[:past])
    widest: list[int] = []
    widen = cache._widen
    monkeypatch.setattr(cache, "_widen", lambda x, s: (widest.append(x.shape[1]), widen(x, s))[1])
    context = ForwardContext.paged(cache, [(table, past, num_tokens)])
    write(context, 0, k[past:], v[past:])
    out = SdpaAttention().cached(q, k[past:], v[past:], context, 0)
    assert max(widest) == 13
    seen = [x.clone() for x in cache.gather(0, torch.from_numpy(table.slots(0, 200)))]
    if num_tokens > 1:  # a chunk's own keys and values are used as they were computed
        for kept, own in zip(seen, (k, v), strict=True):
            kept[:, past:] = own[past:].transpose(0, 1)
    for i in range(num_tokens):
        keys, values = (x[:, : past + i + 1].repeat_interleave(2, 0) for x in seen)
        weights = (q[i, :, None] @ keys.transpose(1, 2) * SIZE**-0.5).softmax(-1)
        torch.testing.assert_close(out[i], (weights @ values)[:, 0], atol=1e-5, rtol=1e-5)


def error(logits_TV: Tensor, exact_TV: Tensor) -> tuple[float, float]:
    """-> (root mean square error over the logits' spread, of the median token; share of equal top-1)."""
    spread_T = (logits_TV - exact_TV).square().mean(-1).sqrt() / exact_TV.std(-1)
    return spread_T.median().item(), (logits_TV.argmax(-1) == exact_TV.argmax(-1)).float().mean().item()


@pytest.mark.parametrize(("edition", "most", "least_same"), [("4b", 5, 0.9), ("30b-a3b", 15, 0.6)])
@torch.no_grad()
def test_error_of_answers(edition: str, most: float, least_same: float) -> None:
    """Against a float32 cache, on random weights, whose logits are close to each other: docs/engine.md has the numbers.

    In a mixture of experts a small error now and then sends a token to another expert.
    """
    model = models.ours(models.small_folder(edition))
    prompt = models.make_prompt(model.config, 60, ("image", 8, 8), 150)

    def logits(cache: PagedKVCache) -> Tensor:
        cached = models.Cached(cache, [BlockTable(16, range(16))], [0])
        return models.prefill_in_chunks(model, prompt, cached, [7])

    exact = logits(model.new_cache(16))
    rounded, same = error(logits(model.new_cache(16, kv_dtype="int8")), exact)
    yardstick, _ = error(logits(model.new_cache(16, kv_dtype="bfloat16")), exact)
    print(f"\n{edition}: int8 {rounded:.4f} of the spread, top-1 {same:.1%}; bfloat16 {yardstick:.4f}")
    assert yardstick < rounded < most * yardstick
    assert same > least_same
