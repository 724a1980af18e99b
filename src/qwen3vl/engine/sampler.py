"""Which token comes next: one sequence's settings, history and random numbers.

    SequenceSampler.sample(logits_V) -> SampledToken        the engine's way: a stream of its own per sequence
    draw_like_transformers(logits_BV, params) -> ids_B      hf.generate's way: the global torch generator

The order of penalties and filters is that of filters.py. A sequence draws one number in [0, 1) for each
token, from a CPU generator of its own, and inverts the cumulative distribution over the remaining tokens
in ascending id: its tokens depend neither on the device nor on what else is in the batch.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen3vl.engine import filters
from qwen3vl.errors import GenerationError, InvalidParams
from qwen3vl.settings import SamplingParams
from qwen3vl.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One generated token; `logprob` and `top` (most likely first) only where they were asked for."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()

    def as_logprob(self) -> TokenLogprob:
        assert self.logprob is not None, "logprobs were not asked for"
        return TokenLogprob(self.token_id, self.logprob, self.top)


class SequenceSampler:
    """Chooses the tokens of one sequence (one of the `n` answers of a request).

    Args:
        params: the request's settings.
        prompt_ids: the prompt, for the repetition penalty.
        vocab_size: V, the width of the logits.
        stop_ids: the checkpoint's end tokens; with `params.stop_token_ids` they are impossible
            before `params.min_tokens`.
        choice: index of the answer among `n`; each has random numbers of its own.
        device: where the logits are.

    Attributes:
        seed: the seed in use; drawn afresh where the request names none.

    Raises:
        InvalidParams: a token id in the settings lies outside the vocabulary.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int] | Tensor,
        vocab_size: int,
        *,
        stop_ids: Collection[int] = (),
        choice: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        _check_ids("logit_bias", params.logit_bias, vocab_size)
        _check_ids("stop_token_ids", params.stop_token_ids, vocab_size)
        if params.top_logprobs > vocab_size:
            raise InvalidParams(f"top_logprobs={params.top_logprobs} is above the vocabulary of {vocab_size}")
        self.params = params
        self.num_generated = 0
        self.seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(4))
        self._generator = choice_generator(self.seed, choice)
        self._vocab_size = vocab_size
        stops = sorted({*stop_ids, *params.stop_token_ids})
        self._stops = torch.tensor(stops, dtype=torch.long, device=device)
        self._seen_V = _seen(prompt_ids, vocab_size, device) if params.repetition_penalty != 1 else None
        self._counts: Counter[int] = Counter()
        self._offsets_V = _biases(params, vocab_size, device)

    def sample(self, logits_V: Tensor, forced: int | None = None) -> SampledToken:
        """Choose the next token from raw logits [V] of any float dtype, and remember it.

        A `forced` token (see output.ThinkingBudget) is taken as it is, and counted like a chosen one.

        Raises:
            GenerationError: the logits hold NaN, +inf, or nothing that is possible.
        """
        assert logits_V.shape == (self._vocab_size,), (logits_V.shape, self._vocab_size)
        logits_V = logits_V.float()
        token_id = self._choose(self._penalise(logits_V)) if forced is None else forced
        self._record(token_id)
        return self._report(logits_V, token_id)

    def _penalise(self, logits_V: Tensor) -> Tensor:
        scores_BV = logits_V[None]
        if self._seen_V is not None:
            scores_BV = filters.penalise_repetition(scores_BV, self._seen_V[None], self.params.repetition_penalty)
        if self._offsets_V is not None:
            scores_BV = scores_BV + self._offsets_V
        if self.num_generated < self.params.min_tokens and len(self._stops):
            scores_BV = filters.suppress(scores_BV, self._stops)
        return scores_BV[0]

    def _choose(self, scores_V: Tensor) -> int:
        best, best_id = scores_V.max(dim=0)
        if not math.isfinite(best.item()):  # max propagates NaN
            raise GenerationError(f"the highest of {len(scores_V)} logits is {best.item()}: no token can be chosen")
        if self.params.greedy:
            return int(best_id)
        ids_K, scores_K = filters.candidates(scores_V / self.params.temperature, self.params)
        return int(ids_K[_draw(scores_K, self._generator)])

    def _record(self, token_id: int) -> None:
        """Keep the offsets at bias - count * frequency - (count > 0) * presence: OpenAI's rule, without O(T) work."""
        self.num_generated += 1
        if self._seen_V is not None:
            self._seen_V[token_id] = True
        if self._offsets_V is not None:
            params = self.params
            self._counts[token_id] += 1
            bias = params.logit_bias.get(token_id, 0.0)
            penalty = self._counts[token_id] * params.frequency_penalty + params.presence_penalty
            self._offsets_V[token_id] = bias - penalty

    def _report(self, logits_V: Tensor, token_id: int) -> SampledToken:
        if not self.params.logprobs:
            return SampledToken(token_id)
        logprobs_V = logits_V.log_softmax(dim=-1)
        top = logprobs_V.topk(self.params.top_logprobs)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return SampledToken(token_id, logprobs_V[token_id].item(), tuple(pairs))


