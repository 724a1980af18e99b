"""The tower learns to see by itself: from every merged token linear heads must tell what lies inside it.

    picture ──tower──► embeddings_MD ──SightHeads──► classes of its columns and patches, against synthetic/places.py

From nothing, answers alone teach a tower very slowly: one word is said about a whole picture, by a decoder that cannot
speak yet. Here each 32 x 32 pixels get their own truth, and no decoder runs. The heads are thrown away afterwards: what
they can read from a token by one linear map, a decoder can too. Otherwise the run is like any other (loop.py): the
same schedule, logs, saved states and exact resume.

Shape names: M merged tokens, D hidden size of the decoder, C classes, P patches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.errors import InvalidParams
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import run_to_end
from qwen3vl.processor.resize import patchify
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.train.distributed import ONE_PROCESS, Ranks
from qwen3vl.train.loop import StepWork
from qwen3vl.train.loss import Loss
from qwen3vl.train.packing import TrainBatch
from qwen3vl.train.parameters import ParameterGroup
from qwen3vl.train.reports import Progress
from qwen3vl.train.synthetic.icons import NAMES
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.places import (
    CHARACTERS,
    COLUMNS,
    IGNORED,
    NOTHING,
    PARTS,
    SLOTS,
    Places,
    draw_places,
    shown_again,
)
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import rng_of
from qwen3vl.train.synthetic.stream import in_processes

WHAT = ("characters", "kinds", "colours", "edges", "middles")
_CLASSES = (len(CHARACTERS) + 1, len(NAMES) + 1, len(COLOUR_NAMES) + 1, PARTS + 1, PARTS + 1)
_PER_TOKEN = (SLOTS * COLUMNS, 4, 4, 16, 2)
EMBEDDING_SIZE = 0.2  # as embeddings of text become
_NOTHING_WEIGHS = (
    0.05,
    0.3,
    0.3,
    1.0,
    1.0,
)  # most slots are empty: with equal weights "nothing" is learnt, and nothing else


class SightHeads(nn.Module):
    """embeddings_MD -> logits of each kind of truth: (M, slots or patches, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, n * c) for n, c in zip(_PER_TOKEN, _CLASSES, strict=True))

    def forward(self, embeddings_MD: Tensor) -> tuple[Tensor, ...]:
        x_MD = self.norm(embeddings_MD)
        return tuple(head(x_MD).unflatten(1, (n, -1)) for head, n in zip(self.heads, _PER_TOKEN, strict=True))


def new_heads(width: int, seed: int, device: torch.device, dtype: torch.dtype) -> SightHeads:
    """Small random values: the same for the same seed."""
    heads, random = SightHeads(width), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in heads.heads:
            head.weight.normal_(0.0, 0.02, generator=random)  # type: ignore[operator,union-attr]
            head.bias.zero_()  # type: ignore[operator,union-attr]
    return heads.to(device, dtype)


def head_group(heads: SightHeads, learning_rate: float) -> ParameterGroup:
    names, parameters = zip(*heads.named_parameters(prefix="sight"), strict=True)
    return ParameterGroup("mergers", learning_rate, 0.0, names, parameters)


# ----------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, slots=True, kw_only=True)
class SightBatch(TrainBatch):
    """Pictures and what lies in them; there is no text.

    Attributes:
        truths: of each of WHAT, classes of all merged tokens: int64 (M, slots or patches).
    """

    truths: tuple[Tensor, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.truths[0])

    @property
    def num_labels(self) -> int:
        return sum(int((truth != IGNORED).sum()) for truth in self.truths)

    def to(self, device: torch.device) -> SightBatch:
        if device.type == "cpu":
            return self
        assert self.patches_PC is not None
        patches_PC = self.patches_PC.to(device, non_blocking=True)
        return replace(self, patches_PC=patches_PC, truths=tuple(t.to(device, non_blocking=True) for t in self.truths))


