"""The vision cache against a plain list that does the same, and its bytes against the tensors' own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.vision_cache import VisionCache
from qwen3vl.model.vision import VisualFeatures


def features(num_tokens: int, value: float = 0.0, dtype: torch.dtype = torch.float32) -> VisualFeatures:
    """10 values a token in main features, 10 in each of DeepStack's two: 120 bytes a token in float32."""
    main, *deep = (torch.full((num_tokens, 10), value + i, dtype=dtype) for i in range(3))
    return VisualFeatures(main, tuple(deep))


def test_what_was_put_comes_back() -> None:
    cache = VisionCache(10_000)
    put = features(3, 7.0)
    assert cache.put("a", put) and cache.num_bytes == 360 and len(cache) == 1
    assert cache.get("a", torch.float32) is not None
    got = cache.get("a", torch.float32)
    assert got is not None and torch.equal(got.deepstack[1], put.deepstack[1])
    assert got.embeddings_MD.data_ptr() == put.embeddings_MD.data_ptr(), "copied for nothing"
    assert cache.get("b", torch.float32) is None


def test_precisions_are_told_apart() -> None:
    cache = VisionCache(10_000)
    cache.put("a", features(3, 1.0))
    assert cache.get("a", torch.bfloat16) is None
    cache.put("a", features(3, 2.0, torch.bfloat16))
    assert len(cache) == 2 and cache.num_bytes == 360 + 180


def test_the_least_recently_used_goes() -> None:
    cache = VisionCache(3 * 120)
    for name in "abc":
        cache.put(name, features(1))
    cache.get("a", torch.float32)
    assert ("b", torch.float32) in cache  # looking is no use
    cache.put("d", features(1))
    assert [name for name in "abcd" if (name, torch.float32) in cache] == ["a", "c", "d"]


def test_too_large_for_the_cache() -> None:
    cache = VisionCache(2 * 120)
    cache.put("a", features(1))
    assert not cache.put("b", features(3))
    assert len(cache) == 1 and cache.num_bytes == 120
    assert not VisionCache(0).put("a", features(1))


def test_a_slice_does_not_keep_the_whole() -> None:
    cache = VisionCache(10_000)
    whole = features(50, 3.0)
    cache.put("a", whole.slice(10, 12))
    got = cache.get("a", torch.float32)
    assert got is not None and cache.num_bytes == 240
    assert sum(x.untyped_storage().nbytes() for x in (got.embeddings_MD, *got.deepstack)) == 240
    assert torch.equal(got.embeddings_MD, whole.embeddings_MD[10:12])


def test_clear() -> None:
    cache = VisionCache(10_000)
    cache.put("a", features(5))
    cache.clear()
    assert len(cache) == 0 and cache.num_bytes == 0 and cache.get("a", torch.float32) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pg"), st.integers(0, 5)), max_size=40), st.integers(0, 10))
def test_against_a_list(steps: list[tuple[str, int]], room: int) -> None:
    """Picture i has i tokens; the list holds what the cache should, oldest use first."""
    cache, held = VisionCache(room * 120), list[int]()
    for step, i in steps:
        if step == "g":
            assert (cache.get(str(i), torch.float32) is not None) == (i in held)
        else:
            assert cache.put(str(i), features(i)) == (i in held or i <= room)
            while i not in held and i <= room and sum(held) + i > room:
                held.pop(0)
        if i in held or (step == "p" and i <= room):
            held = [other for other in held if other != i] + [i]
        assert cache.num_bytes == 120 * sum(held) and len(cache) == len(held)
