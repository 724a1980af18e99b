"""What trains: three parts of the model, each with a learning rate of its own or frozen.

vision     visual.*, without the mergers
mergers    visual.merger and visual.deepstack_merger_list: they belong together
language   language_model.*, lm_head
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from qwen3vl.errors import InvalidParams
from qwen3vl.train.settings import TrainSettings

PARTS = ("vision", "mergers", "language")


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay. `names` are those of model.named_parameters()."""

    part: str
    learning_rate: float
    weight_decay: float
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by its name in Qwen3VL (adapters inside a module keep its prefix)."""
    if ".merger." in name or ".deepstack_merger_list." in name:
        return "mergers"
    return "vision" if "visual." in name else "language"


def freeze(model: nn.Module, settings: TrainSettings) -> None:
    """Let exactly those parameters train whose part has a learning rate. Raises InvalidParams if none has."""
    rates = learning_rates(settings)
    if not any(rates.values()):
        raise InvalidParams("nothing trains: give vision_lr, mergers_lr or language_lr")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(rates[part_of(name)]))


def learning_rates(settings: TrainSettings) -> dict[str, float | None]:
    """Of each part. Adapters in a part without a rate of its own take the language model's."""
    rates = {"vision": settings.vision_lr, "mergers": settings.mergers_lr, "language": settings.language_lr}
    return rates if settings.lora is None else {part: rate or settings.language_lr for part, rate in rates.items()}


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[ParameterGroup]:
    """All parameters that require gradients, by part; biases, norms and other vectors without weight decay."""
    groups = []
    for part, rate in learning_rates(settings).items():
        own = [(name, parameter) for name, parameter in trainable(model) if part_of(name) == part]
        for decays in (True, False):
            members = [(name, parameter) for name, parameter in own if (parameter.ndim >= 2) == decays]
            if members:
                assert rate, f"{members[0][0]} trains, but {part} has no learning rate"
                names, parameters = zip(*members, strict=True)
                groups.append(ParameterGroup(part, rate, settings.weight_decay if decays else 0.0, names, parameters))
    return groups


def trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """part -> (values that train, values in all)."""
    table = dict.fromkeys(PARTS, (0, 0))
    for name, parameter in model.named_parameters():
        some, everything = table[part_of(name)]
        table[part_of(name)] = some + parameter.requires_grad * parameter.numel(), everything + parameter.numel()
    return table
