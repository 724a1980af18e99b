"""From the model's logits to the scores that a token is drawn from.

Each function takes float32 [B, V] and returns new scores [B, V] with transformers' semantics
(generation/logits_process.py) or OpenAI's, where transformers has none. A setting is one number for
the whole batch or a tensor [B] with one per row; `OFF` names the value that leaves a row alone.

    penalise: repetition -> presence, frequency -> bias -> min_tokens      (greedy takes the argmax here)
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
OFF = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition": 1.0, "presence": 0.0, "frequency": 0.0}

PREFIX = 1024  # kept_tokens looks at this many tokens before it leaves the row to the full rule
MARGIN = 1e-4  # ten times what a float32 softmax over the vocabulary rounds; nearer to a border, the full rule decides


def penalise_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: Setting) -> Tensor:
    """Divide positive and multiply negative logits of every token seen in prompt or answer, once."""
    penalty = _column(penalty)
    return torch.where(seen_BV, torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty), logits_BV)


def penalise_presence(logits_BV: Tensor, counts_BV: Tensor, presence: Setting, frequency: Setting) -> Tensor:
    """OpenAI's rule: logit - count * frequency - (count > 0) * presence; `counts_BV` of generated tokens."""
    frequency, presence = _column(frequency), _column(presence)
    return logits_BV - counts_BV * frequency - (counts_BV > 0).to(logits_BV.dtype) * presence


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
    ids_K = kept_tokens(scores_V, params)
    if ids_K is None:
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


def candidates(scores_V: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The tokens of one row that top_k, top_p and min_p leave, in ascending id, and their scores.

    `scores_V` has its temperature applied. The same tokens as in `warp`.
    """
    if params.top_k is None and params.top_p == 1 and not params.min_p:
        return torch.arange(len(scores_V), device=scores_V.device), scores_V
    ids_K = kept_tokens(scores_V, params)
    if ids_K is None:
        ids_K = _warp_in_full(scores_V[None], params)[0].isfinite().nonzero()[:, 0]
    return ids_K, scores_V[ids_K]


def kept_tokens(scores_V: Tensor, params: SamplingParams) -> Tensor | None:
    """Ids that top_k, top_p and min_p keep, ascending, found without sorting the vocabulary.

    None where the answer hangs on a tie or on the last bits of a sum: then the full rule must decide.
    Sorting 151,936 scores takes longer than everything else together.
    """
    if params.top_k is None and params.top_p == 1:
        return None
    found = _most_likely(scores_V, params.top_k)
    if found is None:
        return None
    ids_K, probs_K = found
    keep: int | None = len(ids_K)
    if params.top_p < 1:
        keep = _count_top_p(probs_K, params.top_p)
    if keep == len(ids_K) and params.top_k is None and keep < len(scores_V):
        return None  # top_p reaches beyond the prefix
    if keep is not None and params.min_p:
        keep = _count_min_p(probs_K[:keep], params.min_p)
    return None if keep is None else ids_K[:keep].sort().values


def _most_likely(scores_V: Tensor, top_k: int | None) -> tuple[Tensor, Tensor] | None:
    """Ids and float64 probabilities, descending: of the top_k tokens with all ties, or of the first PREFIX."""
    top = torch.topk(scores_V, min(top_k or PREFIX, len(scores_V)))
    if top_k is None:
        total = (scores_V - top.values[0]).exp().sum().cpu().double()
        return top.indices, (top.values - top.values[0]).cpu().double().exp() / total
    ids_K = (scores_V >= top.values[-1]).nonzero()[:, 0]
    if len(ids_K) > PREFIX:
        return None
    scores_K, order_K = scores_V[ids_K].sort(descending=True, stable=True)
    return ids_K[order_K], scores_K.cpu().double().softmax(-1)  # float64 is not on every device


def _count_top_p(probs_K: Tensor, top_p: float) -> int | None:
    """How many of the descending probabilities top_p keeps; None where that is a close call.

    A token goes when it and all less likely ones add up to at most 1 - top_p, that is when the more
    likely ones reach top_p: of 0.5, 0.3, 0.2 (above: 0, 0.5, 0.8) top_p = 0.7 keeps two.
    """
    above_K = probs_K.cumsum(-1) - probs_K
    keep = max(1, int((above_K < top_p).sum()))
    close = bool(((above_K[1:] - top_p).abs() < MARGIN).any())
    tied = keep < len(probs_K) and bool(probs_K[keep - 1] == probs_K[keep])
    return None if close or tied else keep


def _count_min_p(probs_K: Tensor, min_p: float) -> int | None:
    """How many of the descending probabilities min_p keeps; None where that is a close call."""
    ratio_K = probs_K / probs_K[0]
    close = bool(((ratio_K - min_p).abs() < MARGIN * min_p).any())
    if close or min_p < 1e-20:  # float32 probabilities that small are zero, and so is the threshold
        return None
    return int((ratio_K >= min_p).sum())


def _column(setting: Setting) -> Setting:
    return setting[:, None] if isinstance(setting, Tensor) else setting
