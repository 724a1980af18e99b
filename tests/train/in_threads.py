"""Two processes of torchrun as threads, for what only exchanges numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from qwen3vl.train.distributed import Ranks

T = TypeVar("T")


def two(work: Callable[[Ranks], T]) -> tuple[T, T]:
    """-> what both get from `work`, done at the same time. Raises what the first raises."""
    board: dict[int, list[int]] = {}
    barrier = threading.Barrier(2)

    class InThread(Ranks):
        def exchange(self, values: list[int]) -> list[list[int]]:
            board[self.rank] = values
            barrier.wait(60)
            everyone = [board[rank] for rank in range(2)]
            barrier.wait(60)
            return everyone

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, [InThread(rank, 2, torch.device("cpu")) for rank in range(2)])
    return one, other
