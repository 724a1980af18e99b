"""From the model's logits to the scores that a token is drawn from.

Each function takes float32 [B, V] and returns new scores [B, V] with transformers' semantics
(generation/logits_process.py) or OpenAI's, where transformers has none. A setting is one number for
the whole batch or a tensor [B] with one per row, where a row that wants none has the neutral value.
The engine's sampler does the same to a whole batch without sorting it (candidates.py); these are what
hf.generate runs, and what tests compare the engine with.

    penalise: repetition -> (presence, frequency, bias) -> min_tokens      (greedy takes the argmax here)
    warp:     temperature -> top_k -> top_p -> min_p                       (sampling only)

B rows, V vocabulary, K tokens that are still candidates.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor

from qwen3vl.settings import SamplingParams

Setting: TypeAlias = "float | Tensor"

PREFIX = 1024  # top_p without top_k looks at so many tokens before it sorts the whole vocabulary
MARGIN = 1e-4  # ten times what a float32 softmax over the vocabulary rounds


def penalise_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: Setting) -> Tensor:
    """Divide positive and multiply negative logits of every token seen in prompt or answer, once."""
    penalty = _column(penalty)
    return torch.where(seen_BV, torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty), logits_BV)


def suppress(scores_BV: Tensor, token_ids: Tensor) -> Tensor:
    """Make `token_ids` impossible: the stop tokens before `min_tokens`."""
    return scores_BV.index_fill(-1, token_ids, -math.inf)


def scale_temperature(scores_BV: Tensor, temperature: Setting) -> Tensor:
    return scores_BV / _column(temperature)


def filter_top_k(scores_BV: Tensor, top_k: int | Tensor) -> Tensor:
    """Keep scores not below the k-th highest: more than k of them where the k-th is tied."""
    V = scores_BV.shape[-1]
    if isinstance(top_k, int):
        kth_B1 = torch.topk(scores_BV, min(top_k, V)).values[..., -1:]
    else:
        top_k = top_k.clamp(max=V)
        kth_B1 = torch.topk(scores_BV, int(top_k.max())).values.gather(-1, (top_k - 1)[:, None])
    return scores_BV.masked_fill(scores_BV < kth_B1, -math.inf)


def filter_top_p(scores_BV: Tensor, top_p: Setting) -> Tensor:
    """Remove the least likely tokens while their probabilities add up to no more than 1 - top_p.

    The most likely token always stays. Of tokens tied at the border some may go, in the order in
    which torch.sort leaves them: that order is transformers' too, so it is not replaced by a stable one.
    """
    if isinstance(top_p, Tensor):
        limit: Setting = (1 - top_p.double()).to(scores_BV.dtype)[:, None]
    else:
        limit = 1 - top_p
    sorted_BV, order_BV = torch.sort(scores_BV, descending=False)
    remove_BV = sorted_BV.softmax(dim=-1).cumsum(dim=-1) <= limit
    remove_BV[..., -1] = False
    return scores_BV.masked_fill(remove_BV.scatter(-1, order_BV, remove_BV), -math.inf)


def filter_min_p(scores_BV: Tensor, min_p: Setting) -> Tensor:
    """Remove tokens less likely than min_p times the most likely one, which always stays."""
    probs_BV = scores_BV.softmax(dim=-1)
    best_B1 = probs_BV.amax(dim=-1, keepdim=True)
    remove_BV = probs_BV < best_B1 * _column(min_p)
    remove_BV.scatter_(-1, probs_BV.argmax(dim=-1, keepdim=True), False)
    return scores_BV.masked_fill(remove_BV, -math.inf)


def warp(scores_BV: Tensor, params: SamplingParams) -> Tensor:
    """temperature -> top_k -> top_p -> min_p with the settings of one request, each only where it is on."""
    if params.temperature != 1:
        scores_BV = scale_temperature(scores_BV, params.temperature)
    if params.top_p == 1:
        return _warp_in_full(scores_BV, params)
    return torch.stack([_warp_row(scores_V, params) for scores_V in scores_BV])


def _warp_row(scores_V: Tensor, params: SamplingParams) -> Tensor:
    ids_K, certain = _likely_enough(scores_V, params)
    if not certain:
        return _warp_in_full(scores_V[None], params)[0]
    return torch.full_like(scores_V, -math.inf).index_copy(0, ids_K, scores_V[ids_K])


def _warp_in_full(scores_BV: Tensor, params: SamplingParams) -> Tensor:
    """top_k -> top_p -> min_p as transformers computes them."""
    if params.top_k is not None:
        scores_BV = filter_top_k(scores_BV, params.top_k)
    if params.top_p < 1:
        scores_BV = filter_top_p(scores_BV, params.top_p)
    if params.min_p is not None:
        scores_BV = filter_min_p(scores_BV, params.min_p)
    return scores_BV


def _likely_enough(scores_V: Tensor, params: SamplingParams) -> tuple[Tensor, bool]:
    """Ids, ascending, that top_k, top_p and min_p keep, found without sorting the vocabulary.

    The flag says that transformers' way certainly keeps the same: no tie straddles a border, and no sum
    is near it. Sorting 151,936 scores takes longer than everything else that a token costs.
    """
    ids_K, probs_K = _most_likely(scores_V, params.top_k, PREFIX)
    certain, keep = len(ids_K) <= PREFIX, len(ids_K)
    if params.top_p < 1:
        keep, sure = _count_top_p(probs_K, params.top_p)
        if keep == len(ids_K) and params.top_k is None:
            ids_K, probs_K = _most_likely(scores_V, None, len(scores_V))
            keep, sure = _count_top_p(probs_K, params.top_p)
        certain = certain and sure
    if params.min_p:
        keep, sure = _count_min_p(probs_K[:keep], params.min_p)
        certain = certain and sure
    return ids_K[:keep].sort().values, certain


def _most_likely(scores_V: Tensor, top_k: int | None, prefix: int) -> tuple[Tensor, Tensor]:
    """Ids and probabilities of the top_k tokens, or of the first `prefix`; all ties with the last included.

    Descending, ties in ascending id. Probabilities are float64 on the CPU (not every device has it), of
    top_k's tokens among themselves or of the prefix in the whole vocabulary.
    """
    lowest = torch.topk(scores_V, min(top_k or prefix, len(scores_V))).values[-1]
    ids_K = (scores_V >= lowest).nonzero()[:, 0]
    scores_K, order_K = scores_V[ids_K].sort(descending=True, stable=True)
    weights_K = (scores_K.cpu().double() - scores_K[0].item()).exp()
    total = (scores_V - scores_K[0]).exp().sum().item() if top_k is None else weights_K.sum().item()
    return ids_K[order_K], weights_K / total


def _count_top_p(probs_K: Tensor, top_p: float) -> tuple[int, bool]:
    """How many of the descending probabilities top_p keeps, and whether that is no close call.

    A token goes when it and all less likely ones add up to at most 1 - top_p, that is when the more
    likely ones reach top_p: of 0.5, 0.3, 0.2 (above: 0, 0.5, 0.8) top_p = 0.7 keeps two.
    """
    above_K = probs_K.cumsum(-1) - probs_K
    keep = max(1, int((above_K < top_p).sum()))
    close = bool(((above_K[1:] - top_p).abs() < MARGIN).any())
    tied = keep < len(probs_K) and bool(probs_K[keep - 1] == probs_K[keep])
    return keep, not (close or tied)


def _count_min_p(probs_K: Tensor, min_p: float) -> tuple[int, bool]:
    """How many of the descending probabilities min_p keeps, and whether that is no close call."""
    ratio_K = probs_K / probs_K[0]
    close = bool(((ratio_K - min_p).abs() < MARGIN * min_p).any())
    vanishing = min_p < 1e-20  # a float32 threshold may be zero, and so may the probabilities
    return int((ratio_K >= min_p).sum()), not (close or vanishing)


def _column(setting: Setting) -> Setting:
    return setting[:, None] if isinstance(setting, Tensor) else setting
