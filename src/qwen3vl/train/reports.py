"""What a run says of itself: how far it is, and what each step did. Pure data, and the roles that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; with the weights and the optimizer's state all that the next step depends on.

    Attributes:
        step: steps done.
        number: of the next conversation (see sources.py).
        tokens, labels, conversations, skipped: in all steps so far; skipped ones were too long.
        seconds: spent in steps.
    """

    step: int = 0
    number: int = 0
    tokens: int = 0
    labels: int = 0
    conversations: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step.

    Attributes:
        progress: after the step.
        place: where in the run it stands, 0..1 (schedule.py).
        loss: mean over the step's learnt tokens, without the experts' balance.
        gradient_norm: before clipping.
        rates: learning rate of each part that trains.
        tokens, labels, patches, conversations, batches: in this step.
        seconds: from the end of the last step to the end of this one, of which `waiting` for data.
        flops: floating-point operations of forward and backward, counted from the shapes.
        skipped: names of conversations that were too long.
        epoch: times through the data so far; None for data that do not repeat.
    """

    progress: Progress
    place: float
    loss: float
    gradient_norm: float
    rates: Mapping[str, float]
    tokens: int
    labels: int
    patches: int
    conversations: int
    batches: int
    seconds: float
    waiting: float
    flops: float
    balance: float | None = None
    skipped: tuple[str, ...] = ()
    epoch: float | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class RunReport:
    """What is known before the first step.

    Attributes:
        values: part -> (values that train, values in all).
        peak: floating-point operations a second that the machine reaches on large products; 0: not measured.
        end: number of steps, or None where the run is given in epochs.
        start: where the run begins or goes on.
    """

    values: Mapping[str, tuple[int, int]]
    data: str
    device: str
    precision: str
    peak: float = 0.0
    end: int | None = None
    start: Progress = field(default_factory=Progress)


class Log(Protocol):
    """Something that is told what a run does."""

    def begin(self, run: RunReport) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def evaluated(self, progress: Progress, values: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...
