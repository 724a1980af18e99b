"""What goes into the next pass: first the answers that grow, then as much reading as fits.

    waiting ──room for the whole prompt──► running (reading, then decoding) ──end, abort──► gone
       ▲                                        │
       └──── preempted: its blocks are taken ───┘

Who came first goes first, in both queues; who came last is preempted. So the first request always goes on,
and everyone becomes the first. A preempted sequence keeps its tokens and its sampler: its keys and values
are computed again, as far as the prefix cache does not have them still.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace

from qwen3vl.engine.block_manager import BlockManager, Copy
from qwen3vl.engine.pace import Pace
from qwen3vl.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `length` tokens of a sequence."""

    sequence: Sequence
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One pass.

    Attributes:
        chunks: what goes through the decoder, in this order.
        writing: (number of the chunk, sequence): whose next token its last logits give. The answers to
            one prompt begin with the same logits.
        copies: blocks to be copied first, in order.
        looking: the sequences that the vision tower has to see something for before they go on, in order.
        num_decoding: of the chunks; they come first.
    """

    chunks: tuple[Chunk, ...] = ()
    writing: tuple[tuple[int, Sequence], ...] = ()
    copies: tuple[Copy, ...] = ()
    looking: tuple[Sequence, ...] = ()
    num_decoding: int = 0

    @property
    def num_streamed(self) -> int:
        """Answers that decode while somebody reads along."""
        return sum(chunk.sequence.is_streamed for chunk in self.chunks[: self.num_decoding])

    @property
    def num_read(self) -> int:
        """Tokens that are not decoded but read."""
        return sum(chunk.length for chunk in self.chunks[self.num_decoding :])

    def only(self, keep: Callable[[Sequence], bool]) -> Batch:
        """The chunks of some of the sequences."""
        kept = [number for number, chunk in enumerate(self.chunks) if keep(chunk.sequence)]
        if len(kept) == len(self.chunks):
            return self
        chunks = tuple(self.chunks[number] for number in kept)
        writing = tuple((kept.index(number), sequence) for number, sequence in self.writing if number in kept)
        num_decoding = sum(number < self.num_decoding for number in kept)
        return replace(self, chunks=chunks, writing=writing, num_decoding=num_decoding)

    def parts(self) -> list[Batch]:
        """The chunks one by one; the copies are made."""
        whole = replace(self, copies=())
        return [whole.only(lambda sequence, own=chunk: sequence is own.sequence) for chunk in self.chunks]  # type: ignore[misc]


class Scheduler:
    """Keeps both queues, and the block tables of everyone in them.

    Args:
        needs_look: whether a sequence has to be looked at before its next tokens can be read: the number of
            tokens is told.
    """

    def __init__(
        self,
        blocks: BlockManager,
        pace: Pace,
        needs_look: Callable[[Sequence, int], bool],
        *,
        max_batched_tokens: int,
        max_sequences: int,
    ) -> None:
        self.blocks, self.pace = blocks, pace
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._needs_look = needs_look
        self._max_batched_tokens, self._max_sequences = max_batched_tokens, max_sequences

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=_order)

    def schedule(self) -> Batch:
        """The next pass; its tokens have their slots. `update` must follow before the next one."""
        copies: list[Copy] = []
        chunks = [Chunk(sequence, 1) for sequence in self._decoding(copies)]
        num_decoding = len(chunks)
        allowance = self.pace.allowance(sum(chunk.sequence.is_streamed for chunk in chunks))
        self._admit()
        budget, looking = min(allowance, self._max_batched_tokens - num_decoding), list[Sequence]()
        for sequence in self.running:
            if sequence.is_decoding:
                continue
            if allowance and self._needs_look(sequence, self._max_batched_tokens):
                looking.append(sequence)
            elif budget:
                chunks.append(Chunk(sequence, min(sequence.num_pending, budget)))
                budget -= chunks[-1].length
        writing = [writer for number, chunk in enumerate(chunks) for writer in self._writing(number, chunk)]
        return Batch(tuple(chunks), tuple(writing), tuple(copies), tuple(looking), num_decoding)

    def update(self, batch: Batch) -> None:
        """The pass is over: its tokens are in the cache, and the blocks they filled can be found."""
        for chunk in batch.chunks:
            sequence = chunk.sequence
            before, after = sequence.num_computed, sequence.num_computed + chunk.length
            sequence.num_computed = after
            size = self.blocks.block_size
            if after // size > before // size:
                hashes = sequence.block_hashes(self.blocks.root, after // size)
                for index in range(before // size, after // size):
                    self.blocks.register(sequence.table.blocks[index], hashes[index])
            sequence.drop_features()
        for _, sequence in batch.writing:
            sequence.num_computed = sequence.num_tokens

    def trim(self, sequence: Sequence) -> None:
        """A sequence was taken back to fewer tokens: so are its blocks."""
        self.blocks.release(sequence.table, keep=self.blocks.blocks_for(sequence.num_tokens))

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's blocks; it waits until there is room again."""
        self.running.remove(sequence)
        self._free(sequence)
        self.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """It has ended, or is given up: forget it, wherever it is."""
        for queue in (self.running, self.waiting):
            if sequence in queue:
                queue.remove(sequence)
        self._free(sequence)

    def _free(self, sequence: Sequence) -> None:
        self.blocks.release(sequence.table)
        sequence.num_computed = 0
        sequence.features.clear()

    def _decoding(self, copies: list[Copy]) -> list[Sequence]:
        """The sequences that decode, each with a slot for its token. Who came last makes room for who came first."""
        ready: list[Sequence] = []
        for sequence in [sequence for sequence in self.running if sequence.is_decoding]:
            while sequence.table.blocks:  # else it was preempted
                made = self.blocks.make_room(sequence.table, sequence.num_computed, sequence.num_tokens)
                if made is not None:
                    copies += made
                    ready.append(sequence)
                    break
                self.preempt(self.running[-1])
        return ready

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._max_sequences:
            sequence, size = self.waiting[0], self.blocks.block_size
            hashes = sequence.block_hashes(self.blocks.root, (sequence.num_tokens - 1) // size)
            spare = len(self.running)  # they grow: a prompt that takes the last block would soon lose all
            cached = self.blocks.admit(sequence.table, hashes, sequence.num_tokens, spare)
            if cached is None:
                return
            self.waiting.pop(0)
            insort(self.running, sequence, key=_order)
            sequence.num_computed = cached
            if sequence.job is not None:
                sequence.job.begin(cached)

    def _writing(self, number: int, chunk: Chunk) -> list[tuple[int, Sequence]]:
        """Who can write after a chunk: its sequence if all of it is there then, and siblings, which begin with it."""
        sequence = chunk.sequence
        if chunk.length < sequence.num_pending:
            return []
        siblings, sequence.siblings = sequence.siblings, []
        for sibling in siblings:
            if len(self.running) >= self._max_sequences:
                self.add(sibling)
                continue
            sibling.table = self.blocks.fork(sequence.table)
            insort(self.running, sibling, key=_order)
        return [(number, each) for each in (sequence, *siblings) if each.table.blocks]


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
