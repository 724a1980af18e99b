"""Who has which block of the cache, and which blocks hold what a new prompt begins with.

    free ──take──► in use ──last user gone──► idle (known by its hash, may be needed again)
      ▲               │                        │  │
      └──not known────┘   ◄──found again───────┘  └──least recently used, when nothing is free──► free

A block is shared by every sequence that begins with the same tokens and pictures, and by the answers of
one request. Nobody writes to a block that others use or that is known by its hash: it is copied first.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from qwen3vl.model.cache import BlockTable

Copy = tuple[int, int]  # from block, to block


def chain(parent: bytes, ids: np.ndarray, visuals: Iterable[str] = ()) -> bytes:
    """The hash of a full block, which stands for everything up to its end.

    Args:
        parent: hash of the block before.
        ids: the block's tokens, int64.
        visuals: what its placeholders show: digest, frame and place (see Sequence.block_hashes). Placeholders
            have the same id whatever they show.
    """
    digest = hashlib.blake2b(parent, digest_size=16)
    digest.update(np.ascontiguousarray(ids, dtype=np.int64).tobytes())
    for visual in visuals:
        digest.update(visual.encode() + b";")
    return digest.digest()


class BlockManager:
    """Gives blocks to block tables. Knows nothing of what is in them but the hashes.

    Attributes:
        root: the parent of first blocks; another one after `forget`, so that what is on its way cannot be found.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix_cache: bool = True) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.root = b"0"
        self._prefix_cache = prefix_cache
        self._users = [0] * num_blocks
        self._free = bytearray(b"\x01" * num_blocks)
        self._num_free = num_blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._hash_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that can be had: free, or idle."""
        return self._num_free + len(self._idle)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_available

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def admit(self, table: BlockTable, hashes: Sequence[bytes], num_tokens: int, spare: int = 0) -> int | None:
        """Give an empty table room for a sequence, as much of it as possible by blocks that are known.

        Args:
            hashes: of its full blocks, as many as may be found (its last token has to be computed).
            spare: blocks that must be left over.

        Returns:
            How many of its tokens are there already; None if there is no room, and then nothing changed.
        """
        assert not table.blocks, table.blocks
        known = self._find(hashes)
        missing = self.blocks_for(num_tokens) - len(known)
        if missing + spare > self.num_available - sum(self._users[block] == 0 for block in known):
            return None
        for block in known:
            self._use(block)
            table.append(block)
        self._extend(table, missing)
        return len(known) * self.block_size

    def make_room(self, table: BlockTable, start: int, end: int) -> list[Copy] | None:
        """Let tokens `start` .. `end` be written: append what is missing, copy what others use too.

        -> the copies to make first, in order; None if there are not enough blocks, and then nothing changed.
        """
        held = range(start // self.block_size, min(len(table), self.blocks_for(end)))
        shared = [index for index in held if self._users[table.blocks[index]] > 1]
        missing = max(0, self.blocks_for(end) - len(table))
        if len(shared) + missing > self.num_available:
            return None
        for index in set(held) - set(shared):
            self._forget_hash(table.blocks[index])
        copies = []
        for index in shared:
            source = table.blocks[index]
            target = self._take(near=source)
            table.replace(index, target)
            self._drop(source)
            copies.append((source, target))
        self._extend(table, missing)
        return copies

    def fork(self, table: BlockTable) -> BlockTable:
        """Another table of the same blocks."""
        for block in table.blocks:
            self._users[block] += 1
        return BlockTable(self.block_size, table.blocks)

    def release(self, table: BlockTable, keep: int = 0) -> None:
        """Take back all but the first `keep` blocks. The last go idle first, and so are given away first."""
        while len(table) > keep:
            self._drop(table.pop())

    def register(self, block: int, block_hash: bytes) -> None:
        """A block is full: let it be found. The first block of a hash stays the one that is found."""
        assert self._users[block] > 0, block
        if self._prefix_cache and block_hash not in self._block_of and block not in self._hash_of:
            self._block_of[block_hash] = block
            self._hash_of[block] = block_hash

    def forget(self) -> None:
        """No block can be found any more; idle ones become free."""
        for block in list(self._hash_of):
            self._forget_hash(block)
        self.root = hashlib.blake2b(self.root, digest_size=16).digest()

    # ---------------------------------------------------------------------------------- single blocks

    def _find(self, hashes: Sequence[bytes]) -> list[int]:
        known = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            known.append(block)
        return known

    def _use(self, block: int) -> None:
        self._idle.pop(block, None)
        self._users[block] += 1

    def _drop(self, block: int) -> None:
        self._users[block] -= 1
        assert self._users[block] >= 0, block
        if self._users[block]:
            return
        if block in self._hash_of:
            self._idle[block] = None
        else:
            self._set_free(block)

    def _forget_hash(self, block: int) -> None:
        block_hash = self._hash_of.pop(block, None)
        if block_hash is None:
            return
        del self._block_of[block_hash]
        if block in self._idle:
            del self._idle[block]
            self._set_free(block)

    def _set_free(self, block: int) -> None:
        self._free[block] = 1
        self._num_free += 1

    def _extend(self, table: BlockTable, count: int) -> None:
        self._evict(count)
        for left in range(count, 0, -1):
            table.append(self._take(near=table.blocks[-1] if table.blocks else None, count=left))

    def _take(self, near: int | None, count: int = 1) -> int:
        """A free block: the one behind `near`, or where the longest run of free blocks has room on either side.

        A pool of 10 blocks, 2 to be taken: blocks 4 and 5, so that what grows in front of them can, too.
        """
        self._evict(1)
        if near is not None and near + 1 < self.num_blocks and self._free[near + 1]:
            block = near + 1
        else:
            start, length = self._longest_free_run()
            block = start + max(0, length - count) // 2
        assert self._free[block], block
        self._free[block] = 0
        self._num_free -= 1
        self._users[block] = 1
        return block

    def _longest_free_run(self) -> tuple[int, int]:
        """-> its first block, its length."""
        edges = np.flatnonzero(np.diff(np.frombuffer(self._free, np.int8), prepend=0, append=0))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        longest = int(lengths.argmax())
        return int(starts[longest]), int(lengths[longest])

    def _evict(self, count: int) -> None:
        """Have `count` free blocks. Where some must go, a few more do: neighbours, so that answers can grow in runs."""
        if self._num_free >= count:
            return
        while self._idle and self._num_free < count + self.num_blocks // 64:
            self._forget_hash(next(iter(self._idle)))
        assert self._num_free >= count, (self._num_free, count)

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """Raise AssertionError unless these tables, and nobody else, account for every block."""
        users = Counter(block for table in tables for block in table.blocks)
        for block in range(self.num_blocks):
            states = bool(self._free[block]) + (block in self._idle) + (self._users[block] > 0)
            assert states == 1, f"block {block} is in {states} states"
            assert self._users[block] == users[block], (
                f"block {block}: {self._users[block]} users, {users[block]} known"
            )
            assert not self._free[block] or block not in self._hash_of, f"block {block} is free and can be found"
            assert block not in self._idle or block in self._hash_of, f"block {block} is idle and cannot be found"
        assert sum(self._free) == self._num_free, (sum(self._free), self._num_free)
        assert {block: block_hash for block_hash, block in self._block_of.items()} == self._hash_of
