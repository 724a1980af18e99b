"""A run in which the tower alone learns (sight.py), from its folder to the next.

OUT/run.json, OUT/log.jsonl, OUT/checkpoints/, OUT/model      as of any run (state.py)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qwen3vl.errors import CheckpointError, InvalidParams
from qwen3vl.model.checkpoint import load_model, save_model
from qwen3vl.model.devices import best_device, parse_device
from qwen3vl.model.hub import locate
from qwen3vl.processor.processor import Processor
from qwen3vl.train.distributed import Ranks, joined
from qwen3vl.train.flops import FlopCounter, measure_peak
from qwen3vl.train.logs import JsonLog
from qwen3vl.train.loop import Trainer
from qwen3vl.train.optimizer import Optimizer
from qwen3vl.train.parameters import counts, freeze, parameter_groups
from qwen3vl.train.reports import Log, Progress, RunReport
from qwen3vl.train.run import precision, run_through
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sight import HeldOutSight, head_group, new_heads, quieten, sight_batch, sight_loss, sight_work
from qwen3vl.train.state import last_state, load_state, save_state, write_result
from qwen3vl.train.synthetic.places import draw_places

_RUN = "run.json"
_DATA = "pictures with the truth of every place"


@dataclass(frozen=True, slots=True, kw_only=True)
class SightRun:
    """Which tower learns, and how.

    Attributes:
        model: folder or hub name.
        out: a new or empty folder.
        settings: with steps, vision_lr and mergers_lr, and language_lr=None; tokens_per_batch counts merged tokens.
        limit: draw the first so many pictures only, and show them again and again.
        evaluate_on: held-out pictures.
        device: auto, or a torch device.
    """

    model: str
    out: Path
    settings: TrainSettings
    limit: int | None = None
    evaluate_on: int = 256
    device: str = "auto"

    def __post_init__(self) -> None:
        settings = self.settings
        if settings.language_lr is not None or settings.vision_lr is None or settings.mergers_lr is None:
            raise InvalidParams("a tower learns to see with vision_lr and mergers_lr, and language_lr=None")
        if settings.steps is None or settings.lora is not None or settings.accumulate != 1:
            raise InvalidParams("a tower learns to see in steps of one batch each, without adapters")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "settings": self.settings.to_json()}

    @classmethod
    def of_folder(cls, out: Path) -> SightRun:
        """The run whose results are in `out`. Raises CheckpointError."""
        try:
            values = json.loads((out / _RUN).read_text(encoding="utf-8"))
            assert values.pop("schema_version") == 1 and values.pop("kind") == "sight"
            return cls(**{**values, "out": out, "settings": TrainSettings.from_json(values["settings"])})
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise CheckpointError(f"{out / _RUN}: is not the record of a tower's run ({error!r})") from error


def sight_settings(*, steps: int, tokens: int, lr: float, **more: Any) -> TrainSettings:
    """Settings that served well; `more` goes over them. `tokens`: merged ones of a step. Raises InvalidParams."""
    values = {
        "language_lr": None, "mergers_lr": lr, "vision_lr": lr, "steps": steps, "tokens_per_batch": tokens,
        "schedule": "wsd", "warmup": min(0.1, 200 / max(steps, 1)), "decay": 0.3, "weight_decay": 0.05, "beta2": 0.98,
        "optimizer": "muon",
    }  # fmt: skip
    return TrainSettings.from_json({**values, **more})


def see(run: SightRun, *, go_on: bool = False, logs: Sequence[Log] = ()) -> tuple[Progress, bool]:
    """Train, or go on from the last saved state. -> how far it came, and whether it is finished.

    Ctrl-C (or SIGTERM) finishes the step, saves and returns. The result is OUT/model. Under torchrun the processes
    train together, each on its own pictures; that takes Muon (distributed.py). Raises what settings and checkpoint
    raise.
    """
    with joined(best_device() if run.device == "auto" else parse_device(run.device)) as ranks:
        if ranks.size > 1 and run.settings.optimizer != "muon":
            raise InvalidParams("of several processes that teach a tower each holds all of it: that takes muon")
        return _see(run, go_on, logs if ranks.is_main else (), ranks)


def _see(run: SightRun, go_on: bool, logs: Sequence[Log], ranks: Ranks) -> tuple[Progress, bool]:
    settings, base, device = run.settings, locate(run.model), ranks.device
    vision = Processor.from_folder(base).picture_settings
    if ranks.is_main and not go_on:
        _claim(run)
    ranks.wait()
    model = load_model(last_state(run.out) if go_on else base, dtype=precision(settings, device), device=device)
    freeze(model, settings)
    heads = new_heads(model.config.vision.out_hidden_size, settings.seed, device, model.dtype)
    assert settings.mergers_lr is not None
    groups = [*parameter_groups(model.train(), settings), head_group(heads, settings.mergers_lr)]
    optimizer = Optimizer(groups, settings, ranks)
    start = load_state(last_state(run.out), optimizer, ranks) if go_on else Progress()
    if ranks.is_main:
        logs = [JsonLog(run.out / "log.jsonl", settings.log_every), *logs]
    work = sight_work(
        settings.seed, vision, settings.tokens_per_batch, start.number,
        workers=settings.workers, limit=run.limit, ranks=ranks,
    )  # fmt: skip
    looks = run.evaluate_on > 0 and ranks.is_main
    with closing(work):
        trainer = Trainer(
            model,
            optimizer,
            partial(sight_loss, heads),
            work,
            settings,
            start=start,
            processes=ranks,
            logs=logs,
            flops=FlopCounter.of(model).tower,  # there is no text; the heads are not counted
            evaluate=HeldOutSight(model, heads, vision, run.evaluate_on) if looks else None,
            save=lambda progress: _save(run, base, trainer, progress, ranks),
        )
        precision_name = str(model.dtype).removeprefix("torch.")
        peak = ranks.total(measure_peak(device, model.dtype))
        report = RunReport(counts(model), _DATA, str(device), precision_name, peak, settings.steps, start)

        def write() -> None:
            write_result(run.out / "model", base, model, optimizer, ranks)
            if ranks.is_main:
                _quieten(run.out / "model", settings.seed)
            ranks.wait()

        return run_through(trainer, report, logs, write)


def _quieten(folder: Path, seed: int) -> None:
    """The embeddings of a written model become as large as those of text."""
    model, vision = load_model(folder, device="cpu"), Processor.from_folder(folder).picture_settings
    quieten(model, sight_batch([draw_places("train", seed, index) for index in range(32)], vision))
    save_model(model, folder)


def _claim(run: SightRun) -> None:
    if run.out.exists() and any(run.out.iterdir()):
        raise InvalidParams(f"{run.out}: is not empty; give a new folder, or go on with --resume")
    run.out.mkdir(parents=True, exist_ok=True)
    values = {"schema_version": 1, "kind": "sight", **run.to_json()}
    (run.out / _RUN).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _save(run: SightRun, base: Path, trainer: Trainer, progress: Progress, ranks: Ranks) -> None:
    assert isinstance(trainer.optimizer, Optimizer)
    save_state(run.out, base, trainer.model, trainer.optimizer, progress, run.settings.keep, ranks)
