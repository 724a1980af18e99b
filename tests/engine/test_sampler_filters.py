"""Filters against transformers' logits processors: random, tied, infinite and extreme logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as hf

from qwen3vl.engine import filters
from qwen3vl.types import SamplingParams
from tests.engine.sampling import drawn_from

KINDS = ("normal", "bf16", "tied", "masked", "extreme", "flat", "peaked")
NO_IDS = torch.zeros(1, 0, dtype=torch.long)


def make_logits(kind: str, B: int, V: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(B, V, generator=g) * 3
    match kind:
        case "bf16":  # what a bfloat16 model gives: ties among the likeliest tokens
            x = (x * 4).bfloat16().float()
        case "tied":
            x = torch.randint(-2, 3, (B, V), generator=g).float()
        case "masked":
            x[torch.rand(B, V, generator=g) < 0.7] = -math.inf
            x[:, V // 2] = 0.5
        case "extreme":
            x = x * 1e4
        case "flat":
            x = torch.zeros(B, V)
        case "peaked":
            x[:, V // 3] = 60.0
    return x


logits = st.builds(
    make_logits,
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.sampled_from([2, 3, 7, 32, 257, 2000]),
    st.integers(0, 2**16),
)
some_p = st.one_of(st.sampled_from([0.2, 0.5, 0.8, 0.95]), st.floats(0.001, 0.9999))


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@settings(max_examples=100, deadline=None)
@given(logits, st.floats(0.05, 3.0), st.integers(0, 99))
def test_repetition_penalty(logits_BV: Tensor, penalty: float, seed: int) -> None:
    B, V = logits_BV.shape
    ids_BT = torch.randint(0, V, (B, 9), generator=torch.Generator().manual_seed(seed))
    seen_BV = torch.zeros(B, V, dtype=torch.bool).scatter(1, ids_BT, True)
    expected = hf.RepetitionPenaltyLogitsProcessor(penalty)(ids_BT, logits_BV)
    assert_same(filters.penalise_repetition(logits_BV, seen_BV, penalty), expected)


@settings(max_examples=60, deadline=None)
@given(logits, st.floats(0.05, 5.0))
def test_temperature(logits_BV: Tensor, temperature: float) -> None:
    expected = hf.TemperatureLogitsWarper(temperature)(NO_IDS, logits_BV)
    assert_same(filters.scale_temperature(logits_BV, temperature), expected)


@settings(max_examples=100, deadline=None)
@given(logits, st.integers(1, 3000))
def test_top_k(logits_BV: Tensor, k: int) -> None:
    assert_same(filters.filter_top_k(logits_BV, k), hf.TopKLogitsWarper(k)(NO_IDS, logits_BV))


@settings(max_examples=100, deadline=None)
@given(logits, some_p)
def test_top_p(logits_BV: Tensor, p: float) -> None:
    assert_same(filters.filter_top_p(logits_BV, p), hf.TopPLogitsWarper(p)(NO_IDS, logits_BV))


@settings(max_examples=100, deadline=None)
@given(logits, st.one_of(st.sampled_from([0.0, 1.0]), some_p))
def test_min_p(logits_BV: Tensor, p: float) -> None:
    assert_same(filters.filter_min_p(logits_BV, p), hf.MinPLogitsWarper(p)(NO_IDS, logits_BV))


def test_suppress_is_min_new_tokens() -> None:
    logits_BV = make_logits("normal", 2, 50, 0)
    expected = hf.MinNewTokensLengthLogitsProcessor(4, 2, [3, 49])(torch.zeros(2, 5, dtype=torch.long), logits_BV)
    assert_same(filters.suppress(logits_BV, torch.tensor([3, 49])), expected)


def test_rows_may_differ() -> None:
    logits_BV = make_logits("bf16", 4, 300, 5)
    seen_BV = make_logits("normal", 4, 300, 6) > 0
    cases: list[tuple[Any, list[float]]] = [
        (lambda x, v: filters.penalise_repetition(x, seen_BV[: len(x)], v), [1.0, 1.5, 0.5, 2.0]),
        (filters.scale_temperature, [0.5, 1.0, 2.0, 0.7]),
        (filters.filter_top_p, [0.5, 0.9, 0.1, 0.999]),
        (filters.filter_min_p, [0.0, 0.5, 0.01, 1.0]),
    ]
    for function, values in cases[1:]:
        got = function(logits_BV, torch.tensor(values))
        assert_same(got, torch.cat([function(logits_BV[i : i + 1], v) for i, v in enumerate(values)]))
    ks = [1, 20, 300, 5000]
    got = filters.filter_top_k(logits_BV, torch.tensor(ks))
    assert_same(got, torch.cat([filters.filter_top_k(logits_BV[i : i + 1], k) for i, k in enumerate(ks)]))
    penalties = cases[0][1]
    got = filters.penalise_repetition(logits_BV, seen_BV, torch.tensor(penalties))
    rows = [filters.penalise_repetition(logits_BV[i : i + 1], seen_BV[i : i + 1], p) for i, p in enumerate(penalties)]
    assert_same(got, torch.cat(rows))


def hf_warpers(params: SamplingParams) -> hf.LogitsProcessorList:
    warpers = hf.LogitsProcessorList()
    if params.temperature != 1:
        warpers.append(hf.TemperatureLogitsWarper(params.temperature))
    if params.top_k is not None:
        warpers.append(hf.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(hf.TopPLogitsWarper(params.top_p))
    if params.min_p is not None:
        warpers.append(hf.MinPLogitsWarper(params.min_p))
    return warpers


sampling = st.builds(
    SamplingParams,
    temperature=st.one_of(st.just(1.0), st.floats(0.1, 3.0)),
    top_k=st.one_of(st.none(), st.integers(1, 60)),
    top_p=st.one_of(st.just(1.0), some_p),
    min_p=st.one_of(st.none(), some_p),
)


def candidates(scores_V: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """What the engine's sampler draws from, of scores that have their temperature applied."""
    plain = replace(params, temperature=1.0)
    ids_K = torch.from_numpy(drawn_from(scores_V, plain)[0])
    return ids_K, scores_V[ids_K]


