"""Keys and values of all sequences in one pool of blocks, and where in it each sequence lies.

A slot holds one token, a block `block_size` neighbouring slots. The slots of a layer lie one behind the
other, so tokens in neighbouring blocks are read as they lie, without a copy.

Shape names: K key/value heads, X slots of the pool, S tokens that are read, T tokens that are written,
H head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from qwen3vl.config import TextConfig
from qwen3vl.kernels.cpu.steps import Slots

MOST_COPIED = 1024  # tokens that are read at a time where reading copies
Run = tuple[int, int]  # slots from .. to, the second not included


class PagedKVCache:
    """Keys and values in X = num_blocks x block_size slots, for every layer.

    All of it is laid out at once: on a CPU, memory that was never written to costs nothing.

    Args:
        dtype: of what is read.
        devices: of each layer.
        kept: type that the pools have; None: `dtype`. Of another one what is read is a copy.

    Attributes:
        max_read: tokens that may be read at a time; None: reading costs nothing, so there is no bound.
    """

    def __init__(
        self,
        config: TextConfig,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        kept: torch.dtype | None = None,
    ) -> None:
        assert len(devices) == config.num_hidden_layers, (len(devices), config.num_hidden_layers)
        self.num_blocks, self.block_size = num_blocks, block_size
        self.max_read = None if kept in (None, dtype) else MOST_COPIED
        self._dtype, kept = dtype, kept or dtype
        shape = (config.num_key_value_heads, num_blocks * block_size, config.head_dim)
        with torch.inference_mode(False):  # else nobody could write to it outside of inference_mode
            self._keys_KXH = [torch.empty(shape, dtype=kept, device=device) for device in devices]
            self._values_KXH = [torch.empty(shape, dtype=kept, device=device) for device in devices]

    def write(self, layer: int, slots_T: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> None:
        """Put the tokens' keys and values into their slots."""
        slots_T = slots_T.to(k_TKH.device)
        for x_TKH, pool_KXH in ((k_TKH, self._keys_KXH[layer]), (v_TKH, self._values_KXH[layer])):
            pool_KXH.index_copy_(1, slots_T, x_TKH.transpose(0, 1).to(pool_KXH.dtype))

    def slots(self, layer: int, slots_T: Tensor) -> Slots:
        """Where `write` puts keys and values, for kernels that do it themselves."""
        return Slots(slots_T, self._keys_KXH[layer], self._values_KXH[layer])

    def read(self, layer: int, run: Run) -> tuple[Tensor, Tensor]:
        """-> k_KSH, v_KSH of neighbouring slots: views, if they are kept in the type that is read."""
        start, end = run
        keys_KXH, values_KXH = self._keys_KXH[layer], self._values_KXH[layer]
        return keys_KXH[:, start:end].to(self._dtype), values_KXH[:, start:end].to(self._dtype)

    def gather(self, layer: int, slots_S: Tensor) -> tuple[Tensor, Tensor]:
        """-> k_KSH, v_KSH of slots that lie anywhere: copies."""
        keys_KXH, values_KXH = self._keys_KXH[layer], self._values_KXH[layer]
        slots_S = slots_S.to(keys_KXH.device)
        k_KSH, v_KSH = keys_KXH.index_select(1, slots_S), values_KXH.index_select(1, slots_S)
        return k_KSH.to(self._dtype), v_KSH.to(self._dtype)

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` equal to block `source`, in all layers."""
        size = self.block_size
        for pool_KXH in self._all_pools():
            pool_KXH[:, target * size : (target + 1) * size] = pool_KXH[:, source * size : (source + 1) * size]

    @property
    def num_bytes(self) -> int:
        """Memory laid out, in bytes."""
        return sum(x.nbytes for x in self._all_pools())

    def _all_pools(self) -> tuple[Tensor, ...]:
        """Everything that is kept by slot, along axis 1."""
        return (*self._keys_KXH, *self._values_KXH)


class BlockTable:
    """The blocks of one sequence: its token i is in slot blocks[i // block_size] * block_size + i % block_size.

    Blocks 5, 6 and 2 of 4 slots each:

        token   0  1  2  3 |  4  5  6  7 | 8  9 10 11
        slot   20 21 22 23 | 24 25 26 27 | 8  9 10 11

    The first 10 tokens are two runs, (20, 28) and (8, 10).
    """

    __slots__ = ("_runs", "block_size", "blocks")

    def __init__(self, block_size: int, blocks: Iterable[int] = ()) -> None:
        self.block_size = block_size
        self.blocks: list[int] = []
        self._runs: list[list[int]] = []  # of blocks, [from, to); kept so that no pass has to look at every block
        for block in blocks:
            self.append(block)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def num_slots(self) -> int:
        return len(self.blocks) * self.block_size

    def append(self, block: int) -> None:
        self.blocks.append(block)
        if self._runs and self._runs[-1][1] == block:
            self._runs[-1][1] += 1
        else:
            self._runs.append([block, block + 1])

    def pop(self) -> int:
        """Give up the last block. -> which it was."""
        self._runs[-1][1] -= 1
        if self._runs[-1][0] == self._runs[-1][1]:
            self._runs.pop()
        return self.blocks.pop()

    def replace(self, index: int, block: int) -> None:
        """Another block takes the place of blocks[index]."""
        behind = [block]
        while len(self.blocks) > index + 1:
            behind.append(self.pop())
        self.pop()
        self.append(behind[0])
        for each in reversed(behind[1:]):
            self.append(each)

    def slots(self, start: int, end: int) -> np.ndarray:
        """Slots of tokens `start` .. `end`, int64."""
        size = self.block_size
        if end - start == 1:  # decoding: many sequences, one token each
            return np.array((self.blocks[start // size] * size + start % size,))
        first = start // size
        blocks = np.array(self.blocks[first : -(-end // size)], dtype=np.int64)
        tokens = np.arange(start, end)
        return blocks[tokens // size - first] * size + tokens % size

    def runs(self, num_tokens: int) -> tuple[Run, ...]:
        """The first tokens as runs of neighbouring slots, in order."""
        assert num_tokens <= self.num_slots, (num_tokens, self.num_slots)
        return take_runs(((start * self.block_size, end * self.block_size) for start, end in self._runs), num_tokens)


def split_runs(runs: Iterable[Run], most: int | None) -> Iterator[Run]:
    """The same slots in runs of at most `most`: (20, 28) by 5 is (20, 25), (25, 28)."""
    for start, end in runs:
        for part in range(start, end, most or max(1, end - start)):
            yield part, min(end, part + (most or end - start))


def take_runs(runs: Iterable[Run], num_tokens: int) -> tuple[Run, ...]:
    """The first tokens of the runs: 10 of (20, 28), (8, 12) are (20, 28), (8, 10)."""
    taken: list[Run] = []
    for start, end in runs:
        if num_tokens <= 0:
            break
        taken.append((start, min(end, start + num_tokens)))
        num_tokens -= end - start
    return tuple(taken)
