"""How the small model that comes with the package is made: from nothing to its folder, in stages.

    OUT/new                       random weights and a tokenizer (small.py)
    OUT/see                       the tower alone learns what lies where (sight_run.py)
    OUT/begin, answer             the whole model answers, easy questions first (run.py)
    OUT/model                     the newest weights in bfloat16, ready to be used or packed

`through` goes on where the last call stopped, inside a stage too. It may be stopped at any time and its newest
weights written out (`export`): rates fall to nothing at a stage's end, so weights from within are worse than they
will be. Several processes of torchrun share the tokens of every step.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from qwen3vl.errors import CheckpointNotFound
from qwen3vl.model.checkpoint import load_model, save_model
from qwen3vl.train.distributed import ONE_PROCESS, Ranks
from qwen3vl.train.reports import Log
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sight_run import SightRun, see, sight_settings
from qwen3vl.train.small import Progress, make_small
from qwen3vl.train.state import copy_processor_files, last_state, saved_states

SIZE = "small"
SEED = 0
SAVE_EVERY = 250
DECAY = 0.95  # share of a stage's steps in which its rate falls in a straight line


@dataclass(frozen=True, slots=True)
class Means:
    """What a run is made with; little of it changes what is learnt but `scale`, by which all steps are multiplied."""

    scale: float = 1.0
    workers: int = 0
    device: str = "auto"
    logs: Sequence[Log] = ()
    ranks: Ranks = ONE_PROCESS

    def steps(self, steps: int) -> int:
        return max(1, round(self.scale * steps))


class Stage(Protocol):
    """A run that begins with the result of the stage before it."""

    @property
    def name(self) -> str: ...

    def go(self, base: Path, folder: Path, means: Means, go_on: bool) -> bool:
        """Train from `base`, or go on in `folder`. -> whether it is finished (not stopped)."""
        ...


@dataclass(frozen=True, slots=True)
class Seeing:
    """The tower alone, with `tokens` merged tokens a step and a rate that falls from the beginning.

    Attributes:
        kept: pictures that are drawn; then they are shown again, changed a little: drawing takes as long as learning.
    """

    name: str
    steps: int
    tokens: int
    rate: float
    kept: int

    def go(self, base: Path, folder: Path, means: Means, go_on: bool) -> bool:
        steps = means.steps(self.steps)
        warmup = min(0.1, 100 / steps)
        settings = sight_settings(
            steps=steps, tokens=self.tokens // means.ranks.size, lr=self.rate, seed=SEED, workers=means.workers,
            warmup=warmup, decay=min(DECAY, 1 - warmup), save_every=SAVE_EVERY, evaluate_every=2 * SAVE_EVERY,
        )  # fmt: skip
        run = SightRun(model=str(base), out=folder, settings=settings, limit=self.kept, device=means.device)
        return see(SightRun.of_folder(folder) if go_on else run, go_on=go_on, logs=means.logs)[1]


@dataclass(frozen=True, slots=True)
class Answering:
    """The whole model on generated tasks (weights as data_specs.parse_mix reads them).

    Attributes:
        tower: share of the rate at which the tower goes on learning; 0: it stays as it is.
        decay: share of the steps in which the rate falls.
        last: share of the rate that is left at the end.
        seed: of the samples; another than an earlier stage's, or they would be the same ones again.
    """

    name: str
    tasks: str
    steps: int
    tokens: int
    rate: float
    tower: float
    decay: float = 0.3
    last: float = 0.0
    seed: int = SEED

    def go(self, base: Path, folder: Path, means: Means, go_on: bool) -> bool:
        steps = means.steps(self.steps)
        warmup = min(0.1, 100 / steps)
        settings = TrainSettings(
            language_lr=self.rate, mergers_lr=self.rate, vision_lr=self.tower * self.rate or None, steps=steps,
            tokens_per_batch=self.tokens // means.ranks.size, too_long="alone", optimizer="muon", weight_decay=0.05,
            beta2=0.98, schedule="wsd", warmup=warmup, decay=min(self.decay, 1 - warmup), final_share=self.last,
            seed=self.seed, workers=means.workers, save_every=SAVE_EVERY, evaluate_every=2 * SAVE_EVERY,
        )  # fmt: skip
        data = (f"synthetic:{self.tasks}",)
        run = TrainRun(data=data, model=str(base), out=folder, settings=settings, eval_data=data, device=means.device)
        if go_on:
            run = TrainRun.of_folder(folder)
            run = replace(run, device=means.device, settings=replace(run.settings, workers=means.workers))
        return train(run, go_on=go_on, logs=means.logs)[1]


# A loss is the mean over the labels of a step, and an answer of one word has three: such tasks come often, or what has
# hundreds (pages, lists of boxes) is all that is learnt.
_BEGIN = (
    "interview_small=4,first_color=4,first_shape=6,first_place=3,first_count=3,read_glyph=1,read_glyphs=8,"
    "read_word=25,read_line=12,read_block=1"
)
_ANSWER = (
    "first_color=1,first_shape=1.2,first_place=0.7,first_count=2,question_color=2,question_kind=3,question_place=3,"
    "question_presence=0.5,question_relation=2,question_size=0.5,question_extreme=0.5,count=6,count_boxes=0.3,"
    "interview_questions=12,interview_counts=12,interview_small=2,interview_scene=1.5,read_word=35,read_line=65,"
    "read_glyphs=0.5,read_block=5,locate_small=10,locate=7,widget_locate=5,interview_screen=3,interview_clicks=0.9,"
    "table_html_small=1.2,table_html=0.2,clip_moment_small=2.5,clip_moment=0.3,interview_clip=2.5,"
    "spot_words_scattered=1.2,interview_text=0.3,interview_receipt=0.5,receipt_total=1,receipt_fields=0.4"
)
STAGES: tuple[Stage, ...] = (
    Seeing("see", 24_000, 512, 3e-3, kept=160_000),
    Answering("begin", _BEGIN, 2500, 1536, 4e-3, tower=0.0),
    Answering("answer", _ANSWER, 25_000, 1536, 1.2e-3, tower=0.3, decay=DECAY, seed=1),
)


def begin(out: Path, progress: Progress | None = None) -> None:
    """Make OUT/new if it is not there."""
    new = out / "new"
    if not (new / "model.safetensors").exists():
        shutil.rmtree(new, ignore_errors=True)
        make_small(new, SIZE, seed=SEED, progress=progress)


def through(out: Path, stage: Stage, means: Means, stages: Sequence[Stage] = STAGES) -> bool:
    """Do a stage, or what is left of it, behind those before it. -> False if Ctrl-C stopped it."""
    at, folder, ranks = list(stages).index(stage), out / stage.name, means.ranks
    base = out / stages[at - 1].name / "model" if at else out / "new"
    ranks.wait()  # all look before one of them changes what they see
    done, go_on = (folder / "model").is_dir(), bool(saved_states(folder))
    ranks.wait()
    if done:
        return True
    if ranks.is_main and not go_on:
        shutil.rmtree(folder, ignore_errors=True)  # stopped before its first state
    return stage.go(base, folder, means, go_on)


def export(out: Path, stages: Sequence[Stage] = STAGES) -> Path:
    """Write the newest weights as OUT/model, in bfloat16. -> the folder they came from. Raises CheckpointNotFound."""
    source = newest(out, stages)
    save_model(load_model(source, dtype=torch.bfloat16, device="cpu"), out / "model")
    copy_processor_files(out / "new", out / "model")
    return source


def newest(out: Path, stages: Sequence[Stage] = STAGES) -> Path:
    """The folder of the newest weights of any stage. Raises CheckpointNotFound."""
    for stage in reversed(stages):
        folder = out / stage.name
        if (folder / "model").is_dir():
            return folder / "model"
        if saved_states(folder):
            return last_state(folder)
    raise CheckpointNotFound(f"{out}: no stage has saved weights yet")
