"""The key/value cache of one sequence."""

from __future__ import annotations

import pytest
import torch

from qwen3vl.model.cache import KVCache


def keys_of(*tokens: int) -> torch.Tensor:
    """T x K x H with every value of a token the same, so that tokens can be told apart."""
    return torch.tensor(tokens, dtype=torch.float32)[:, None, None].expand(-1, 2, 4)


def held(k_KSH: torch.Tensor) -> list[float]:
    assert k_KSH.shape[0] == 2 and k_KSH.shape[2] == 4
    return k_KSH[1, :, 3].tolist()


def test_append_then_advance() -> None:
    cache = KVCache(2)
    for layer in range(2):
        keys, values = cache.append(layer, keys_of(1, 2, 3), -keys_of(1, 2, 3))
        assert held(keys) == [1, 2, 3] and held(values) == [-1, -2, -3]
    assert cache.length == 0  # counted once, when all layers have them
    cache.advance(3)
    keys, _ = cache.append(0, keys_of(4), keys_of(4))
    assert held(keys) == [1, 2, 3, 4] and cache.length == 3


def test_many_appends_keep_everything() -> None:
    cache = KVCache(1)
    for token in range(40):
        keys, values = cache.append(0, keys_of(token), keys_of(100 + token))
        cache.advance(1)
    assert held(keys) == list(range(40)) and held(values) == list(range(100, 140))
    assert cache.num_bytes < 2 * 1.25 * 40 * 2 * 4 * 4 + 1


def test_reserved_room_is_taken_once() -> None:
    cache = KVCache(1)
    cache.reserve(30)
    first, _ = cache.append(0, keys_of(0), keys_of(0))
    cache.advance(1)
    for token in range(1, 30):
        keys, _ = cache.append(0, keys_of(token), keys_of(token))
        cache.advance(1)
    assert keys.data_ptr() == first.data_ptr() and held(keys) == list(range(30))


def test_truncate_forgets_the_rest() -> None:
    cache = KVCache(1)
    cache.append(0, keys_of(1, 2, 3, 4), keys_of(1, 2, 3, 4))
    cache.advance(4)
    cache.truncate(2)
    keys, _ = cache.append(0, keys_of(9), keys_of(9))
    assert held(keys) == [1, 2, 9]
    with pytest.raises(AssertionError):
        cache.truncate(3)