def sight_batch(samples: Sequence[Places], settings: VisionSettings, where: Sequence[str] = ()) -> SightBatch:
    """At least one sample."""
    nothing = torch.zeros(0, dtype=torch.int64)
    truths = zip(*map(_truths, samples), strict=True)
    p = settings.patch_size
    return SightBatch(
        nothing, nothing.expand(3, 0), nothing, nothing, nothing,
        tuple(sample.num_tokens for sample in samples),
        torch.from_numpy(np.concatenate([patchify([s.picture], settings).read() for s in samples])),
        tuple((s.picture.shape[0] // p, s.picture.shape[1] // p) for s in samples),
        tuple(where),
        truths=tuple(torch.from_numpy(np.concatenate(truth).astype(np.int64)) for truth in truths),
    )  # fmt: skip


def _truths(sample: Places) -> tuple[np.ndarray, ...]:
    """In the order of WHAT."""
    return sample.characters_MS, sample.kinds_M4, sample.colours_M4, sample.edges_ME, sample.middles_M2


def sight_work(
    seed: int,
    settings: VisionSettings,
    tokens: int,
    start: int = 0,
    *,
    workers: int = 0,
    limit: int | None = None,
    ranks: Ranks = ONE_PROCESS,
) -> Generator[StepWork, None, None]:
    """Steps without end, from sample `start` on: pictures of about `tokens` merged tokens each.

    `limit`: the first so many samples again and again, which are kept once drawn and changed a little from then on
    (places.shown_again): else they are soon known by heart. Of several processes each takes `tokens` a step from its
    own share; all count on by as many as the one that took most. Raises InvalidParams if they cannot share `limit`
    evenly.
    """
    if limit is not None and limit % ranks.size:
        raise InvalidParams(f"limit={limit} cannot be shared evenly by {ranks.size} processes")
    number, numbers = start, ranks.share(itertools.count(start))
    draw = partial(draw_places, "train", seed)
    if limit is None:
        samples_drawn = in_processes(draw, numbers, workers)
    else:
        samples_drawn = _kept(seed, draw, numbers, workers, limit, limit // ranks.size)
    with closing(samples_drawn) as drawn:
        while True:
            samples: list[Places] = []
            while sum(s.num_tokens for s in samples) < tokens:
                samples.append(next(drawn))
            most = max(each for (each,) in ranks.exchange([len(samples)]))
            for _ in range(most - len(samples)):
                next(drawn)
            number += ranks.size * most
            yield StepWork((sight_batch(samples, settings),), number)


def _kept(
    seed: int, draw: Callable[[int], Places], numbers: Iterator[int], workers: int, limit: int, own: int
) -> Generator[Places, None, None]:
    """Sample number % limit of each number; the first `own` numbers are all that this process ever draws."""

    def shown(sample: Places, number: int) -> Places:
        return sample if number < limit else shown_again(sample, rng_of("train", seed, "shown again", number))

    firsts = list(itertools.islice(numbers, own))
    kept: list[Places] = []
    for number, sample in zip(firsts, in_processes(draw, (number % limit for number in firsts), workers), strict=True):
        kept.append(sample)
        yield shown(sample, number)
    for number, sample in zip(numbers, itertools.cycle(kept), strict=False):
        yield shown(sample, number)


# -------------------------------------------------------------------------------------- objective


def sight_loss(heads: SightHeads, model: Qwen3VL, batch: TrainBatch) -> Loss:
    """The sum of five weighted means (over all places that are told), times the number of those places.

    Pass it on with `functools.partial(sight_loss, heads)`.
    """
    assert isinstance(batch, SightBatch)
    logits = heads(_embeddings(model, batch))
    means = [
        _mean(x.flatten(0, 1).float(), truth.flatten(), nothing)
        for x, truth, nothing in zip(logits, batch.truths, _NOTHING_WEIGHS, strict=True)
    ]
    number = batch.num_labels
    return Loss(torch.stack(means).sum() * number, number)


def _embeddings(model: Qwen3VL, batch: SightBatch) -> Tensor:
    """-> (M, D)"""
    assert batch.patches_PC is not None
    return run_to_end(model.visual.encode_steps(batch.patches_PC, batch.frames, taps=False)).embeddings_MD


def _mean(logits: Tensor, truth: Tensor, nothing: float) -> Tensor:
    weights = torch.ones(logits.shape[1], device=logits.device)
    weights[NOTHING] = nothing
    total = F.cross_entropy(logits, truth, weights, ignore_index=IGNORED, reduction="sum")
    weight = weights[truth.clamp(min=0)][truth != IGNORED].sum()
    return total / weight.clamp(min=1.0)


@torch.no_grad()
def quieten(model: Qwen3VL, batch: SightBatch) -> float:
    """Scale what the main merger gives to EMBEDDING_SIZE (root of mean square). -> what it was.

    The heads normalise what they read, so it grows without bound while the tower learns alone. In the decoder, layers
    add to it: what is a hundred times larger than anything they add could never be worked on.
    """
    before = float(_embeddings(model, batch.to(model.device)).float().square().mean().sqrt())
    last = model.visual.merger.linear_fc2
    for values in (last.weight, last.bias):
        values.mul_(EMBEDDING_SIZE / before)
    return before


class HeldOutSight:
    """How much of what lies in held-out pictures the heads tell: shares of what is there that they name."""

    def __init__(self, model: Qwen3VL, heads: SightHeads, settings: VisionSettings, count: int, seed: int = 0) -> None:
        self._model, self._heads = model, heads
        side: Side = "heldout"
        samples = [draw_places(side, seed, index) for index in range(count)]
        self._batches = [sight_batch(samples[i : i + 32], settings) for i in range(0, count, 32)]

    @torch.no_grad()
    def __call__(self, progress: Progress) -> Mapping[str, float]:
        right, there = np.zeros(len(WHAT)), np.zeros(len(WHAT))
        self._model.eval()
        for batch in self._batches:
            moved = batch.to(self._model.device)
            logits = self._heads(_embeddings(self._model, moved))
            for i, (x, truth) in enumerate(zip(logits, moved.truths, strict=True)):
                something = truth > NOTHING
                right[i] += float((x.argmax(-1) == truth)[something].sum())
                there[i] += float(something.sum())
        self._model.train()
        return dict(zip(WHAT, (float(share) for share in right / np.maximum(there, 1)), strict=True))
