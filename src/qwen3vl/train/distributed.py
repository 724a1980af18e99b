"""Several processes train one model, each holding a part of every weight (fully_shard, PyTorch's FSDP2).

    torchrun --nproc-per-node 8 -m qwen3vl train run DATA --model MODEL --out OUT

Started like this, each process meets the others (`joined`), shards the model (`shard`) and takes every 8th
conversation. All of them take the same number of steps with the same number of batches, whatever their data: the
weights of a layer are gathered by all processes together, so one that had nothing to do would let the others wait for
ever.

    conversations    0   1   2   3   4   5   6        of 2 processes, the data end at 7
    process 0        0       2       4       6
    process 1            1       3       5

The loss of a step is the mean over the learnt tokens of all processes, as if one process had taken all the batches.
With Muon, which turns whole matrices, each process holds the whole model and gradients are added up instead
(`add_up_gradients`): for models that are small enough.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qwen3vl.errors import InvalidParams
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.text import DecoderLayer
from qwen3vl.model.vision import VisionBlock
from qwen3vl.train.examples import IGNORED, Encoded
from qwen3vl.train.loss import Loss, Objective
from qwen3vl.train.packing import Filled, TrainBatch, takes
from qwen3vl.train.settings import TooLong

T = TypeVar("T")
WINDOW = 64  # conversations of each process whose lengths are told to the others at a time


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train together, seen from one of them; one alone talks to nobody."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor)

    def share(self, numbers: Iterable[T]) -> Iterator[T]:
        """This process's part of what all count through: every `size`-th."""
        return islice(iter(numbers), self.rank, None, self.size)

    def exchange(self, values: list[int]) -> list[list[int]]:
        """-> each process's values. They must be equally many."""
        rows: list[list[int]] = self.stack(torch.tensor(values, device=self.device)).tolist()
        return rows

    def stack(self, values: Tensor) -> Tensor:
        """-> each process's tensor, along a new first axis. They must be of one shape."""
        if self.size == 1:
            return values[None]
        everyone = values.new_empty(self.size, *values.shape)
        dist.all_gather(list(everyone.unbind()), values.contiguous())
        return everyone

    def gather(self, value: T) -> list[T]:
        """-> each process's value, of any kind that can be pickled."""
        everyone = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(everyone, value)
        return everyone

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


ONE_PROCESS = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, if it did. On CUDA each takes the device of its local rank.

    Raises InvalidParams where the environment is half torchrun's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Ranks(0, 1, device)
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InvalidParams(f"WORLD_SIZE is set, but not {', '.join(missing)}: start with torchrun")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    first = not dist.is_initialized()
    if first:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if first:
            dist.destroy_process_group()


# ----------------------------------------------------------------------------------------- weights


def shard(model: Qwen3VL, objective: Objective, ranks: Ranks) -> Objective:
    """Leave each process its part of every weight. -> the objective over the sharded model. One process: as it is.

    Layers and blocks are gathered one at a time; embeddings, head and mergers stay gathered during a pass. Gradients
    are added up over the processes in float32. Freezing, adapters and gradient checkpointing come before.
    """
    if ranks.size == 1:
        return objective
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    whole_step = _WholeStep(model, objective, ranks)
    for module in model.modules():
        if isinstance(module, (DecoderLayer, VisionBlock)):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(whole_step, mesh=mesh, mp_policy=policy)
    for part in whole_step.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)  # the loss is a share of the whole already: sums, no means
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def sharded_objective(_: Qwen3VL, batch: TrainBatch) -> Loss:
        total, balance = whole_step(batch)
        return Loss(total, batch.num_labels, balance)

    return sharded_objective