def assert_warps_like_transformers(logits_BV: Tensor, params: SamplingParams) -> None:
    """`warp` keeps transformers' tokens always; the engine except in close calls, and then the same of a tie."""
    expected = hf_warpers(params)(NO_IDS, logits_BV)
    assert_same(filters.warp(logits_BV, params), expected)
    for scores_V, expected_V in zip(logits_BV / params.temperature, expected, strict=True):
        ids_K, scores_K = candidates(scores_V, params)
        ours, theirs = ids_K[scores_K > -math.inf], expected_V.isfinite().nonzero()[:, 0]
        if (params.top_k is params.min_p is None and params.top_p == 1) or filters._likely_enough(scores_V, params)[1]:
            assert ours.tolist() == theirs.tolist()
        elif len(ours) == len(theirs):
            assert scores_V[ours].sort().values.tolist() == scores_V[theirs].sort().values.tolist()


@settings(max_examples=250, deadline=None)
@given(logits, sampling)
def test_all_warpers_in_order(logits_BV: Tensor, params: SamplingParams) -> None:
    assert_warps_like_transformers(logits_BV, params)


@pytest.mark.parametrize("kind", KINDS)
def test_all_warpers_with_the_real_vocabulary(kind: str) -> None:
    logits_BV = make_logits(kind, 2, 151_936, 3)
    for name in ("vl", "vl-thinking", "text"):
        assert_warps_like_transformers(logits_BV, SamplingParams.preset(name))
    assert_warps_like_transformers(logits_BV, SamplingParams(temperature=0.3, top_p=0.9, min_p=0.02))


def test_the_short_way_is_taken_and_owns_up_to_close_calls() -> None:
    params = SamplingParams.preset("vl")
    certain = [filters._likely_enough(x, params)[1] for x in make_logits("normal", 50, 2000, 1)]
    assert sum(certain) >= 48
    assert not filters._likely_enough(torch.zeros(100), params)[1]  # which of the tied tokens go?
    fifths = torch.tensor([0.2, 0.2001, 0.2002, 0.1998, 0.1999]).log()
    assert not filters._likely_enough(fifths, SamplingParams(temperature=1.0, top_p=0.80022))[1]  # a sum at the border
    assert filters._likely_enough(fifths, SamplingParams(temperature=1.0, top_p=0.7))[1]


def test_top_p_may_reach_beyond_the_prefix() -> None:
    logits_BV = make_logits("normal", 1, 4 * filters.PREFIX, 2) * 0.05
    params = SamplingParams(temperature=1.0, top_p=0.9)
    assert_warps_like_transformers(logits_BV, params)
    assert len(candidates(logits_BV[0], params)[0]) > 3 * filters.PREFIX


def test_of_tied_tokens_the_lowest_ids_stay() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.45)
    assert candidates(torch.zeros(2000), params)[0].tolist() == list(range(900))
    assert candidates(torch.zeros(10), params)[0].tolist() == list(range(5))


def test_top_p_counts_what_lies_above() -> None:
    scores_V = torch.tensor([0.2, 0.5, 0.3]).log()
    ids_K, _ = candidates(scores_V, SamplingParams(temperature=1.0, top_p=0.7))
    assert ids_K.tolist() == [1, 2]
