"""The training loop: batches in, better weights out.

Trainer.run   for the work of each step:  step -> report -> evaluate -> save
Trainer.step  for each batch: loss, backward;  then the optimizer

What it needs is handed to it as roles: the objective (loss.py), the optimizer (optimizer.py), the other processes
(distributed.py), what to do when an evaluation or a saved state is due. None of them knows the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qwen3vl.errors import GenerationError
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.flops import FlopCounter
from qwen3vl.train.loss import Objective
from qwen3vl.train.packing import TrainBatch
from qwen3vl.train.parameters import learning_rates
from qwen3vl.train.reports import Log, Progress, StepReport
from qwen3vl.train.schedule import middle, rate_factor
from qwen3vl.train.settings import TrainSettings

Evaluate = Callable[[Progress], Mapping[str, float]]
Save = Callable[[Progress], None]


class TrainingDiverged(GenerationError):
    """The loss or the gradients are no longer numbers."""


@dataclass(frozen=True, slots=True)
class StepWork:
    """The batches of one step, and where the data stand after them."""

    batches: tuple[TrainBatch, ...]
    number: int
    skipped: tuple[str, ...] = ()


class Mover(Protocol):
    """What the trainer needs of an optimizer."""

    def step(self, rate_factor: float) -> Tensor: ...


class Processes(Protocol):
    """The processes that train together."""

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""
        ...


class OneProcess:
    def total(self, value: float) -> float:
        return value


class Trainer:
    """One run of training.

    Args:
        work: the steps' batches, see run.py; it ends when the data do.
        total: of all conversations of the run, where it is given in epochs.
        flops: operations of a batch, forward and backward; by default those of the whole model.
        evaluate, save: called when they are due by the settings, and at the end.
    """

    def __init__(
        self,
        model: Qwen3VL,
        optimizer: Mover,
        objective: Objective,
        work: Iterator[StepWork],
        settings: TrainSettings,
        *,
        total: float | None = None,
        epoch_size: int | None = None,
        start: Progress = Progress(),  # noqa: B008  # frozen
        processes: Processes = OneProcess(),  # noqa: B008  # without state
        logs: Sequence[Log] = (),
        flops: Callable[[TrainBatch], float] | None = None,
        evaluate: Evaluate | None = None,
        save: Save | None = None,
    ) -> None:
        assert (total is None) == (settings.epochs is None), (total, settings.epochs)
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.settings, self.processes, self.logs = settings, processes, tuple(logs)
        self.progress = start
        self._work, self._total, self._epoch_size = work, total, epoch_size
        self._evaluate, self._save = evaluate, save
        self._flops = flops or FlopCounter.of(model)
        self._stopping = False

    def stop(self) -> None:
        """Save after the step that is being done, and return from `run`."""
        self._stopping = True

    @property
    def stopped(self) -> bool:
        """Whether the run ended before it was done."""
        return self._stopping and not self._done()

    def run(self) -> Progress:
        """Train to the end, or until `stop` is called. Raises TrainingDiverged, and what the data raise."""
        evaluated = saved = self.progress.step
        while not (self._asked_to_stop() or self._done()):
            began = time.perf_counter()
            work = next(self._work, None)
            if work is None:
                break
            report = self.step(work, began)
            for log in self.logs:
                log.step(report)
            if _due(self.progress.step, self.settings.evaluate_every):
                evaluated = self._evaluated()
            if _due(self.progress.step, self.settings.save_every):
                saved = self._saved()
        if evaluated != self.progress.step and not self.stopped:
            self._evaluated()
        if saved != self.progress.step:
            self._saved()
        return self.progress

    def step(self, work: StepWork, began: float) -> StepReport:
        """One step of the optimizer over all its batches."""
        arrived = time.perf_counter()
        num_labels = self.processes.total(sum(batch.num_labels for batch in work.batches))
        losses, balances = [], []
        for batch in work.batches:
            loss = self.objective(self.model, batch.to(self.model.device))
            loss.share_of(num_labels).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.total.detach())
            if loss.balance is not None:
                balances.append(loss.balance.detach())
        place = self._place(work.number)
        factor = rate_factor(self.settings, place)
        norm = self.optimizer.step(factor)
        loss_sum, norm_value = self.processes.total(float(torch.stack(losses).sum())), float(norm)
        if not (torch.isfinite(torch.tensor([loss_sum, norm_value])).all()):
            names = [name for batch in work.batches for name in batch.where]
            raise TrainingDiverged(
                f"step {self.progress.step + 1}: loss {loss_sum / num_labels}, gradient norm {norm_value}; "
                f"the conversations are {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            )
        balance = float(torch.stack(balances).mean()) if balances else None
        return self._report(work, began, arrived, place, factor, loss_sum / num_labels, norm_value, balance)

    def _report(
        self,
        work: StepWork,
        began: float,
        arrived: float,
        place: float,
        factor: float,
        loss: float,
        norm: float,
        balance: float | None,
    ) -> StepReport:
        batches, last = work.batches, self.progress
        total = self.processes.total
        tokens, labels = (int(total(sum(getattr(b, n) for b in batches))) for n in ("num_tokens", "num_labels"))
        conversations = int(total(sum(len(batch.lengths) for batch in batches)))
        seconds = time.perf_counter() - began
        self.progress = Progress(
            last.step + 1,
            work.number,
            last.tokens + tokens,
            last.labels + labels,
            last.conversations + conversations,
            last.skipped + len(work.skipped),
            last.seconds + seconds,
        )
        return StepReport(
            self.progress,
            place,
            loss,
            norm,
            {part: rate * factor for part, rate in learning_rates(self.settings).items() if rate},
            tokens,
            labels,
            int(total(sum(batch.num_patches for batch in batches))),
            conversations,
            len(batches),
            seconds,
            arrived - began,
            total(sum(self._flops(batch) for batch in batches)),
            balance,
            work.skipped,
            work.number / self._epoch_size if self._epoch_size else None,
        )

    def _asked_to_stop(self) -> bool:
        """All processes stop behind the same step: the others would wait for one that has left."""
        self._stopping = self.processes.total(float(self._stopping)) > 0
        return self._stopping

    def _place(self, number: int) -> float:
        if self.settings.steps is not None:
            return middle(self.progress.step, self.progress.step + 1, self.settings.steps)
        assert self._total is not None
        return middle(self.progress.number, number, self._total)

    def _done(self) -> bool:
        if self.settings.steps is not None:
            return self.progress.step >= self.settings.steps
        assert self._total is not None
        return self.progress.number >= self._total

    def _evaluated(self) -> int:
        if self._evaluate is not None:
            values = self._evaluate(self.progress)
            for log in self.logs:
                log.evaluated(self.progress, values)
        return self.progress.step

    def _saved(self) -> int:
        if self._save is not None:
            self._save(self.progress)
        return self.progress.step


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
