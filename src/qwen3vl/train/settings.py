"""How to train: one frozen object, checked when it is made, written beside every result.

Defaults are those of the official fine-tuning where it has one (reference: qwen-vl-finetune, scripts/sft*.sh).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from qwen3vl.errors import InvalidParams
from qwen3vl.settings import MediaOptions, check_choice, check_integer, check_number

Schedule = Literal["cosine", "wsd", "constant"]
TooLong = Literal["error", "skip", "alone"]
Precision = Literal["auto", "float32", "bfloat16"]
OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (train/lora.py): everything else is frozen, whatever the learning rates say.

    Attributes:
        rank, alpha, dropout: as in the peft library; what an adapter adds is scaled by alpha / rank.
        targets: ends of the names of the layers that get an adapter, or attention, mlp, vision, mergers.
    """

    rank: int = 64
    alpha: float = 128.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        check_integer("lora rank", self.rank, minimum=1, required=True)
        check_number("lora alpha", self.alpha, 0, math.inf, required=True, open_low=True, open_high=True)
        check_number("lora dropout", self.dropout, 0, 1, required=True, open_high=True)
        if not self.targets or not all(isinstance(t, str) and t for t in self.targets):
            raise InvalidParams(f"lora targets must be names of layers, not {self.targets!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """One training run.

    Attributes:
        language_lr, mergers_lr, vision_lr: highest learning rate of each part (parameters.py); None: frozen. With
            lora: of the adapters in each part, None as language_lr.
        lora: train adapters instead of the weights.
        steps: optimizer steps; or
        epochs: times to go through the data (only for data that end). Exactly one of the two.
        tokens_per_batch: a forward pass holds as many whole conversations as fit into this many tokens,
            visual ones included.
        accumulate: batches to a step. The loss is the mean over all learnt tokens of the step.
        too_long: what to do with a conversation longer than tokens_per_batch: stop with an error, skip it (which is
            counted and logged), or let it be a batch alone, whatever memory that takes.
        schedule: cosine falls to final_share over the whole run; wsd stays at the top and falls in a straight line
            during the last `decay` of the run; constant stays.
        warmup: share of the run during which the rate rises in a straight line.
        decay: share of the run, for wsd.
        final_share: of the highest rate, at the end.
        weight_decay: not on biases, norms and other vectors.
        optimizer: adamw; or muon (muon.py) for matrices between layers, and AdamW for tables, heads and vectors.
            The learning rates of the two mean the same. With muon each of several processes holds the whole model.
        momentum: Muon's.
        beta1, beta2, epsilon: AdamW's.
        clip_norm: bound on the norm of all gradients together; None: no bound.
        moe_balance: weight of the load-balancing loss of mixture-of-experts models (transformers: 0.001).
        precision: of forward and backward passes. auto: bfloat16 on CUDA, else float32. The weights that
            the optimizer works on are float32 in any case.
        gradient_checkpointing: keep only each layer's input for the backward pass, and compute the rest again.
        seed: of the data's order and of adapters' first values.
        workers: processes that read and prepare the data; 0: this one does it between the steps.
        log_every, evaluate_every, save_every: in steps; evaluate_every and save_every 0: only at the end.
        keep: how many of the saved states stay; 0: all.
        media: how pictures and videos are looked at.
        ignored_keys: keys of the data's items that mean nothing here.
    """

    language_lr: float | None = 1e-5
    mergers_lr: float | None = 1e-5
    vision_lr: float | None = None
    lora: LoraSettings | None = None
    steps: int | None = None
    epochs: float | None = None
    tokens_per_batch: int = 8192
    accumulate: int = 1
    too_long: TooLong = "error"
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    decay: float = 0.2
    final_share: float = 0.0
    weight_decay: float = 0.0
    optimizer: OptimizerName = "adamw"
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = 1.0
    moe_balance: float = 0.001
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0
    workers: int = 0
    log_every: int = 1
    evaluate_every: int = 0
    save_every: int = 1000
    keep: int = 1
    media: MediaOptions = field(default_factory=MediaOptions)
    ignored_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignored_keys", tuple(self.ignored_keys))
        if (self.steps is None) == (self.epochs is None):
            raise InvalidParams("give either steps or epochs")
        for name in ("language_lr", "mergers_lr", "vision_lr", "epochs", "clip_norm"):
            check_number(name, getattr(self, name), 0, math.inf, open_low=True, open_high=True)
        for name in ("final_share", "warmup", "decay"):
            check_number(name, getattr(self, name), 0, 1, required=True)
        for name in ("weight_decay", "epsilon", "moe_balance"):
            check_number(name, getattr(self, name), 0, math.inf, required=True, open_high=True)
        for name in ("momentum", "beta1", "beta2"):
            check_number(name, getattr(self, name), 0, 1, required=True, open_high=True)
        check_integer("steps", self.steps, minimum=1)
        for name in ("tokens_per_batch", "accumulate", "log_every"):
            check_integer(name, getattr(self, name), minimum=1, required=True)
        for name in ("seed", "workers", "evaluate_every", "save_every", "keep"):
            check_integer(name, getattr(self, name), minimum=0, required=True)
        check_choice("too_long", self.too_long, ("error", "skip", "alone"))
        check_choice("optimizer", self.optimizer, ("adamw", "muon"))
        check_choice("schedule", self.schedule, ("cosine", "wsd", "constant"))
        check_choice("precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.lora is not None and self.language_lr is None:
            raise InvalidParams("lora needs language_lr: it is the adapters' learning rate")
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise InvalidParams(f"warmup={self.warmup} and decay={self.decay} are more than the whole run")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> TrainSettings:
        """Strict: every key must be a setting. Raises InvalidParams."""
        values = dict(_known(values, cls, "settings"))
        if values.get("lora") is not None:
            values["lora"] = LoraSettings(**_known(values["lora"], LoraSettings, "lora"))
        if values.get("media") is not None:
            values["media"] = MediaOptions(**_known(values["media"], MediaOptions, "media"))
        return cls(**values)

    @classmethod
    def from_file(cls, path: Path) -> TrainSettings:
        """From a JSON or YAML file. Raises InvalidParams with the file's name."""
        try:
            return cls.from_json(read_settings(path))
        except InvalidParams as error:
            raise InvalidParams(f"{path}: {error}") from error


def read_settings(path: Path) -> Any:
    """What a .json, .yaml or .yml file holds. Raises InvalidParams."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix in (".yaml", ".yml"):
            import yaml  # type: ignore[import-untyped]  # comes with huggingface_hub

            return yaml.safe_load(text)
    except (OSError, ValueError) as error:
        raise InvalidParams(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # yaml's own tree
        raise InvalidParams(f"{path}: is not valid YAML ({error})") from error
    raise InvalidParams(f"{path}: settings are read from .json, .yaml and .yml files")


def _known(values: Any, kind: type, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise InvalidParams(f"{where} must be an object, not {type(values).__name__}")
    names = [f.name for f in fields(kind)]
    for key in values:
        if key not in names:
            raise InvalidParams(f"{where}: unknown key {key!r} (allowed: {', '.join(names)})")
    return values
