"""How hf.generate draws: with the global torch generator, in transformers' order.

Shape names: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qwen3vl.engine import filters
from qwen3vl.settings import SamplingParams


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
