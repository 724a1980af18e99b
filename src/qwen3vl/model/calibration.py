"""Which input features of each matrix matter: their mean squared activation, measured on a user's own requests.

The error of a product is sum_k (w_k - q_k) x_k, whose mean square is, with features that vary independently,
sum_k (w_k - q_k)^2 mean(x_k^2). So the scale of an int4 group is searched with mean(x_k^2) as the weights of its errors
(csrc/pack_group.h). llama.cpp's "importance matrix" is the same quantity.

Shape names: T tokens, K input features, R rows of a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.errors import InvalidParams
from qwen3vl.kernels.cpu.packed import Packed
from qwen3vl.model.moe import Experts
from qwen3vl.model.packed_layers import Bits, PackedMatrix
from qwen3vl.model.qwen3vl import Qwen3VL

LEAST = 1e-3  # of the mean importance of a matrix: a feature that was silent here may speak elsewhere


@dataclass
class Mean:
    """The mean square of each input feature over all tokens."""

    sum_K: Tensor
    count: int = 0

    def add(self, x: Tensor) -> None:
        rows_TK = x.detach().reshape(-1, x.shape[-1]).float()
        self.sum_K += rows_TK.square().sum(0).cpu()
        self.count += len(rows_TK)

    @property
    def importance_K(self) -> Tensor:  # noqa: N802
        mean_K = self.sum_K / max(1, self.count)
        return mean_K.clamp(min=LEAST * float(mean_K.mean()) + 1e-30)


@contextmanager
def watching(model: Qwen3VL) -> Iterator[dict[str, Mean]]:
    """While the block runs, what goes into each matrix of an ordinary model's decoder and head is summed up.

    -> by the matrix's name: "language_model.layers.0.mlp.down_proj". All experts of a layer share one Mean.
    """
    means: dict[str, Mean] = {}
    undo: list[Callable[[], None]] = []

    def note(name: str, x: Tensor) -> None:
        if name not in means:
            means[name] = Mean(torch.zeros(x.shape[-1]))
        means[name].add(x)

    for name, module in model.named_modules():
        if not name.startswith(("language_model.layers.", "lm_head")):
            continue
        if isinstance(module, nn.Linear):
            hook = module.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))  # type: ignore[misc]
            undo.append(hook.remove)
        elif isinstance(module, Experts):
            undo.append(_watch_experts(name, module, note))
    try:
        yield means
    finally:
        for remove in undo:
            remove()


def _watch_experts(name: str, module: Experts, note: Callable[[str, Tensor], None]) -> Callable[[], None]:
    """The two products of an expert are told apart by the shapes of their weights: [2 I, D] and [D, I]."""
    linear, gate_up_shape = module.linear, module.gate_up_proj.shape[1:]

    def watched(x_TK: Tensor, weight: Tensor) -> Tensor:
        note(f"{name}.{'gate_up_proj' if weight.shape == gate_up_shape else 'down_proj'}", x_TK)
        return linear(x_TK, weight)

    module.linear = watched
    return lambda: setattr(module, "linear", linear)


@dataclass
class Channels:
    """The importance of one packed matrix's inputs, and what quantising with it and without it costs.

    The errors are sums of importance_K * (w - q)^2, `size` that of importance_K * w^2.
    """

    importance_K: Tensor
    size: float = 0.0
    plain_error: float = 0.0
    error: float = 0.0

    def measure(self, rows_RK: Tensor, values: Tensor, bits: Bits) -> None:
        """Of rows that were packed into `values` with this importance."""
        rows_RK, ids = rows_RK.float(), torch.arange(len(rows_RK))
        count, k = rows_RK.shape
        self.size += self._weigh(rows_RK)
        self.error += self._weigh(rows_RK - Packed(values, bits, count, k).rows(ids))
        self.plain_error += self._weigh(rows_RK - Packed.of(rows_RK, bits).rows(ids))

    def _weigh(self, off_RK: Tensor) -> float:
        return float(off_RK.square().sum(0).double() @ self.importance_K.double())


@dataclass(frozen=True, slots=True)
class MatrixError:
    """Root mean square errors of a matrix's products, over that of the products: without and with the importance."""

    name: str
    plain: float
    calibrated: float


@dataclass
class Calibration:
    """What `load_model(quantize=..., calibration=...)` weighs errors by, and afterwards what came of it.

    Attributes:
        importance: by the names that `watching` gives.
    """

    importance: Mapping[str, Tensor]
    _attached: dict[str, Channels] = field(default_factory=dict)

    def attach(self, model: Qwen3VL) -> None:
        """To the decoder's packed matrices, before they are filled. Raises InvalidParams if it is of another model."""
        for name, module in model.named_modules():
            if not isinstance(module, PackedMatrix) or name.startswith("visual."):
                continue
            if name == "language_model.embed_tokens" and not model.config.tie_word_embeddings:
                continue  # its rows are looked up: all features weigh alike
            importance_K = self.importance.get(_source_of(name, self.importance))
            if importance_K is None or not 0 <= module.k - len(importance_K) < 32:
                raise InvalidParams(f"the calibration has nothing for {name}: was it made with this checkpoint?")
            padded_K = F.pad(importance_K, (0, module.k - len(importance_K)), value=1.0)  # the weights there are 0
            self._attached[name] = module.channels = Channels(padded_K)

    def errors(self) -> list[MatrixError]:
        """Of all matrices, in the model's order."""
        return [
            MatrixError(name, (c.plain_error / c.size) ** 0.5, (c.error / c.size) ** 0.5)
            for name, c in self._attached.items()
            if c.size > 0
        ]


def _source_of(name: str, known: Mapping[str, Tensor]) -> str:
    """The ordinary model's name for the inputs of a packed matrix:

    mlp.gate_up -> mlp.gate_proj    mlp.experts.experts.7.down -> mlp.experts.down_proj
    language_model.embed_tokens -> lm_head, whose weights it holds where they are tied
    """
    if match := re.fullmatch(r"(.*\.experts)\.experts\.\d+\.(gate_up|down)", name):
        return f"{match[1]}.{match[2]}_proj"
    if name.endswith(".mlp.gate_up"):
        return name.removesuffix("gate_up") + "gate_proj"
    if name.endswith(".mlp.down"):
        return name + "_proj"
    return "lm_head" if name == "language_model.embed_tokens" else name
