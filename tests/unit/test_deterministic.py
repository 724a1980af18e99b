"""A deterministic model gives a token the same bits, however its prompt is cut and whatever runs beside it.

Attention is torch's tiles here; tests/engine/test_deterministic_engine.py has the kernels'.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from qwen3vl.errors import UnsupportedOption
from qwen3vl.kernels.cpu import attention as kernels
from qwen3vl.kernels.cpu.attention import can_attend
from qwen3vl.model import deterministic, tile_attention
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.deterministic import exact_silu, make_deterministic
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.tile_attention import runs_between
from qwen3vl.model.vision import VisualFeatures
from qwen3vl.settings import KvDtype
from tests import models
from tests.deterministic_models import by_torch, kinds, load, short_blocks  # noqa: F401
from tests.models import Cached


@cache
def prompts(edition: str) -> list[models.Prompt]:
    """Of 79, 20 and 78 tokens: the first and last reach over two blocks of keys."""
    config = models.small_config(edition)
    parts: list[Sequence[models.Part]] = [(30, ("image", 4, 6), 41), (20,), (7, ("video", 2, 4, 4), 52)]
    return [models.make_prompt(config, *part, seed=i) for i, part in enumerate(parts)]


@cache
def alone(edition: str, dtype: torch.dtype, index: int) -> Tensor:
    """All logits of a prompt in one pass, without a cache."""
    return models.prefill(load(edition, dtype), [prompts(edition)[index]])[0]


def in_chunks(
    model: Qwen3VL,
    prompt: models.Prompt,
    sizes: Sequence[int],
    block_size: int = 16,
    kv_dtype: KvDtype | None = None,
) -> Tensor:
    cached = Cached.of(model, 1, len(prompt), block_size)
    cached.cache = model.new_cache(cached.cache.num_blocks, block_size, kv_dtype)
    return models.prefill_in_chunks(model, prompt, cached, sizes)


@kinds
@pytest.mark.parametrize("sizes", [[29], [1, 31, 3, 16]])
def test_however_a_prompt_is_cut(edition: str, dtype: torch.dtype, sizes: list[int]) -> None:
    assert torch.equal(in_chunks(load(edition, dtype), prompts(edition)[0], sizes), alone(edition, dtype, 0))


@pytest.mark.parametrize("by_kernels", [False, True])
def test_blocks_of_true_size(by_kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 tokens reach into the second block of 256, and into the kernels' third of 128."""
    monkeypatch.setattr(tile_attention, "BLOCK", 256)
    if by_kernels:
        monkeypatch.setattr(kernels, "can_attend", can_attend)
    model = load_model(models.small_folder("4b"))
    make_deterministic(model)
    prompt = models.make_prompt(model.config, 300)
    whole, cut = (in_chunks(model, prompt, sizes) for sizes in ([300], [97]))
    assert torch.equal(whole, cut) and torch.equal(whole, models.prefill(model, [prompt])[0])


@kinds
def test_in_company(edition: str, dtype: torch.dtype) -> None:
    """Three prompts as one batch, their blocks in between each other's and scattered over many runs."""
    model, ask = load(edition, dtype), prompts(edition)
    together = models.prefill(model, ask, Cached.of(model, 3, 80, block_size=8))
    for i, logits in enumerate(together):
        assert torch.equal(logits, alone(edition, dtype, i)), i
    one_run = in_chunks(model, ask[2], [100], block_size=512)
    assert torch.equal(one_run, alone(edition, dtype, 2))


@kinds
@torch.no_grad()
def test_decoding_in_company_is_reading(edition: str, dtype: torch.dtype) -> None:
    """The last four tokens of two prompts one by one, while a third is read: the logits of whole prompts."""
    model, ask = load(edition, dtype), prompts(edition)
    cached = Cached.of(model, 3, 80)
    done = [0, 0, 0]

    def step(*lengths: int) -> dict[int, Tensor]:
        """-> sequence -> its logits."""
        active = [i for i in range(3) if lengths[i]]
        spans = {i: slice(done[i], done[i] + lengths[i]) for i in active}
        ids = torch.cat([ask[i].input_ids_T[spans[i]] for i in active])
        where = torch.cat([models.positions_of(ask[i], model.config)[0][:, spans[i]] for i in active], 1)
        shown = [models.encode(model, [ask[i]]) for i in active if done[i] == 0 and ask[i].shown]
        context = ForwardContext.paged(cached.cache, [(cached.tables[i], done[i], lengths[i]) for i in active])
        logits = model(ids, where, context, VisualFeatures.join(shown) if shown else None)
        for i in active:
            done[i] += lengths[i]
        return dict(zip(active, logits.split([lengths[i] for i in active]), strict=True))

    step(len(ask[0]) - 4, len(ask[1]) - 4, 0)
    for place in range(-4, 0):
        logits = step(1, 1, len(ask[2]) if place == -3 else 0)
        for i in range(2):
            assert torch.equal(logits[i][0], alone(edition, dtype, i)[place])
        if place == -3:
            assert torch.equal(logits[2], alone(edition, dtype, 2))


