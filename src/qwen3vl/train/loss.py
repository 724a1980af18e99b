"""The loss of a packed batch: cross entropy of each learnt token, given all before it in its conversation.

Shape names: T tokens, R tokens to be learnt, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.packed_attention import take_rows
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.moe_loss import load_balancing_loss, router_logits
from qwen3vl.train.packing import TrainBatch

LOGITS_AT_ONCE = 1 << 25  # 128 MB in float32: 220 rows of the official vocabulary


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one batch.

    Attributes:
        total: the sum over its learnt tokens, in float32.
        num_labels: how many those are.
        balance: the load-balancing loss of its experts, with its weight; None for dense models.
    """

    total: Tensor
    num_labels: int
    balance: Tensor | None = None

    def share_of(self, num_labels: float) -> Tensor:
        """What this batch adds to the loss of a step with `num_labels` learnt tokens in all.

        The step's loss is the mean over all its learnt tokens, however they are spread over batches and
        processes; the balance of each batch weighs by its learnt tokens.
        """
        share = self.total / num_labels
        return share if self.balance is None else share + self.balance * (self.num_labels / num_labels)


Objective = Callable[[Qwen3VL, TrainBatch], Loss]


def batch_loss(model: Qwen3VL, batch: TrainBatch, moe_balance: float = 0.0) -> Loss:
    """One forward pass. Head and end of the last layer run only where a token is learnt.

    With the experts' balance the last layer runs everywhere: all its tokens count there.
    """
    moe = model.config.text.moe
    balance = None
    if moe is not None and moe_balance:
        with router_logits(model) as routed:
            hidden_RD = take_rows(hidden_states(model, batch), batch.rows_R)
        balance = moe_balance * load_balancing_loss(routed, moe.num_experts_per_tok)
    else:
        hidden_RD = hidden_states(model, batch, batch.rows_R)
    total = cross_entropy_sum(model.lm_head, hidden_RD, batch.targets_R)
    return Loss(total, batch.num_labels, balance)


def hidden_states(model: Qwen3VL, batch: TrainBatch, rows_R: Tensor | None = None) -> Tensor:
    """-> hidden_TD behind the last norm, or hidden_RD of some tokens: the rest of the last layer is then left out."""
    features = None if batch.patches_PC is None else model.visual(batch.patches_PC, batch.frames)
    embedded = model.embed(batch.input_ids_T, features)
    hidden: Tensor = model.language_model(embedded, batch.positions_3T, ForwardContext.pack(batch.lengths), rows_R)
    return hidden


def cross_entropy_sum(
    head: nn.Module, hidden_RD: Tensor, targets_R: Tensor, logits_at_once: int = LOGITS_AT_ONCE
) -> Tensor:
    """Sum over R of -log softmax(head(hidden))[target], in float32.

    Never holds more than `logits_at_once` logits: a longer batch goes through the head in pieces, whose logits
    are computed again in the backward pass. (8192 tokens x 151,936 in float32 would be 5 GB, three times over.)
    """
    rows = max(1, logits_at_once // _vocabulary(head))
    if len(hidden_RD) <= rows:
        return _piece(head, hidden_RD, targets_R)
    total = hidden_RD.new_zeros((), dtype=torch.float32)
    for hidden, targets in zip(hidden_RD.split(rows), targets_R.split(rows), strict=True):
        total = total + checkpoint(_piece, head, hidden, targets, use_reentrant=False)
    return total


def _piece(head: nn.Module, hidden_RD: Tensor, targets_R: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_RD).float(), targets_R, reduction="sum")


def _vocabulary(head: nn.Module) -> int:
    return int(head.out_features)  # type: ignore[arg-type]
