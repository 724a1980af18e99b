"""A whole training run: what was asked for, put together from its parts.

TrainRun ──► source (sources.py) ──► encoder, batches (loader.py, packing.py) ─┐
         └─► model (checkpoint, or from scratch; adapters) ──► optimizer ──────┼─► Trainer (loop.py) ─► OUT/model
                                                  logs, evaluation, saving ────┘
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.errors import CheckpointError, DataError, InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.devices import best_device, parse_device
from qwen3vl.model.hub import locate
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.data_specs import open_source
from qwen3vl.train.distributed import Ranks, fill_together, idle_batch, joined, shard, window_start
from qwen3vl.train.examples import Encoded, Encoder
from qwen3vl.train.flops import FlopCounter, measure_peak
from qwen3vl.train.initial import initialise
from qwen3vl.train.loader import EncoderRecipe, prepare, prepare_in_processes
from qwen3vl.train.logs import JsonLog
from qwen3vl.train.loop import StepWork, Trainer
from qwen3vl.train.loss import Objective, batch_loss
from qwen3vl.train.optimizer import Optimizer
from qwen3vl.train.packing import fill, pack
from qwen3vl.train.parameters import counts, freeze, parameter_groups
from qwen3vl.train.reports import Log, Progress, RunReport
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sources import Source
from qwen3vl.train.state import last_state, load_state, save_state, write_result

_RUN = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRun:
    """What to train on what.

    Attributes:
        data: files, and mixtures of generated samples (data_specs.py).
        model: folder or hub name; with `from_scratch` only its config and processor files are used.
        out: a new or empty folder.
        eval_data: what the loss is measured on during the run; of generated samples the held-out side.
        evaluate_on: how many of its conversations.
        data_root: folder that relative names of pictures and videos start from; None: the data file's own.
        limit: train on the first so many conversations only.
        device: auto, or a torch device.
    """

    data: tuple[str, ...]
    model: str
    out: Path
    settings: TrainSettings
    eval_data: tuple[str, ...] = ()
    evaluate_on: int = 256
    data_root: Path | None = None
    limit: int | None = None
    from_scratch: bool = False
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        root = None if self.data_root is None else str(self.data_root)
        return {**asdict(self), "out": str(self.out), "data_root": root, "settings": self.settings.to_json()}

    @classmethod
    def of_folder(cls, out: Path) -> TrainRun:
        """The run whose results are in `out`. Raises CheckpointError."""
        try:
            values = json.loads((out / _RUN).read_text(encoding="utf-8"))
            for key in ("identity", "schema_version"):
                values.pop(key, None)
            root = values.pop("data_root")
            return cls(
                **{
                    **values,
                    "out": out,
                    "data_root": None if root is None else Path(root),
                    "data": tuple(values["data"]),
                    "eval_data": tuple(values["eval_data"]),
                    "settings": TrainSettings.from_json(values["settings"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{out / _RUN}: is not the record of a training run ({error!r})") from error


def train(run: TrainRun, *, go_on: bool = False, logs: Sequence[Log] = ()) -> tuple[Progress, bool]:
    """Train, or go on from the last saved state. -> how far it came, and whether it is finished.

    Ctrl-C (or SIGTERM) finishes the step, saves and returns. Raises what settings, data and checkpoint raise.
    Under torchrun the processes train together (distributed.py).
    """
    with joined(best_device() if run.device == "auto" else parse_device(run.device)) as ranks:
        return _train(run, go_on, logs if ranks.is_main else (), ranks)


def _train(run: TrainRun, go_on: bool, logs: Sequence[Log], ranks: Ranks) -> tuple[Progress, bool]:
    settings = run.settings
    source = open_source(run.data, run.data_root, settings, "train", run.limit)
    if settings.epochs is not None and source.size is None:
        raise InvalidParams("epochs: these data never end; give steps")
    if ranks.is_main:
        _claim(run, source, go_on)
    ranks.wait()
    base = locate(run.model)
    recipe = EncoderRecipe(base, settings.media)
    encoder = recipe.make()
    model = _model(run, base, go_on, ranks)
    objective: Objective = partial(batch_loss, moe_balance=settings.moe_balance)
    if settings.optimizer == "adamw":  # muon turns whole matrices: every process has the whole model
        objective = shard(model, objective, ranks)
    optimizer = Optimizer(parameter_groups(model, settings), settings, ranks)
    start = load_state(last_state(run.out), optimizer, ranks) if go_on else Progress()
    total = None if settings.epochs is None else round(settings.epochs * (source.size or 0))
    prepared = partial(_prepared, source, encoder, recipe, settings.workers)
    flops = FlopCounter.of(model)
    work = step_work(prepared, settings, flops, start.number, total, ranks)
    if ranks.is_main:
        logs = [JsonLog(run.out / "log.jsonl", settings.log_every), *logs]
    trainer = Trainer(
        model,
        optimizer,
        objective,
        work,
        settings,
        total=total,
        epoch_size=source.size,
        start=start,
        processes=ranks,
        logs=logs,
        flops=flops,
        evaluate=_evaluation(run, model, encoder, objective),
        save=lambda progress: _save(run, base, model, optimizer, progress, ranks),
    )
    with closing(work):  # worker processes end with it
        return run_through(
            trainer,
            _report(run, source, model, start, ranks),
            logs,
            lambda: write_result(run.out / "model", base, model, optimizer, ranks),
        )


def run_through(
    trainer: Trainer, report: RunReport, logs: Sequence[Log], write: Callable[[], None]
) -> tuple[Progress, bool]:
    """Train with the logs open, and `write` the result of a run that was not stopped. -> as `train`."""
    for log in logs:
        log.begin(report)
    try:
        with stopping_on_signals(trainer, logs):
            trainer.run()
        if not trainer.stopped:
            write()
    finally:
        for log in logs:
            log.close()
    return trainer.progress, not trainer.stopped


def step_work(
    prepared: Callable[[Iterator[int]], Generator[Encoded, None, None]],
    settings: TrainSettings,
    flops: FlopCounter,
    start: int,
    total: int | None,
    ranks: Ranks,
) -> Generator[StepWork, None, None]:
    """The work of each step from conversation `start` on; to `total`, or without end."""
    alone = ranks.size == 1
    first = start if alone else window_start(start, ranks)
    numbers = itertools.count(first) if total is None else iter(range(first, total))
    number, merge_size = start, flops.config.vision.spatial_merge_size
    limits = settings.tokens_per_batch, settings.too_long
    with closing(prepared(ranks.share(numbers))) as examples:
        if alone:
            filled = fill(examples, *limits)
        else:
            filled = fill_together(examples, *limits, ranks, cost=flops.conversation, start=start)
        while group := list(itertools.islice(filled, settings.accumulate)):
            number += sum(item.num_taken for item in group)
            skipped = tuple(name for item in group for name in item.skipped)
            batches = tuple(pack(item.examples, merge_size) if item.examples else idle_batch() for item in group)
            yield StepWork(batches, number, skipped)


class HeldOutLoss:
    """The mean loss over the learnt tokens of conversations that are not trained on.

    Those that are too long are refused or left out, as the settings say of others. Raises DataError.
    """

    def __init__(
        self,
        model: Qwen3VL,
        source: Source,
        count: int,
        encoder: Encoder,
        objective: Objective,
        settings: TrainSettings,
    ) -> None:
        self._model, self._objective = model, objective
        count = count if source.size is None else min(count, source.size)
        limits = settings.tokens_per_batch, settings.too_long
        self._filled = [f for f in fill(prepare(source, range(count), encoder), *limits) if f.examples]
        if not self._filled:
            raise DataError(f"{source.identity}: none of {count} conversations has at most {limits[0]} tokens")

    @torch.no_grad()
    def __call__(self, progress: Progress) -> Mapping[str, float]:
        merge_size = self._model.config.vision.spatial_merge_size
        total, num_labels = 0.0, 0
        self._model.eval()
        for filled in self._filled:
            loss = self._objective(self._model, pack(filled.examples, merge_size).to(self._model.device))
            total, num_labels = total + float(loss.total), num_labels + loss.num_labels
        self._model.train()
        return {"loss": total / num_labels}


@contextmanager
def stopping_on_signals(trainer: Trainer, logs: Sequence[Log]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets the trainer stop behind its step; a second one ends the program."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def ask(kind: int, frame: object) -> None:
        trainer.stop()
        for log in logs:
            log.note("stopping: the state is saved behind this step (once more to leave at once)")
        signal.signal(kind, before[signal.Signals(kind)])

    try:
        for kind in before:
            signal.signal(kind, ask)
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _claim(run: TrainRun, source: Source, go_on: bool) -> None:
    """Write run.json into a new folder, or compare with the one that is there."""
    path = run.out / _RUN
    if go_on:
        last_state(run.out)
        identity = json.loads(path.read_text(encoding="utf-8")).get("identity")
        if identity != source.identity:
            raise DataError(f"{run.out}: the run was on {identity}, but the data are now {source.identity}")
        return
    if run.out.exists() and any(run.out.iterdir()):
        raise InvalidParams(f"{run.out}: is not empty; give a new folder, or go on with: qwen3vl train resume")
    run.out.mkdir(parents=True, exist_ok=True)
    values = {"schema_version": 1, **run.to_json(), "identity": source.identity}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _model(run: TrainRun, base: Path, go_on: bool, ranks: Ranks) -> Qwen3VL:
    """The model as it trains: weights, what is frozen, adapters."""
    settings = run.settings
    device = ranks.device
    dtype = precision(settings, device)
    folder = last_state(run.out) if go_on and settings.lora is None else base
    if run.from_scratch and not go_on:
        model = Qwen3VL(ModelConfig.from_folder(base))
        initialise(model, settings.seed)
        model = model.to(device, dtype)
    else:
        model = load_model(folder, dtype=dtype, device=device)
    if settings.lora is not None:
        from qwen3vl.train.lora import add_lora

        torch.manual_seed(settings.seed)
        add_lora(model, settings.lora, run.model)
    else:
        freeze(model, settings)
    if settings.gradient_checkpointing:
        from qwen3vl.train.checkpointing import use_gradient_checkpointing

        use_gradient_checkpointing(model)
    torch.manual_seed(settings.seed + ranks.rank)  # of dropout in adapters
    return model.train()


def precision(settings: TrainSettings, device: torch.device) -> torch.dtype:
    """Of forward and backward passes."""
    if settings.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings.precision]


def _prepared(
    source: Source, encoder: Encoder, recipe: EncoderRecipe, workers: int, numbers: Iterator[int]
) -> Generator[Encoded, None, None]:
    if workers:
        return prepare_in_processes(source, numbers, recipe, workers)
    return prepare(source, numbers, encoder)


def _evaluation(run: TrainRun, model: Qwen3VL, encoder: Encoder, objective: Objective) -> HeldOutLoss | None:
    if not run.eval_data:
        return None
    source = open_source(run.eval_data, run.data_root, run.settings, "heldout")
    return HeldOutLoss(model, source, run.evaluate_on, encoder, objective, run.settings)


def _save(run: TrainRun, base: Path, model: Qwen3VL, optimizer: Optimizer, progress: Progress, ranks: Ranks) -> None:
    save_state(run.out, base, model, optimizer, progress, run.settings.keep, ranks)


def _report(run: TrainRun, source: Source, model: Qwen3VL, start: Progress, ranks: Ranks) -> RunReport:
    peak = ranks.total(measure_peak(model.device, model.dtype))
    return RunReport(
        counts(model), source.identity, str(model.device), str(model.dtype).removeprefix("torch."), peak,
        run.settings.steps, start,
    )  # fmt: skip