@kinds
def test_close_to_the_ordinary_model(edition: str, dtype: torch.dtype) -> None:
    ordinary = load_model(models.small_folder(edition), dtype=torch.float32)
    expected = models.prefill(ordinary, [prompts(edition)[1]])[0]
    error = (alone(edition, dtype, 1).float() - expected).square().mean().sqrt() / expected.std()
    assert error < (1e-5 if dtype == torch.float32 else 0.05 if edition == "4b" else 0.5)


def test_the_ordinary_model_is_not() -> None:
    """The tests above can fail: without the tiles, cutting a prompt changes bits."""
    model, prompt = models.ours(models.small_folder("4b")), prompts("4b")[0]
    assert not torch.equal(in_chunks(model, prompt, [29]), models.prefill(model, [prompt])[0])


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_narrow_caches(kv_dtype: KvDtype) -> None:
    model, prompt = load("4b", torch.float32), prompts("4b")[0]
    whole, *cut = (in_chunks(model, prompt, sizes, kv_dtype=kv_dtype) for sizes in ([100], [1, 60], [29]))
    assert all(torch.equal(whole, each) for each in cut)
    assert not torch.equal(whole, alone("4b", torch.float32, 0))


def test_runs_between() -> None:
    """The example of its docstring, and both ends."""
    runs = ((20, 28), (8, 12))
    assert list(runs_between(runs, 6, 10)) == [(26, 28), (8, 10)]
    assert list(runs_between(runs, 0, 8)) == [(20, 28)] and list(runs_between(runs, 11, 12)) == [(11, 12)]
    table = BlockTable(4, (5, 6, 2))
    for start, end in ((0, 12), (3, 9), (7, 8)):
        slots = [slot for run in runs_between(table.runs(12), start, end) for slot in range(*run)]
        assert slots == table.slots(start, end).tolist()


def test_silu() -> None:
    x = torch.cat((torch.linspace(-120, 120, 997), torch.tensor([0.0, -0.0])))
    torch.testing.assert_close(exact_silu(x), torch.nn.functional.silu(x), rtol=1e-5, atol=1e-30)
    assert all(
        torch.equal(exact_silu(x[i : i + n].clone()), exact_silu(x)[i : i + n]) for i in range(40) for n in (1, 9)
    )


def test_another_number_of_threads_is_refused() -> None:
    model, threads = load("4b", torch.float32), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(UnsupportedOption, match=f"checked with {threads} threads, but torch now has {threads + 1}"):
            models.prefill(model, prompts("4b")[1:2])
    finally:
        torch.set_num_threads(threads)


def test_what_does_not_hold_on_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(models.small_folder("4b"))
    linear = deterministic.F.linear
    with monkeypatch.context() as patch:
        patch.setattr(torch, "bmm", lambda a, b: a @ b + 1e-7 * torch.arange(a.shape[1])[:, None])
        patch.setattr(tile_attention, "_CHECKED", {})
        with pytest.raises(UnsupportedOption, match="attention with 2 heads of 64 depends on its place among 16 rows"):
            make_deterministic(model)
    with monkeypatch.context() as patch:
        patch.setattr(deterministic.F, "linear", lambda x, w: linear(x, w) + 1e-7 * torch.arange(len(x))[:, None])
        with pytest.raises(UnsupportedOption, match=r"q_proj \(256 x 96, float32\) depends on its place among 8 rows"):
            make_deterministic(model)
    with monkeypatch.context() as patch:
        exp = torch.exp
        patch.setattr(torch, "exp", lambda x: exp(x) * (1 + 1e-6 * (torch.arange(len(x)) % 8 == 7)))
        with pytest.raises(UnsupportedOption, match=r"torch\..* of an element depends on its place"):
            make_deterministic(model)


def test_other_attention_is_refused() -> None:
    model = load_model(models.small_folder("4b"))
    model.language_model.layers[0].self_attn.attention = object()  # type: ignore[union-attr, assignment]
    with pytest.raises(UnsupportedOption, match="goes with torch's own attention only"):
        make_deterministic(model)
