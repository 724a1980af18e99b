"""Which token comes next, for all sequences of a batch in one pass over their logits.

    logits_BV -> penalties, biases, bans (few tokens of each row) -> best token of each row      greedy ends here
              -> candidates of each row (candidates.py) -> temperature, top_k, top_p, min_p -> draw

The order of penalties and filters is that of filters.py. A sequence draws one number in [0, 1) for each
token, from a CPU generator of its own, and inverts the cumulative distribution over the remaining tokens
in ascending id. Its tokens do not depend on what else is in the batch, to the last bit.

B rows, V vocabulary, K candidates, N tokens that have a number of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qwen3vl.engine.candidates import Blocks, floor_of, narrow
from qwen3vl.engine.sequence_sampler import SequenceSampler, TokenNumbers
from qwen3vl.errors import GenerationError
from qwen3vl.settings import SamplingParams
from qwen3vl.types import TokenLogprob

_COLDEST = 1e-8  # temperatures below this would overflow; the most likely token is certain long before


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One generated token; `logprob` and `top` (most likely first) only where they were asked for.

    `error` instead of a token (token_id -1) where no token can be chosen: NaN, +inf, or nothing possible.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    error: GenerationError | None = None

    def as_logprob(self) -> TokenLogprob:
        assert self.logprob is not None, "logprobs were not asked for"
        return TokenLogprob(self.token_id, self.logprob, self.top)


class BatchSampler:
    """Chooses the next token of every sequence of a batch; keeps nothing itself."""

    def sample(
        self,
        logits_BV: Tensor,
        samplers: Sequence[SequenceSampler],
        forced: Sequence[int | None] | None = None,
    ) -> list[SampledToken]:
        """One token for each row of raw logits [B, V] of any float dtype, recorded in the row's sampler.

        A `forced` token (see output.ThinkingBudget) is taken as it is, and counted like a chosen one. A row
        that no token can be chosen for gets an `error` and is not recorded; the other rows do not notice.
        """
        forced = forced or [None] * len(samplers)
        assert len(logits_BV) == len(samplers) == len(forced), (len(logits_BV), len(samplers), len(forced))
        assert all(s.vocab_size == logits_BV.shape[1] for s in samplers), logits_BV.shape
        if not samplers:
            return []
        logits_BV = logits_BV.float()
        chosen = _choose(_edited(logits_BV, samplers), samplers, forced)
        for sampler, token in zip(samplers, chosen, strict=True):
            if token.error is None:
                sampler.record(token.token_id)
        return _with_logprobs(chosen, logits_BV, samplers)


def _edited(logits_BV: Tensor, samplers: Sequence[SequenceSampler]) -> Tensor:
    """Scores: the logits with penalties and biases, and -inf for what is impossible. Touches few tokens."""
    V = logits_BV.shape[1]
    repetition = _flat([s.repetition for s in samplers], V, logits_BV.device)
    offsets = _flat([s.offsets for s in samplers], V, logits_BV.device)
    impossible_N = np.concatenate([s.impossible + row * V for row, s in enumerate(samplers)])
    if repetition is None and offsets is None and not len(impossible_N):
        return logits_BV
    scores_N = logits_BV.flatten().clone()
    if repetition is not None:
        at_N, penalty_N = repetition
        old_N = scores_N[at_N]
        scores_N[at_N] = torch.where(old_N < 0, old_N * penalty_N, old_N / penalty_N)
    if offsets is not None:
        at_N, offset_N = offsets
        scores_N[at_N] += offset_N
    scores_N[torch.from_numpy(impossible_N).to(scores_N.device)] = -math.inf
    return scores_N.view_as(logits_BV)


def _flat(numbers: Sequence[TokenNumbers], vocab_size: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Of all rows together: places in the flattened scores, and the numbers; None where there are none."""
    if not any(map(len, numbers)):
        return None
    at_N = np.concatenate([own.ids_N + row * vocab_size for row, own in enumerate(numbers)])
    values_N = np.concatenate([own.values_N for own in numbers])
    return torch.from_numpy(at_N).to(device), torch.from_numpy(values_N).to(device)