def add_up_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Of processes that hold the whole model each: every gradient becomes the sum of all processes' float32 ones.

    One that no process has stays None; one that only others have is theirs.
    """
    if ranks.size == 1:
        return
    there = torch.tensor([float(p.grad is not None) for p in parameters], device=ranks.device)
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    together = torch.cat([there, *(gradient.flatten() for gradient in own)])
    dist.all_reduce(together)
    there, *sums = together.split([len(parameters), *(p.numel() for p in parameters)])
    for parameter, somebody, total in zip(parameters, there.tolist(), sums, strict=True):
        parameter.grad = total.view_as(parameter) if somebody else None


class _WholeStep(nn.Module):
    """Forward pass and loss as one module, so that what belongs to no layer is gathered in time."""

    def __init__(self, model: Qwen3VL, objective: Objective, ranks: Ranks) -> None:
        super().__init__()
        self.model, self.objective, self.ranks = model, objective, ranks

    def forward(self, batch: TrainBatch) -> tuple[Tensor, Tensor | None]:
        # Where any process has pictures all gather the tower's weights. Where none has, its gradients stay None, as
        # in one process: AdamW leaves it alone then, which it would not do at a gradient of 0.
        somebody_looks = self.ranks.total(batch.num_patches) > 0
        idle = _look_at_nothing(self.model) if somebody_looks and batch.patches_PC is None else None
        loss = self.objective(self.model, batch)
        return loss.total if idle is None else loss.total + idle, loss.balance


def _look_at_nothing(model: Qwen3VL) -> Tensor:
    """Run the vision tower on one block of patches. -> 0, with the tower in its graph."""
    config = model.config.vision
    side = config.spatial_merge_size
    patches_PC = torch.zeros(side * side, config.patch_values, device=model.device)
    features = model.visual(patches_PC, [(side, side)])
    nothing: Tensor = features.embeddings_MD[:0].sum() + sum(x[:0].sum() for x in features.deepstack)
    return nothing.float()


def idle_batch() -> TrainBatch:
    """One token and nothing to learn, for a process whose data have ended before those of the others."""
    zero_1 = torch.zeros(1, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    return TrainBatch(zero_1, zero_1.expand(3, 1), torch.full((1,), IGNORED), none, none, (1,))


# -------------------------------------------------------------------------------------------- data


def fill_together(
    examples: Iterable[Encoded],
    max_tokens: int,
    longer: TooLong,
    ranks: Ranks,
    *,
    cost: Callable[[Encoded], float] | None = None,
    start: int = 0,
) -> Iterator[Filled]:
    """`packing.fill` for one process's share of the conversations, in step with the others.

    A batch of all ends before the first conversation that does not fit into the batch of any. Two processes and
    1000 tokens, conversations of 300, 500, 400 and of 600, 200, 300: process 0 packs 300 + 500, then 400; process 1
    packs 600 + 200, then 300; 4 and 2 are taken. At the end of the data a batch may hold nothing; beside what is
    longer than a batch, and is to be taken alone, each of the others has one conversation.

    With a `cost`, what all do at the same time costs about the same: none waits long for the others. Of every WINDOW
    conversations that each process has, those that come first are each one's 17th dearest, say, then each one's 3rd.
    `start`: of all conversations so many were taken before; the share begins where `window_start` says.
    """
    mine = iter(examples)
    held: list[Encoded] = []
    names: list[str] = []
    filled, taken = [0] * ranks.size, 0
    number = window_start(start, ranks)
    most = math.inf if longer == "alone" else max_tokens
    while True:
        window = list(islice(mine, WINDOW))
        whole = min(size for (size,) in ranks.exchange([len(window)])) == WINDOW
        if whole and cost is not None:
            window = _in_like_order(window, cost, number)
        lengths = ranks.exchange([example.num_tokens for example in window] + [-1] * (WINDOW - len(window)))
        columns = list(zip(*lengths, strict=True))
        for place in range(max(0, start - number) // ranks.size, WINDOW):
            column = columns[place]
            fits = [length if 0 <= length <= most else 0 for length in column]
            over = any(used + length > max_tokens for used, length in zip(filled, fits, strict=True))
            if over and any(filled):
                yield Filled(tuple(held), taken, tuple(names))
                held, names, filled, taken = [], [], [0] * ranks.size, 0
            own = window[place] if place < len(window) else None
            if own is not None and takes(own, max_tokens, longer):
                held.append(own)
            elif own is not None:
                names.append(own.where)
            filled = [used + length for used, length in zip(filled, fits, strict=True)]
            taken += sum(length >= 0 for length in column)
        number += WINDOW * ranks.size
        if not whole:
            if any(filled):
                yield Filled(tuple(held), taken, tuple(names))
            return


def window_start(number: int, ranks: Ranks) -> int:
    """Where the window begins that conversation `number` is in."""
    return number - number % (WINDOW * ranks.size)


def _in_like_order(window: list[Encoded], cost: Callable[[Encoded], float], number: int) -> list[Encoded]:
    """In an order of ranks by cost that is the same for all processes, and another for every window."""
    by_cost = sorted(window, key=cost)
    return random.Random(number).sample(by_cost, len(by_cost))
