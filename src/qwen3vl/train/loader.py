"""From a source to packed batches, prepared here or by worker processes, always in the same order.

numbers --Source.example--> Example --Encoder--> Encoded --fill--> whole conversations --pack--> TrainBatch

This module's functions run in worker processes, so importing it imports no torch (pack does, and runs here).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.processor.processor import Processor
from qwen3vl.settings import MediaOptions
from qwen3vl.train.examples import Encoded, Encoder
from qwen3vl.train.sources import Source

_CHUNK = 8  # conversations that a worker prepares at a time
_REMEMBERED_BYTES = 512 << 20  # of conversations that come again


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """All that a worker process needs to make the same encoder."""

    folder: Path
    media: MediaOptions

    def make(self) -> Encoder:
        return Encoder(Processor.from_folder(self.folder), self.media)


def prepare(source: Source, numbers: Iterable[int], encoder: Encoder) -> Generator[Encoded, None, None]:
    """Encode in this process; conversations that come again are remembered as far as memory is given for them."""
    remembered: dict[object, Encoded] = {}
    room = _REMEMBERED_BYTES
    for number in numbers:
        key = source.key(number)
        encoded = None if key is None else remembered.get(key)
        if encoded is None:
            encoded = encoder(source.example(number))
            size = _num_bytes(encoded)
            if key is not None and size <= room:
                remembered[key] = encoded
                room -= size
        yield encoded


def prepare_in_processes(
    source: Source, numbers: Iterable[int], recipe: EncoderRecipe, workers: int
) -> Generator[Encoded, None, None]:
    """The same in `workers` processes; what they raise is raised here, in its place."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    pool = ProcessPoolExecutor(workers, context, _start_worker, (source, recipe))
    pending: deque[Future[list[Encoded]]] = deque()
    try:
        for chunk in _chunks(numbers):
            pending.append(pool.submit(_encode_chunk, chunk))
            if len(pending) > 3 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    for number in numbers:
        chunk.append(number)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_worker: Callable[[int], Encoded] | None = None


def _start_worker(source: Source, recipe: EncoderRecipe) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the trainer finishes its step first
    os.environ["OMP_NUM_THREADS"] = "1"
    encoder = recipe.make()
    _worker = lambda number: encoder(source.example(number))  # noqa: E731


def _encode_chunk(numbers: Sequence[int]) -> list[Encoded]:
    assert _worker is not None
    return [_worker(number) for number in numbers]


def _num_bytes(encoded: Encoded) -> int:
    patches = sum(visual.patches.values_PC.nbytes for visual in encoded.inputs.visuals)
    return patches + encoded.inputs.input_ids_T.nbytes + encoded.labels_T.nbytes + 2000
