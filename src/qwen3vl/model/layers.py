"""Small layers that the decoder is made of.

Shape names: T tokens, D hidden size, I intermediate size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.kernels.cpu import rows, steps
from qwen3vl.model.packed_layers import PackedLinear


class Linear(nn.Linear):
    """nn.Linear; on CPUs by the kernels of kernels/cpu/rows.py where they are faster."""

    def forward(self, x: Tensor) -> Tensor:
        return rows.linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis; the mean is taken in float32, the product in x's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if steps.can_run(x, self.weight):
            return steps.rms_norm(x, self.weight, self.eps)
        if torch.is_grad_enabled():
            return _RMSNormFunction.apply(x, self.weight, self.eps)  # type: ignore[no-any-return]
        return self.weight * _normalise(x, self.eps)[0]

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """-> x + delta, and that normalised."""
        if steps.can_run(x, delta, self.weight):
            return steps.add_rms_norm(x, delta, self.weight, self.eps)
        x = x + delta
        return x, self(x)


def add_layer_norm(x: Tensor, delta: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """-> x + delta, and that normalised."""
    if type(norm) is nn.LayerNorm and steps.can_run(x, delta, norm.weight, norm.bias):
        return steps.add_layer_norm(x, delta, norm.weight, norm.bias, norm.eps)
    x = x + delta
    return x, norm(x)


def _normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """-> x / rms(x) in x's dtype, 1 / rms(x) in float32."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype), scale


class _RMSNormFunction(torch.autograd.Function):
    """RMSNorm with its gradient written out, in half the time of the one that autograd puts together.

    With n = x * r, r = 1 / rms(x) and h = grad * weight:  grad_x = r * (h - n * mean(h * n)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, scale = _normalise(x, eps)
        ctx.save_for_backward(normed, scale, weight)
        return weight * normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        normed, scale, weight = ctx.saved_tensors
        normed, wide_weight = normed.float(), weight.float()
        product = grad.float() * normed
        grad_weight = product.flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        mean = (product @ wide_weight)[..., None].div_(-len(weight))
        return torch.addcmul(grad * wide_weight, normed, mean).mul_(scale).to(grad.dtype), grad_weight, None


def empty_embedding(num_embeddings: int, size: int) -> nn.Embedding:
    """A table without values. nn.Embedding draws some, which on the meta device imports torch's compiler: two seconds
    of every start."""
    return nn.Embedding.from_pretrained(torch.empty(num_embeddings, size), freeze=False)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)
        self.gated: Callable[[Tensor, Tensor], Tensor] = gated

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down_proj(self.gated(self.gate_proj(x_TD), self.up_proj(x_TD)))


def gated(gate_TI: Tensor, up_TI: Tensor) -> Tensor:
    """silu(gate) * up."""
    if steps.can_run(gate_TI, up_TI):
        return steps.swiglu(gate_TI, up_TI)
    return F.silu(gate_TI) * up_TI


def project(x_TD: Tensor, *linears: nn.Module) -> list[Tensor]:
    """`x_TD` through each of the layers; packed ones quantise it once."""
    if len(packed := [each for each in linears if isinstance(each, PackedLinear)]) == len(linears):
        return PackedLinear.several(packed, x_TD)
    return [linear(x_TD) for linear in linears]


def gelu_mlp(x_TD: Tensor, first: nn.Module, second: nn.Module, approximate: Literal["none", "tanh"]) -> Tensor:
    """second(gelu(first(x))), with the exact GELU or its tanh form."""
    if isinstance(first, PackedLinear):
        return first.gelu_mlp(x_TD, second, "gelu_tanh" if approximate == "tanh" else "gelu")
    inner_TI: Tensor = first(x_TD)
    if approximate == "tanh" and steps.can_run(inner_TI) and inner_TI.is_contiguous():
        inner_TI = steps.gelu_tanh_(inner_TI)
    else:
        inner_TI = F.gelu(inner_TI, approximate=approximate)
    out_TD: Tensor = second(inner_TI)
    return out_TD
