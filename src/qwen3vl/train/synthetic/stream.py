"""Samples without end, made by one or many processes, always in the same order.

    Mix.at(number) -> (task, index)       which sample stands at a place: a pure function
    stream(mix, start, workers=4)         the samples from a place on; to go on later, remember the number

Processes make a few chunks ahead and wait when the reader does. They ignore Ctrl-C (the reader's own handling of it
closes the stream, and that ends them), and end by themselves if the reader is gone.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from qwen3vl.errors import InvalidParams
from qwen3vl.train.synthetic.registry import make_sample, task_named
from qwen3vl.train.synthetic.sample import Side, SyntheticSample
from qwen3vl.train.synthetic.sides import rng_of

CHUNK = 16  # samples that a process makes at a time
AHEAD = 3  # chunks for each process that may wait to be read
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mix:
    """Tasks with their weights, of one side and seed.

    Attributes:
        weights: (task, weight) in an order that matters: another order is another mix.
    """

    weights: tuple[tuple[str, float], ...]
    side: Side = "train"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.weights:
            raise InvalidParams("a mix needs at least one task")
        for task, weight in self.weights:
            if not 0 < weight < float("inf"):
                raise InvalidParams(f"the weight of {task} must be above 0, not {weight}")
            task_named(task)

    @classmethod
    def of(cls, weights: Mapping[str, float], side: Side = "train", seed: int = 0) -> Mix:
        return cls(tuple(weights.items()), side, seed)

    def at(self, number: int) -> tuple[str, int]:
        """The task at a place, drawn by the weights, and the index of its sample (the place itself)."""
        ends = list(itertools.accumulate(weight for _, weight in self.weights))
        drawn = rng_of(self.side, self.seed, "mix", number).random() * ends[-1]
        return self.weights[min(bisect_right(ends, drawn), len(ends) - 1)][0], number

    def sample(self, number: int) -> SyntheticSample:
        task, index = self.at(number)
        return make_sample(task, self.side, self.seed, index)


def stream(
    mix: Mix, start: int = 0, count: int | None = None, workers: int = 0
) -> Generator[SyntheticSample, None, None]:
    """Samples `start`, `start` + 1, ... of a mix (`count` of them, or without end).

    `workers` = 0 makes them here, one by one. What a task raises is raised here, at its place in the order.
    Close the generator (or leave it to be collected) to end the processes.
    """
    numbers = itertools.count(start) if count is None else iter(range(start, start + count))
    yield from in_processes(mix.sample, numbers, workers)


def in_processes(make: Callable[[int], T], numbers: Iterator[int], workers: int) -> Generator[T, None, None]:
    """make(number) of each number, in their order, by so many processes (0: here). `make` must be picklable."""
    if workers == 0:
        yield from map(make, numbers)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    pool = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),))
    pending: deque[Future[list[T]]] = deque()
    try:
        while chunk := list(itertools.islice(numbers, CHUNK)):
            pending.append(pool.submit(_make, make, chunk))
            if len(pending) >= AHEAD * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make(make: Callable[[int], T], numbers: list[int]) -> list[T]:
    return [make(number) for number in numbers]


def _start_worker(reader: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(reader,), daemon=True).start()


def _end_with(reader: int) -> None:
    """Ends this process when its parent is no longer the reader: killed, it could not say so."""
    while os.getppid() == reader:
        time.sleep(2)
    os._exit(1)
