"""Blocks: who has them, which are found again, which go first, where new ones lie."""

from __future__ import annotations

import numpy as np
import pytest

from qwen3vl.engine.block_manager import BlockManager, chain
from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.model.cache import BlockTable
from tests import models
from tests.engine.prompts import as_inputs

CONFIG = models.small_config()


def hashes_of(*numbers: int) -> list[bytes]:
    """A chain of blocks, each named by a number."""
    hashes: list[bytes] = []
    for number in numbers:
        hashes.append(chain(hashes[-1] if hashes else b"0", np.array([number])))
    return hashes


def admit(blocks: BlockManager, hashes: list[bytes], num_tokens: int) -> tuple[BlockTable, int | None]:
    table = BlockTable(blocks.block_size)
    return table, blocks.admit(table, hashes, num_tokens)


def computed(blocks: BlockManager, *numbers: int) -> BlockTable:
    """A sequence of full blocks that are known."""
    table, _ = admit(blocks, hashes_of(*numbers), len(numbers) * blocks.block_size)
    for block, block_hash in zip(table.blocks, hashes_of(*numbers), strict=True):
        blocks.register(block, block_hash)
    return table


def test_a_known_prefix_is_shared() -> None:
    blocks = BlockManager(10, 4)
    first = computed(blocks, 1, 2, 3)
    second, cached = admit(blocks, hashes_of(1, 2, 9), 13)
    assert cached == 8 and second.blocks[:2] == first.blocks[:2] and len(second) == 4
    assert blocks.num_used == 5
    blocks.check_integrity([first, second])
    blocks.release(first)
    assert blocks.num_used == 4  # the third block of the first is idle now
    third, cached = admit(blocks, hashes_of(1, 2, 3), 13)
    assert cached == 12
    blocks.check_integrity([second, third])


def test_the_same_block_after_another_prefix_is_another() -> None:
    assert hashes_of(1, 2)[1] != hashes_of(3, 2)[1]


def test_no_room_changes_nothing() -> None:
    blocks = BlockManager(6, 4)
    first = computed(blocks, 1, 2, 3)
    table, cached = admit(blocks, hashes_of(1), 4 * 5)
    assert cached is None and not table.blocks
    blocks.release(first)
    assert blocks.admit(table, hashes_of(1, 2, 3), 24, spare=1) is None  # 3 known and idle, 3 more, none left over
    assert blocks.admit(table, hashes_of(1, 2, 3), 24) == 12
    assert blocks.make_room(table, 23, 25) is None
    blocks.check_integrity([table])


def test_the_least_recently_used_go_first_and_ends_before_beginnings() -> None:
    blocks = BlockManager(6, 4)
    old, new = computed(blocks, 1, 2, 3), computed(blocks, 7, 8, 9)
    blocks.release(old)
    blocks.release(new)
    other, _ = admit(blocks, [], 4 * 2)
    assert admit(blocks, hashes_of(7, 8, 9), 12)[1] == 12
    _, cached = admit(blocks, hashes_of(1), 4)
    assert cached == 4  # of the old only the beginning is left
    assert blocks.num_available == 0 and len(other) == 2


def test_writing_to_a_shared_block_copies_it() -> None:
    """Two answers to a prompt of 6 tokens: the first to write gets a copy of the second block, the other keeps it."""
    blocks = BlockManager(10, 4)
    first, _ = admit(blocks, [], 6)
    second = blocks.fork(first)
    shared = first.blocks[1]
    copies = blocks.make_room(second, 6, 7)
    assert copies == [(shared, second.blocks[1])] and second.blocks[1] != shared
    assert second.blocks[0] == first.blocks[0] and blocks.make_room(first, 6, 7) == []
    blocks.check_integrity([first, second])


def test_writing_to_a_known_block_makes_it_unknown() -> None:
    """An answer that is taken back into a full block will put other tokens there."""
    blocks = BlockManager(10, 4)
    table = computed(blocks, 1, 2)
    assert blocks.make_room(table, 7, 8) == []
    assert admit(blocks, hashes_of(1, 2), 9)[1] == 4


def test_without_a_prefix_cache_nothing_is_known() -> None:
    blocks = BlockManager(10, 4, prefix_cache=False)
    blocks.release(computed(blocks, 1, 2))
    assert admit(blocks, hashes_of(1, 2), 9)[1] == 0


def test_forgetting_frees_idle_blocks_and_begins_another_chain() -> None:
    blocks = BlockManager(10, 4)
    root, table = blocks.root, computed(blocks, 1, 2)
    blocks.release(table)
    kept = computed(blocks, 5)
    blocks.forget()
    assert blocks.root != root and admit(blocks, hashes_of(1, 2), 8)[1] == 0
    blocks.release(kept)
    assert admit(blocks, hashes_of(5), 8)[1] == 0


def test_tables_grow_in_runs() -> None:
    """In a pool of 10 blocks 2 are taken in the middle; what is taken next leaves them room to grow."""
    blocks = BlockManager(10, 4)
    first, _ = admit(blocks, [], 8)
    assert first.blocks == [4, 5]
    second, _ = admit(blocks, [], 4)
    assert second.blocks == [1]
    for length in (12, 16, 20):
        assert blocks.make_room(first, length - 1, length) == []
    assert first.blocks == [4, 5, 6, 7, 8] and first.runs(20) == ((16, 36),)


def test_integrity_is_checked() -> None:
    blocks = BlockManager(6, 4)
    table = computed(blocks, 1, 2)
    blocks.check_integrity([table])
    with pytest.raises(AssertionError, match="1 users, 0 known"):
        blocks.check_integrity([])
    with pytest.raises(AssertionError, match="1 users, 2 known"):
        blocks.check_integrity([table, table])
    blocks._idle[table.blocks[0]] = None
    with pytest.raises(AssertionError, match="is in 2 states"):
        blocks.check_integrity([table])


# ------------------------------------------------------------------------------------------- hashes


def sequence_of(prompt: models.Prompt) -> Sequence:
    return Sequence(Prompt.of(as_inputs(prompt, CONFIG), CONFIG), BlockTable(4))


def test_hashes_tell_pictures_apart_from_their_first_block_on() -> None:
    """3 text tokens, a marker, 6 placeholders (tokens 4 to 9): block 1 holds four of them, block 2 the rest."""
    first = models.make_prompt(CONFIG, 3, ("image", 4, 6), 6)
    other = models.Prompt(first.input_ids_T, models.make_prompt(CONFIG, 3, ("image", 4, 6), 6, seed=5).shown)
    one, two = (sequence_of(prompt).block_hashes(b"0", 4) for prompt in (first, other))
    assert one[0] == two[0] and len({*one, *two}) == 7
    bare = sequence_of(models.Prompt(first.input_ids_T[:4]))
    bare.answer_ids += first.input_ids_T[4:].tolist()  # an answer that holds the very same ids
    assert bare.block_hashes(b"0", 2)[0] == one[0] and bare.block_hashes(b"0", 2)[1] not in (one[1], two[1])


def test_hashes_follow_the_answer_and_its_going_back() -> None:
    sequence = sequence_of(models.make_prompt(CONFIG, 3))
    sequence.answer_ids += [1, 2, 3, 4, 5]
    before = sequence.block_hashes(b"0", 2)
    sequence.truncate(6)
    sequence.answer_ids += [9, 9]
    after = sequence.block_hashes(b"0", 2)
    assert after[0] == before[0] and after[1] != before[1]
    assert sequence.block_hashes(b"1", 2)[0] != after[0]
