"""Several conversations in one row, never padded: each attends to itself and counts its own positions.

Two conversations of 3 and 4 tokens, of which the last 1 and the last 2 are learnt (labels a, b, c):

    token       0  1  2 | 3  4  5  6
    position    0  1  2 | 0  1  2  3      begins anew with each conversation
    labels_T    .  .  a | .  .  b  c
    rows_R         1         4  5         the tokens whose *next* token is learnt
    targets_R      a         b  c

Shape names: T tokens of the whole row, R tokens to be learnt, P patches, C values of a patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qwen3vl.errors import DataError
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.vision import Grid
from qwen3vl.train.examples import IGNORED, Encoded
from qwen3vl.train.settings import TooLong


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """What one forward and backward pass takes. Everything is int64 but the patches (float32).

    Attributes:
        positions_3T: MRoPE positions, from 0 in each conversation.
        labels_T: see examples.py; not shifted.
        rows_R, targets_R: see above.
        lengths: of the conversations, in tokens.
        patches_PC, frames: of all pictures and videos in order, and the grid of each frame.
        where: names of the examples.
    """

    input_ids_T: Tensor
    positions_3T: Tensor
    labels_T: Tensor
    rows_R: Tensor
    targets_R: Tensor
    lengths: tuple[int, ...]
    patches_PC: Tensor | None = None
    frames: tuple[Grid, ...] = ()
    where: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids_T)

    @property
    def num_labels(self) -> int:
        return len(self.targets_R)

    @property
    def num_patches(self) -> int:
        return 0 if self.patches_PC is None else len(self.patches_PC)

    def to(self, device: torch.device) -> TrainBatch:
        if device.type == "cpu":
            return self
        names = ("input_ids_T", "positions_3T", "labels_T", "rows_R", "targets_R", "patches_PC")
        tensors = {name: getattr(self, name) for name in names}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if v is not None})


def pack(examples: Sequence[Encoded], merge_size: int) -> TrainBatch:
    """The conversations one behind the other. At least one of them."""
    labels_T = np.concatenate([example.labels_T for example in examples])
    after_R = (labels_T != IGNORED).nonzero()[0]  # never the first of a conversation, see Encoded
    positions = [mrope_positions(e.num_tokens, e.inputs.spans, merge_size)[0] for e in examples]
    visuals = [visual for example in examples for visual in example.inputs.visuals]
    patches = [visual.patches.read() for visual in visuals]
    return TrainBatch(
        torch.from_numpy(np.concatenate([example.inputs.input_ids_T for example in examples])),
        torch.from_numpy(np.concatenate(positions, axis=1)),
        torch.from_numpy(labels_T),
        torch.from_numpy(after_R - 1),
        torch.from_numpy(labels_T[after_R]),
        tuple(example.num_tokens for example in examples),
        torch.from_numpy(np.concatenate(patches)) if patches else None,
        tuple(visual.grid_thw[1:] for visual in visuals for _ in range(visual.grid_thw[0])),
        tuple(example.where for example in examples),
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """Conversations for one batch.

    Attributes:
        examples: at least one.
        num_taken: how many conversations were taken for it, with those that were skipped.
        skipped: names of those that are too long by themselves.
    """

    examples: tuple[Encoded, ...]
    num_taken: int
    skipped: tuple[str, ...] = ()


def fill(examples: Iterable[Encoded], max_tokens: int, longer: TooLong = "error") -> Iterator[Filled]:
    """Neighbours together, as many as `max_tokens` hold; the order is kept.

    Lengths 300, 500, 1200, 400 with 1000 tokens:
        skip   300 + 500 (2 taken), 400 (2 taken, 1 skipped)
        alone  300 + 500, 1200, 400
        error  DataError at 1200
    """
    held: list[Encoded] = []
    skipped: list[str] = []
    room = max_tokens
    for example in examples:
        if example.num_tokens > room and held:  # what is skipped counts for the batch that follows it
            yield Filled(tuple(held), len(held) + len(skipped), tuple(skipped))
            held, skipped, room = [], [], max_tokens
        if not takes(example, max_tokens, longer):
            skipped.append(example.where)
            continue
        held.append(example)
        room -= example.num_tokens
    if held:
        yield Filled(tuple(held), len(held) + len(skipped), tuple(skipped))


def takes(example: Encoded, max_tokens: int, longer: TooLong) -> bool:
    """Whether it is trained on. Raises DataError for one that is longer and must not be."""
    if example.num_tokens > max_tokens and longer == "error":
        raise too_long(example, max_tokens)
    return example.num_tokens <= max_tokens or longer == "alone"


def too_long(example: Encoded, max_tokens: int) -> DataError:
    return DataError(
        f"{example.where}: has {example.num_tokens} tokens, but a batch holds {max_tokens}: raise "
        "tokens_per_batch, lower max_pixels, or set too_long to skip or alone"
    )
