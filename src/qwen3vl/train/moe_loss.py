"""The load-balancing loss of mixture-of-experts models (Switch Transformers, arXiv 2101.03961, equations 4 to 6).

E * sum over experts of (share of assignments) * (mean router probability), over all layers together: its
least value is K where every expert gets the same. Shares carry no gradient, probabilities do.

    2 experts, K = 1, three tokens with probabilities (0.8, 0.2), (0.6, 0.4), (0.4, 0.6)
    assignments 2 and 1: shares 2/3, 1/3; mean probabilities 0.6, 0.4; loss 2 * (0.4 + 0.1333) = 1.0667

Shape names: T tokens, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qwen3vl.model.moe import Router


@contextmanager
def router_logits(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, each forward pass appends every router's logits_TE to the list, in layer order.

    They belong to the pass's graph. Leave the block before the backward pass: gradient checkpointing
    runs layers again there, which must not be counted.
    """
    collected: list[Tensor] = []
    routers = [module for module in model.modules() if isinstance(module, Router)]
    for router in routers:
        assert router.watcher is None, "router logits are being collected already"
        router.watcher = collected.append
    try:
        yield collected
    finally:
        for router in routers:
            router.watcher = None


def load_balancing_loss(logits: Sequence[Tensor], num_experts_per_tok: int) -> Tensor:
    """-> a scalar in float32. `logits` are of all sparse layers, each logits_TE; packed batches hold no padding."""
    assert logits, "no router logits: the model is dense, or they were not collected"
    num_experts = logits[0].shape[1]
    device = logits[0].device
    counts_E, sums_E = (torch.zeros(num_experts, device=device) for _ in range(2))
    for logits_TE in logits:
        weights_TE = logits_TE.to(device).softmax(-1)
        chosen_TK = weights_TE.detach().topk(num_experts_per_tok, dim=-1).indices
        counts_E = counts_E + torch.bincount(chosen_TK.flatten(), minlength=num_experts)
        sums_E = sums_E + weights_TE.float().sum(0)
    num_rows = sum(len(x) for x in logits)
    return num_experts * torch.sum(counts_E / num_rows * (sums_E / num_rows))
