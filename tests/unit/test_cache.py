"""The pool of keys and values, and block tables."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.model.cache import BlockTable, PagedKVCache, take_runs
from tests import models


def new_cache(num_blocks: int, block_size: int, layers: int = 2) -> PagedKVCache:
    config = replace(models.small_config().text, num_hidden_layers=layers, num_key_value_heads=2, head_dim=4)
    return PagedKVCache(config, num_blocks, block_size, torch.float32, [torch.device("cpu")] * layers)


def keys_of(*tokens: int) -> torch.Tensor:
    """T x K x H with every value of a token the same, so that tokens can be told apart."""
    return torch.tensor(tokens, dtype=torch.float32)[:, None, None].expand(-1, 2, 4)


def held(k_KSH: torch.Tensor) -> list[float]:
    assert k_KSH.shape[0] == 2 and k_KSH.shape[2] == 4
    return k_KSH[1, :, 3].tolist()


def test_what_was_written_is_read() -> None:
    cache = new_cache(3, 4)
    for layer in range(2):
        keys = keys_of(*(10 * layer + i for i in range(5)))
        cache.write(layer, torch.tensor([8, 9, 10, 11, 0]), keys, -keys)
    for layer, first in ((0, 0.0), (1, 10.0)):
        keys, values = cache.read(layer, (8, 12))
        assert held(keys) == [first, first + 1, first + 2, first + 3] and held(values) == [-x for x in held(keys)]
        assert held(cache.gather(layer, torch.tensor([11, 0]))[0]) == [first + 3, first + 4]


def test_reading_a_run_copies_nothing() -> None:
    cache = new_cache(3, 4)
    keys, _ = cache.read(0, (4, 8))
    cache.write(0, torch.tensor([5]), keys_of(7), keys_of(7))
    assert held(keys)[1] == 7


def test_a_copied_block_is_equal_in_all_layers_and_alone() -> None:
    cache = new_cache(3, 2)
    for layer in range(2):
        cache.write(layer, torch.arange(6), keys_of(*range(6)), keys_of(*range(6, 12)))
    cache.copy_block(2, 0)
    for layer in range(2):
        keys, values = cache.read(layer, (0, 6))
        assert held(keys) == [4, 5, 2, 3, 4, 5] and held(values) == [10, 11, 8, 9, 10, 11]
    cache.write(0, torch.tensor([4]), keys_of(99), keys_of(99))
    assert held(cache.read(0, (0, 2))[0]) == [4, 5]


def test_bytes() -> None:
    assert new_cache(3, 4).num_bytes == 2 * 2 * 2 * 12 * 4 * 4  # k and v, layers, heads, slots, size, float32


def test_a_pool_made_in_inference_mode_can_be_written_outside() -> None:
    with torch.inference_mode():
        cache = new_cache(1, 4)
    cache.write(0, torch.tensor([0]), keys_of(1), keys_of(1))


# ------------------------------------------------------------------------------------ block tables


def test_table() -> None:
    """The example of BlockTable."""
    table = BlockTable(4, (5, 6, 2))
    assert table.slots(0, 12).tolist() == [20, 21, 22, 23, 24, 25, 26, 27, 8, 9, 10, 11]
    assert table.slots(7, 10).tolist() == [27, 8, 9]
    assert table.runs(10) == ((20, 28), (8, 10))
    assert table.runs(3) == ((20, 23),) and table.runs(8) == ((20, 28),) and table.runs(0) == ()


def test_take_runs() -> None:
    assert take_runs(((20, 28), (8, 12)), 10) == ((20, 28), (8, 10))


@given(st.integers(1, 5), st.lists(st.integers(-3, 12), min_size=1, max_size=40))
def test_runs_are_the_slots(block_size: int, commands: list[int]) -> None:
    """Blocks are appended, taken away (-1, -2) and replaced (-3) at random."""
    table, plain = BlockTable(block_size), []
    for command in commands:
        if command >= 0:
            table.append(command)
            plain.append(command)
        elif plain and command == -3:
            index = sum(plain) % len(plain)
            table.replace(index, 13)
            plain[index] = 13
        elif plain:
            assert table.pop() == plain.pop()
    assert table.blocks == plain and len(table) == len(plain)
    slots = [block * block_size + i for block in plain for i in range(block_size)]
    for num_tokens in {0, len(slots) // 2, max(0, len(slots) - 1), len(slots)}:
        runs = table.runs(num_tokens)
        assert [slot for start, end in runs for slot in range(start, end)] == slots[:num_tokens]
        assert all(end != start for (_, end), (start, _) in itertools.pairwise(runs)), "runs that could be one"
        assert table.slots(num_tokens // 2, num_tokens).tolist() == slots[num_tokens // 2 : num_tokens]
