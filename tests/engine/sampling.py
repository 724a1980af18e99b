"""The engine's sampler for one sequence, and what it would draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from qwen3vl.engine.candidates import Blocks, floor_of, narrow
from qwen3vl.engine.sampler import BatchSampler, SampledToken
from qwen3vl.engine.sequence_sampler import SequenceSampler
from qwen3vl.types import SamplingParams


def next_token(sampler: SequenceSampler, logits_V: Tensor, forced: int | None = None) -> SampledToken:
    """Of one sequence alone; see BatchSampler.sample. Raises GenerationError where no token can be chosen."""
    (token,) = BatchSampler().sample(logits_V[None], [sampler], [forced])
    if token.error is not None:
        raise token.error
    return token


def drawn_from(scores_V: Tensor, params: SamplingParams) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids, ascending, that the filters leave of one row, and their weights relative to the best."""
    blocks = Blocks(scores_V[None])
    (best,), _ = blocks.best()
    weights_V = ((scores_V - best) / params.temperature).exp()
    if params.top_k is None and params.top_p == 1 and not params.min_p:
        ids_K = np.arange(len(scores_V))
        return ids_K, weights_V.double().numpy()
    total = weights_V.sum().item() if params.top_k is None and params.top_p < 1 else None
    (kth,) = blocks.floors([0], [params.top_k or 1])
    (found,) = blocks.at_least([0], [floor_of(params, best, kth, total or 1.0, len(scores_V))])
    return narrow(found, params, total)