def choice_generator(seed: int, choice: int) -> torch.Generator:
    """The random numbers of one answer.

    Seed and choice are hashed together, so that choice 1 of seed 7 is not choice 0 of seed 8; also,
    torch's CPU generator uses only 32 bits of what it is given, and seeds may be larger.
    """
    digest = hashlib.blake2b(f"{seed}:{choice}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def draw_like_transformers(
    logits_BV: Tensor,
    params: SamplingParams,
    *,
    seen_BV: Tensor | None = None,
    suppressed: Sequence[int] = (),
) -> Tensor:
    """Next tokens [B] as transformers' GenerationMixin._sample chooses them: equal torch.manual_seed, equal tokens.

    Every row is drawn in every step, finished ones too, because transformers does so and the global
    generator has to advance as it does there. Temperature 0 stands for do_sample=False.

    Args:
        logits_BV: raw logits of the last position.
        params: temperature, top_k, top_p, min_p and repetition_penalty are used; transformers'
            top_k=0 is None here. The settings that transformers lacks must be off.
        seen_BV: bool, the tokens of prompt (without left padding) and answer; for the repetition penalty.
        suppressed: tokens that are impossible in this step (the end tokens before min_new_tokens).
    """
    assert not (params.presence_penalty or params.frequency_penalty or params.logit_bias), params
    scores_BV = logits_BV.float()
    if params.repetition_penalty != 1:
        assert seen_BV is not None, "the repetition penalty needs seen_BV"
        scores_BV = filters.penalise_repetition(scores_BV, seen_BV, params.repetition_penalty)
    if suppressed:
        scores_BV = filters.suppress(scores_BV, torch.tensor(suppressed, device=scores_BV.device))
    if params.greedy:
        return scores_BV.argmax(dim=-1)
    probs_BV = filters.warp(scores_BV, params).softmax(dim=-1)
    return torch.multinomial(probs_BV, num_samples=1).squeeze(1)


def _draw(scores_K: Tensor, generator: torch.Generator) -> int:
    """Index of one candidate, drawn with the probability softmax(scores_K)."""
    weights_K = (scores_K - scores_K.max()).exp().cpu()
    u = torch.rand((), generator=generator, dtype=torch.float64).item()
    return index_at(weights_K.cumsum(dim=-1, dtype=torch.float64), u)


def index_at(cumulative_K: Tensor, u: float) -> int:
    """First index whose cumulative weight lies above u * total, for u in [0, 1).

    Weights 0.0, 0.25, 0.0, 0.75 add up to 0, 0.25, 0.25, 1: u = 0 gives index 1 and u = 0.25 gives
    index 3. A weight of zero never wins.
    """
    total = cumulative_K[-1].item()
    target = min(u * total, math.nextafter(total, 0))  # u * total can round up to total
    return int(torch.searchsorted(cumulative_K, target, right=True))


def _seen(token_ids: Sequence[int] | Tensor, vocab_size: int, device: torch.device | str) -> Tensor:
    ids = torch.as_tensor(token_ids, dtype=torch.long, device=device)
    assert ids.numel() == 0 or 0 <= int(ids.min()) <= int(ids.max()) < vocab_size, (ids, vocab_size)
    return torch.zeros(vocab_size, dtype=torch.bool, device=device).index_fill(0, ids, True)


def _biases(params: SamplingParams, vocab_size: int, device: torch.device | str) -> Tensor | None:
    """What is added to the logits before any token is generated; None where nothing ever is."""
    if not (params.logit_bias or params.presence_penalty or params.frequency_penalty):
        return None
    offsets_V = torch.zeros(vocab_size, device=device)
    for token_id, bias in params.logit_bias.items():
        offsets_V[token_id] = bias
    return offsets_V


def _check_ids(name: str, token_ids: Collection[int], vocab_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidParams(f"{name}: token {token_id} is outside the vocabulary of {vocab_size} tokens")
