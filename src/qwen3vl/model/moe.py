"""Mixture of experts (30B-A3B, 235B-A22B).

Shape names: T tokens, D hidden size, E experts, K experts per token, I intermediate size of an expert.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.config import MoeConfig
from qwen3vl.model.layers import gated


class Router(nn.Module):
    """Softmax over all experts in float32, the K best, their weights made to sum to 1."""

    def __init__(self, hidden_size: int, config: MoeConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.weight = nn.Parameter(torch.empty(config.num_experts, hidden_size))
        self.watcher: Callable[[Tensor], None] | None = None  # is shown logits_TE, for training's balancing loss

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """-> weights_TK in x's dtype, experts_TK."""
        logits_TE = F.linear(x_TD, self.weight)
        if self.watcher is not None:
            self.watcher(logits_TE)
        weights_TK, experts_TK = logits_TE.softmax(-1, dtype=torch.float32).topk(self.num_experts_per_tok, dim=-1)
        weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return weights_TK.to(logits_TE.dtype), experts_TK


class Experts(nn.Module):
    """The experts' SwiGLUs, fused: gate_up_proj is [E, 2I, D] (gate first, then up), down_proj [E, D, I].

    Released files hold both transposed; checkpoint.py turns them while loading.
    """

    def __init__(self, hidden_size: int, config: MoeConfig) -> None:
        super().__init__()
        experts, inner = config.num_experts, config.intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden_size, inner))
        self.linear: Callable[[Tensor, Tensor], Tensor] = F.linear
        self.gated: Callable[[Tensor, Tensor], Tensor] = gated

    def forward(self, x_TD: Tensor, weights_TK: Tensor, experts_TK: Tensor) -> Tensor:
        out_TD = torch.zeros_like(x_TD)
        for expert in experts_TK.unique().tolist():  # only those that some token chose
            tokens, slots = (experts_TK == expert).nonzero(as_tuple=True)
            gate, up = self.linear(x_TD[tokens], self.gate_up_proj[expert]).chunk(2, dim=-1)
            answer = self.linear(self.gated(gate, up), self.down_proj[expert])
            out_TD.index_add_(0, tokens, answer * weights_TK[tokens, slots, None])
        return out_TD


class SparseMlp(nn.Module):
    """Router and experts in the place of a decoder layer's MLP."""

    def __init__(self, hidden_size: int, config: MoeConfig) -> None:
        super().__init__()
        self.gate = Router(hidden_size, config)
        self.experts = Experts(hidden_size, config)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.experts(x_TD, *self.gate(x_TD))
