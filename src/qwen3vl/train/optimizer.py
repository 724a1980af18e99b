"""AdamW over float32 weights; with `optimizer: muon`, Muon for the matrices between layers.

Where the model computes in bfloat16, each of its weights that train has a float32 copy here (the master): the
gradient of every backward pass is added to the master's in float32 and freed, the master moves, and the
model's weight becomes the master rounded. Nothing else differs from float32 training: no autocast, no casts within
the model, no loss scaling (bfloat16 has the range of float32). Frozen weights have no master.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qwen3vl.train.distributed import ONE_PROCESS, Ranks, add_up_gradients
from qwen3vl.train.muon import Muon
from qwen3vl.train.parameters import ParameterGroup
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sharded_tensors import sharded_like


class Optimizer:
    """The weights that train, and how they move. Between steps the gradients are empty."""

    def __init__(self, groups: Sequence[ParameterGroup], settings: TrainSettings, ranks: Ranks = ONE_PROCESS) -> None:
        """`ranks`: of several processes with whole weights each, gradients are added up; sharded ones are already."""
        self._names = [name for group in groups for name in group.names]
        self._weights = [parameter for group in groups for parameter in group.parameters]
        self._masters = [_master_of(weight) for weight in self._weights]
        masters = dict(zip(self._names, self._masters, strict=True))
        turned = {name for name in masters if settings.optimizer == "muon" and is_inner_matrix(name, masters[name])}
        adamw = partial(
            torch.optim.AdamW, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True, lr=1.0
        )
        self._ranks = ONE_PROCESS if settings.optimizer == "adamw" else ranks
        self._optimizers = [
            make(members)
            for make, members in (
                (adamw, _members(groups, masters, set(masters) - turned)),
                (partial(Muon, momentum=settings.momentum, ranks=self._ranks), _members(groups, masters, turned)),
            )
            if members
        ]
        self._clip_norm = settings.clip_norm

    def step(self, rate_factor: float) -> Tensor:
        """Clip, move, and empty the gradients. -> the norm of all gradients before clipping."""
        add_up_gradients(self._masters, self._ranks)
        norm = torch.nn.utils.clip_grad_norm_(self._masters, self._clip_norm or float("inf"))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * rate_factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._round()
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of sharded weights

    def named_masters(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the model, float32 weight) of all that trains."""
        return zip(self._names, self._masters, strict=True)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on but the gradients, which are empty."""
        weights = {name: master.detach() for name, master in self.named_masters()}
        return {"weights": weights, "optimizers": [optimizer.state_dict() for optimizer in self._optimizers]}

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError if the state is of other weights."""
        if list(state["weights"]) != self._names:
            raise ValueError("the saved state is of other weights than those that train now")
        for name, master in self.named_masters():
            master.copy_(sharded_like(state["weights"][name], master))
        if len(state["optimizers"]) != len(self._optimizers):
            raise ValueError("the saved state is of another optimizer")
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            moments = {
                i: {k: sharded_like(v, own[i]) if v.ndim else v for k, v in each.items()}
                for i, each in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": moments})
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        pairs = [(w, m) for w, m in zip(self._weights, self._masters, strict=True) if w is not m]
        if pairs:
            torch._foreach_copy_([w for w, _ in pairs], [m for _, m in pairs])


def is_inner_matrix(name: str, weight: Tensor) -> bool:
    """Whether it turns one hidden vector into another. Tables of embeddings and heads do not; experts are stacks."""
    return weight.ndim == 2 and not any(part in name for part in ("embed_tokens", "pos_embed", "head", "lora_"))


def _members(
    groups: Sequence[ParameterGroup], masters: Mapping[str, nn.Parameter], names: Collection[str]
) -> list[dict[str, Any]]:
    """The groups as torch's optimizers take them, with those of the names that they hold."""
    found = []
    for group in groups:
        own = [masters[name] for name in group.names if name in names]
        if own:
            found.append({"params": own, "weight_decay": group.weight_decay, "rate": group.learning_rate})
    return found


def _master_of(weight: nn.Parameter) -> nn.Parameter:
    """The weight itself if it is float32; else a copy to which its gradients flow."""
    if weight.dtype == torch.float32:
        return weight
    master = nn.Parameter(weight.detach().float())

    def take(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad, None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad += gradient

    weight.register_post_accumulate_grad_hook(take)
    return master
