"""`qwen3vl train`: train, go on, and look at training data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Exit, Option

from qwen3vl.cli.failures import INTERRUPTED
from qwen3vl.cli.options import LookOptions, command
from qwen3vl.cli.train_check import check
from qwen3vl.cli.train_merge import merge
from qwen3vl.cli.train_new import new
from qwen3vl.cli.train_preview import preview
from qwen3vl.cli.train_see import see
from qwen3vl.cli.train_shards import shards
from qwen3vl.cli.train_small import small
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import MediaOptions
from qwen3vl.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from qwen3vl.train.reports import Log, Progress
    from qwen3vl.train.run import TrainRun
    from qwen3vl.train.settings import TrainSettings

app = typer.Typer(help="Train a model: from a checkpoint or from nothing.", rich_markup_mode=None)
_FROM_SCRATCH_RATE = 1e-3  # of all parts, where none is given


@dataclass(frozen=True, slots=True)
class RateOptions:
    """What trains, and how fast."""

    lr: Annotated[float | None, Option(help="Learning rate of all three parts; the next three go over it.")] = None
    language_lr: Annotated[
        float | None, Option(help="Of the language model; 0 freezes it [1e-5; from scratch 1e-3].")
    ] = None
    mergers_lr: Annotated[
        float | None, Option(help="Of the mergers, DeepStack's included; 0 freezes them [1e-5; 1e-3].")
    ] = None
    vision_lr: Annotated[
        float | None, Option(help="Of the vision tower; 0 freezes it [frozen; from scratch 1e-3].")
    ] = None
    lora: Annotated[bool, Option("--lora", help="Train low-rank adapters; everything else is frozen.")] = False
    lora_rank: Annotated[int | None, Option(help="[64]")] = None
    lora_alpha: Annotated[float | None, Option(help="Adapters count alpha / rank [128].")] = None
    lora_dropout: Annotated[float | None, Option(help="[0]")] = None
    lora_targets: Annotated[
        str | None, Option(help="Layers behind commas, or attention, mlp, vision, mergers [attention].")
    ] = None

    def settings(self, from_scratch: bool) -> dict[str, Any]:
        """Only what was given. Raises InvalidParams."""
        base = _FROM_SCRATCH_RATE if from_scratch and self.lr is None else self.lr
        names = ("language_lr", "mergers_lr", "vision_lr")
        rates = {name: base if getattr(self, name) is None else getattr(self, name) for name in names}
        lora = {key: getattr(self, f"lora_{key}") for key in ("rank", "alpha", "dropout", "targets")}
        given = {key: value for key, value in lora.items() if value is not None}
        if given and not self.lora:
            raise InvalidParams(f"--lora-{next(iter(given))} needs --lora")
        if "targets" in given:
            given["targets"] = tuple(name.strip() for name in given["targets"].split(","))
        # 0 is the command line's way to say None: frozen.
        settings = {name: rate or None for name, rate in rates.items() if rate is not None}
        return {**settings, **({"lora": given} if self.lora else {})}


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How long, in which batches, on which schedule; fields named as in TrainSettings."""

    steps: Annotated[int | None, Option(help="Optimizer steps; or ...")] = None
    epochs: Annotated[float | None, Option(help="... times through the data.")] = None
    tokens_per_batch: Annotated[
        int | None, Option(help="Whole conversations are packed into this many tokens, visual ones included [8192].")
    ] = None
    accumulate: Annotated[int | None, Option(help="Batches to a step [1].")] = None
    too_long: Annotated[str | None, Option(help="Conversations longer than a batch: error, skip or alone [error].")] = (
        None
    )
    schedule: Annotated[str | None, Option(help="cosine, wsd (warm-up, stable, decay) or constant [cosine].")] = None
    warmup: Annotated[float | None, Option(help="Share of the run in which the rate rises [0.03].")] = None
    decay: Annotated[float | None, Option(help="Share of the run in which it falls, for wsd [0.2].")] = None
    final_share: Annotated[float | None, Option(help="Of the highest rate, at the end [0].")] = None
    weight_decay: Annotated[float | None, Option(help="Not on biases and norms [0].")] = None
    optimizer: Annotated[str | None, Option(help="adamw, or muon (for new, small models) [adamw].")] = None
    beta2: Annotated[float | None, Option(help="AdamW's [0.999].")] = None
    clip_norm: Annotated[float | None, Option(help="Bound on the norm of the gradients; 0 is none [1].")] = None
    moe_balance: Annotated[float | None, Option(help="Weight of the experts' load-balancing loss [0.001].")] = None
    precision: Annotated[
        str | None, Option(help="auto (bfloat16 on CUDA, else float32), float32 or bfloat16 [auto].")
    ] = None
    gradient_checkpointing: Annotated[
        bool, Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False
    seed: Annotated[int | None, Option(help="Of the data's order and of first values [0].")] = None
    workers: Annotated[int | None, Option(help="Processes that prepare the data [0].")] = None
    log_every: Annotated[int | None, Option(help="Steps [1].")] = None
    evaluate_every: Annotated[int | None, Option(help="Steps; 0: at the end only [0].")] = None
    save_every: Annotated[int | None, Option(help="Steps; 0: at the end only [1000].")] = None
    keep: Annotated[int | None, Option(help="Saved states that stay; 0: all [1].")] = None
    ignore_key: Annotated[list[str] | None, Option(help="A key of the data that means nothing; may be repeated.")] = (
        None
    )

    def settings(self) -> dict[str, Any]:
        """Only what was given."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        if "ignore_key" in given:
            given["ignored_keys"] = tuple(given.pop("ignore_key"))
        if given.get("clip_norm") == 0:
            given["clip_norm"] = None
        return given


@command
def run(
    data: Annotated[
        list[str], Argument(metavar="DATA...", help="JSONL files, and mixtures of generated samples (synthetic:all).")
    ],
    model: Annotated[str, Option(help="Folder, or name on the hub.")],
    out: Annotated[Path, Option(help="A new or empty folder for states, logs and the result.")],
    from_scratch: Annotated[
        bool, Option("--from-scratch", help="Take only config and tokenizer of --model; draw new weights.")
    ] = False,
    settings_file: Annotated[Path | None, Option("--settings", help="A JSON or YAML file; options go over it.")] = None,
    eval_data: Annotated[list[str] | None, Option(help="Measure the loss on this; may be repeated.")] = None,
    evaluate_on: Annotated[int, Option(help="Conversations of --eval-data to measure on.")] = 256,
    data_root: Annotated[
        Path | None, Option(help="Folder that names of pictures and videos start from [the data file's own].")
    ] = None,
    limit: Annotated[int | None, Option(help="Train on the first so many conversations only.")] = None,
    device: Annotated[str, Option(help="auto (CUDA where there is one), cpu, cuda, ...")] = "auto",
    tensorboard: Annotated[bool, Option("--tensorboard/--no-tensorboard", help="Also write OUT/tensorboard.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document at the end.")] = False,
    *,
    rates: RateOptions,
    steps: StepOptions,
    look: LookOptions,
) -> None:
    """Train on conversations with pictures and videos.

    \b
        qwen3vl train run receipts.jsonl --model Qwen/Qwen3-VL-4B-Instruct --out run --epochs 2 --lora --lr 1e-4
        qwen3vl train run synthetic:all --model my-model --from-scratch --out run --steps 20000

    Data are in the official fine-tuning format or chat messages (see docs/training.md); check them first with
    `qwen3vl train check`. The result is OUT/model, which also transformers loads. Ctrl-C saves; `qwen3vl train
    resume OUT` goes on as if nothing had happened. Several GPUs:
    torchrun --nproc-per-node N -m qwen3vl train run ...
    Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from qwen3vl.train.run import TrainRun

    settings = _settings(settings_file, rates.settings(from_scratch), steps.settings(), look.media())
    asked = TrainRun(
        data=tuple(data),
        model=model,
        out=out,
        settings=settings,
        eval_data=tuple(eval_data or ()),
        evaluate_on=evaluate_on,
        data_root=data_root,
        limit=limit,
        from_scratch=from_scratch,
        device=device,
    )
    _train(asked, go_on=False, tensorboard=tensorboard, as_json=as_json)


@command
def resume(
    out: Annotated[Path, Argument(metavar="OUT", help="The folder of a run that was stopped.")],
    device: Annotated[str | None, Option(help="Another device than before.")] = None,
    tensorboard: Annotated[bool, Option("--tensorboard/--no-tensorboard", help="Also write OUT/tensorboard.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Go on from the last saved state, exactly as the run would have gone on.

    Weights, optimizer, order of the data and random numbers are those of the state. Exit codes as of `run`.
    """
    from qwen3vl.train.run import TrainRun

    asked = TrainRun.of_folder(out)
    _train(
        asked if device is None else replace(asked, device=device), go_on=True, tensorboard=tensorboard, as_json=as_json
    )


_COMMANDS = {
    "run": run,
    "resume": resume,
    "merge": merge,
    "check": check,
    "preview": preview,
    "shards": shards,
    "new": new,
    "see": see,
    "small": small,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def _settings(
    path: Path | None, rates: Mapping[str, Any], steps: Mapping[str, Any], media: MediaOptions
) -> TrainSettings:
    """The file's settings with the options over them."""
    from qwen3vl.train.settings import TrainSettings, read_settings

    values: Any = {} if path is None else read_settings(path)
    if not isinstance(values, dict):
        raise InvalidParams(f"{path}: holds {type(values).__name__}, not settings by name")
    over = {**values, **rates, **steps}
    if "lora" in rates:
        over["lora"] = {**(values.get("lora") or {}), **rates["lora"]}
    for given, other in (("steps", "epochs"), ("epochs", "steps")):  # the option takes the file's other one back
        if given in steps and other not in steps:
            over.pop(other, None)
    if "steps" not in over and "epochs" not in over:
        raise InvalidParams("give --steps or --epochs")
    settings = TrainSettings.from_json(over)
    return replace(settings, media=settings.media.merged_with(media))


def _train(asked: TrainRun, *, go_on: bool, tensorboard: bool, as_json: bool) -> None:
    from qwen3vl.train.logs import TensorBoardLog, TerminalLog
    from qwen3vl.train.run import train

    speaks = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    logs: list[Log] = [TerminalLog()] if speaks else []
    if tensorboard and speaks:
        logs.append(TensorBoardLog(asked.out / "tensorboard", asked.settings.log_every))
    progress, finished = train(asked, go_on=go_on, logs=logs)
    if speaks and as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **_document(asked, progress, finished)}, indent=2))
    elif speaks and finished:
        print(f"{asked.out / 'model'}: done in {progress.step} steps, {progress.seconds:,.0f} s")
    elif speaks:
        print(f"{asked.out}: saved behind step {progress.step}; go on with: qwen3vl train resume {asked.out}")
    if not finished:
        raise Exit(INTERRUPTED)


def _document(asked: TrainRun, progress: Progress, finished: bool) -> dict[str, Any]:
    model = str(asked.out / "model") if finished else None
    return {"finished": finished, "model": model, "out": str(asked.out), **asdict(progress)}