def _choose(scores_BV: Tensor, samplers: Sequence[SequenceSampler], forced: Sequence[int | None]) -> list[SampledToken]:
    blocks = Blocks(scores_BV)
    best_B, best_ids_B = blocks.best()
    chosen, drawing = [], []
    for row, (sampler, token_id, best) in enumerate(zip(samplers, forced, best_B, strict=True)):
        if token_id is None and not math.isfinite(best):
            message = f"the highest of {scores_BV.shape[1]} logits is {best}: no token can be chosen"
            chosen.append(SampledToken(-1, error=GenerationError(message)))
            continue
        chosen.append(SampledToken(best_ids_B[row] if token_id is None else token_id))
        if token_id is None and sampler.params.temperature > _COLDEST:
            drawing.append(row)
    for row, token_id in zip(drawing, _draw(blocks, scores_BV, samplers, best_B, drawing), strict=True):
        chosen[row] = SampledToken(token_id)
    return chosen


def _draw(
    blocks: Blocks, scores_BV: Tensor, samplers: Sequence[SequenceSampler], best_B: Sequence[float], rows: list[int]
) -> list[int]:
    """A token for each of `rows`."""
    settings = {row: samplers[row].params for row in rows}
    tokens = {
        row: _draw_from_all(scores_BV[row], samplers[row], best_B[row])
        for row, p in settings.items()
        if p.top_k is None and p.top_p == 1 and not p.min_p
    }
    filtered = [row for row in rows if row not in tokens]
    if filtered:
        V, whole = scores_BV.shape[1], [r for r in filtered if settings[r].top_k is None and settings[r].top_p < 1]
        totals = {row: _weights(scores_BV[row], settings[row], best_B[row]).sum().item() for row in whole}
        kths = blocks.floors(filtered, [settings[row].top_k or 1 for row in filtered])
        floors = [
            floor_of(settings[row], best_B[row], kth, totals.get(row, 1.0), V)
            for row, kth in zip(filtered, kths, strict=True)
        ]
        for row, found in zip(filtered, blocks.at_least(filtered, floors), strict=True):
            ids_K, weights_K = narrow(found, settings[row], totals.get(row))
            tokens[row] = int(ids_K[index_at(weights_K.cumsum(), _uniform(samplers[row]))])
    return [tokens[row] for row in rows]


def _draw_from_all(scores_V: Tensor, sampler: SequenceSampler, best: float) -> int:
    weights_V = _weights(scores_V, sampler.params, best).cpu()
    return index_at(weights_V.cumsum(dim=-1, dtype=torch.float64).numpy(), _uniform(sampler))


def _weights(scores_V: Tensor, params: SamplingParams, best: float) -> Tensor:
    """Probabilities at the temperature, relative to the best token's. For one row: see candidates.py."""
    return ((scores_V - best) / params.temperature).exp()


def _uniform(sampler: SequenceSampler) -> float:
    return torch.rand((), generator=sampler.generator, dtype=torch.float64).item()


def _with_logprobs(
    chosen: list[SampledToken], logits_BV: Tensor, samplers: Sequence[SequenceSampler]
) -> list[SampledToken]:
    """Log-softmax of the raw logits, where it was asked for."""
    asked = [row for row, s in enumerate(samplers) if s.params.logprobs and chosen[row].error is None]
    if not asked:
        return chosen
    logprobs_RV = logits_BV[asked].log_softmax(dim=-1)
    ids = torch.tensor([chosen[row].token_id for row in asked], device=logits_BV.device)
    own = logprobs_RV.gather(1, ids[:, None])[:, 0].tolist()
    ks = [samplers[row].params.top_logprobs for row in asked]
    blocks, places = Blocks(logprobs_RV), list(range(len(asked)))
    floors = blocks.floors(places, [max(k, 1) for k in ks])
    chosen = list(chosen)
    for row, k, logprob, found in zip(asked, ks, own, blocks.at_least(places, floors), strict=True):
        order = np.argsort(-found.scores_K, kind="stable")[:k]
        top = zip(found.ids_K[order].tolist(), found.scores_K[order].tolist(), strict=True)
        chosen[row] = SampledToken(chosen[row].token_id, logprob, tuple(top))
    return chosen


def index_at(cumulative_K: np.ndarray, u: float) -> int:
    """First index whose cumulative weight lies above u * total, for u in [0, 1).

    Weights 0.0, 0.25, 0.0, 0.75 add up to 0, 0.25, 0.25, 1: u = 0 gives index 1 and u = 0.25 gives
    index 3. A weight of zero never wins.
    """
    total = float(cumulative_K[-1])
    target = min(u * total, math.nextafter(total, 0))  # u * total can round up to total
    return int(np.searchsorted(cumulative_K, target, side="right"))
