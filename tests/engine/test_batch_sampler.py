"""A whole batch in one pass: each row gets what it would get alone, to the last bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen3vl.engine import filters
from qwen3vl.engine.candidates import WIDTH, Blocks
from qwen3vl.engine.sampler import BatchSampler, SampledToken, index_at
from qwen3vl.engine.sequence_sampler import SequenceSampler, choice_generator
from qwen3vl.errors import GenerationError
from qwen3vl.types import SamplingParams
from tests.engine.sampling import drawn_from, next_token

V = 300  # no multiple of the width of a block
STOPS = (3, 7)
SIZES = st.sampled_from([V, 2 * WIDTH, 70])


def build_params(draw: Any) -> SamplingParams:
    logprobs = draw(st.booleans())
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.0, 1e-9, 0.3, 1.0, 1.7])),
        top_k=draw(st.sampled_from([None, None, 1, 5, 20, 68, 1000])),
        top_p=draw(st.sampled_from([1.0, 1.0, 0.05, 0.8, 0.95, 1 - 2**-53])),
        min_p=draw(st.sampled_from([None, 0.0, 0.02, 0.5, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.8])),
        presence_penalty=draw(st.sampled_from([0.0, 1.5, -0.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.2])),
        logit_bias=draw(st.dictionaries(st.integers(0, 69), st.floats(-5, 5), max_size=3)),
        min_tokens=draw(st.sampled_from([0, 0, 2])),
        seed=draw(st.integers(0, 3)),
        logprobs=logprobs,
        top_logprobs=draw(st.sampled_from([0, 1, 5, 70])) if logprobs else 0,
    )


some_params = st.composite(build_params)()


def make_logits(kind: str, B: int, V: int, random: torch.Generator) -> Tensor:
    logits_BV = torch.randn(B, V, generator=random) * 3
    if kind == "tied":
        return logits_BV.round()
    if kind == "masked":
        logits_BV[torch.rand(B, V, generator=random) < 0.9] = -math.inf
        logits_BV[:, 11] = 0.5
    return logits_BV.bfloat16() if kind == "bfloat16" else logits_BV


def samplers_of(all_params: list[SamplingParams], V: int) -> list[SequenceSampler]:
    return [SequenceSampler(p, [1, 2, 2, 60], V, stop_ids=STOPS, choice=i % 2) for i, p in enumerate(all_params)]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(some_params, min_size=1, max_size=6),
    SIZES,
    st.sampled_from(["normal", "tied", "masked", "bfloat16"]),
    st.integers(0, 2**16),
    st.data(),
)
def test_company_changes_nothing(
    all_params: list[SamplingParams], V: int, kind: str, seed: int, data: st.DataObject
) -> None:
    """Rows come and go, some are forced, some break: all others get the same tokens and the same log-probabilities."""
    random = torch.Generator().manual_seed(seed)
    together, alone = samplers_of(all_params, V), samplers_of(all_params, V)
    for _ in range(4):
        logits_BV = make_logits(kind, len(together), V, random)
        rows = data.draw(st.permutations(range(len(together))))[: data.draw(st.integers(1, len(together)))]
        forced = {row: data.draw(st.sampled_from([None, None, None, 9])) for row in rows}
        broken = data.draw(st.sampled_from([None, None, *rows]))
        if broken is not None and forced[broken] is None:
            logits_BV[broken, 5] = math.nan
        got = BatchSampler().sample(logits_BV[rows], [together[r] for r in rows], [forced[r] for r in rows])
        for row, token in zip(rows, got, strict=True):
            if row == broken and forced[row] is None:
                assert isinstance(token.error, GenerationError)
                with pytest.raises(GenerationError, match="logits"):
                    next_token(alone[row], logits_BV[row])
            else:
                assert token == next_token(alone[row], logits_BV[row], forced[row]), all_params[row]
    assert [s.num_generated for s in together] == [s.num_generated for s in alone]


class Plain:
    """The same rules, one row at a time, over the whole vocabulary and with filters.py."""

    def __init__(self, params: SamplingParams, prompt: list[int], V: int, choice: int) -> None:
        self.params, self.prompt, self.V, self.made = params, prompt, V, list[int]()
        self.generator = choice_generator(params.seed or 0, choice)

    def sample(self, logits_V: Tensor) -> SampledToken:
        params, made, logits_V = self.params, self.made, logits_V.float()
        seen_V = torch.zeros(self.V, dtype=torch.bool)
        seen_V[self.prompt + made] = True
        scores_V = filters.penalise_repetition(logits_V[None], seen_V[None], params.repetition_penalty)[0]
        counts_V = torch.bincount(torch.tensor(made, dtype=torch.long), minlength=self.V)
        offsets = [params.logit_bias.get(i, 0.0) for i in range(self.V)]
        for i in set(made):
            offsets[i] -= int(counts_V[i]) * params.frequency_penalty + params.presence_penalty
        scores_V = scores_V + torch.tensor(offsets)
        if len(made) < params.min_tokens:
            scores_V[list(STOPS)] = -math.inf
        token = self.choose(scores_V)
        made.append(token)
        if not params.logprobs:
            return SampledToken(token)
        logprobs_V = logits_V.log_softmax(-1)
        falling = logprobs_V.sort(descending=True, stable=True)
        pairs = list(zip(falling.indices.tolist(), falling.values.tolist(), strict=True))[: params.top_logprobs]
        return SampledToken(token, logprobs_V[token].item(), tuple(p for p in pairs if p[1] > -math.inf))

    def choose(self, scores_V: Tensor) -> int:
        if self.params.temperature < 1e-8:
            return int(scores_V.argmax())
        ids_K, weights_K = drawn_from(scores_V, self.params)
        u = torch.rand((), generator=self.generator, dtype=torch.float64).item()
        return int(ids_K[index_at(weights_K.cumsum(), u)])


@settings(max_examples=60, deadline=None)
@given(some_params, SIZES, st.sampled_from(["normal", "tied", "bfloat16"]), st.integers(0, 2**16))
def test_a_row_gets_what_the_plain_rules_say(params: SamplingParams, V: int, kind: str, seed: int) -> None:
    """What the filters leave is compared with transformers in test_sampler_filters."""
    random = torch.Generator().manual_seed(seed)
    sampler, plain = (
        SequenceSampler(params, [1, 2, 2, 60], V, stop_ids=STOPS, choice=1),
        Plain(params, [1, 2, 60], V, 1),
    )
    for _ in range(5):
        logits_V = make_logits(kind, 1, V, random)[0]
        assert next_token(sampler, logits_V) == plain.sample(logits_V)


@settings(max_examples=60, deadline=None)
@given(some_params, st.integers(0, 2**16), st.integers(1, 6))
def test_what_was_rewound_leaves_no_trace_but_the_numbers_drawn(params: SamplingParams, seed: int, back: int) -> None:
    random = torch.Generator().manual_seed(seed)
    first, second = samplers_of([params, params], V)
    second.generator = choice_generator(first.seed, 0)
    logits_TV = make_logits("normal", 12, V, random)
    tokens = [next_token(first, logits_V).token_id for logits_V in logits_TV[:8]]
    for logits_V, token_id in zip(logits_TV[: 8 - back], tokens, strict=False):
        next_token(second, logits_V, forced=token_id)
    second.generator.set_state(first.generator.get_state())
    first.rewind(tokens[8 - back :], forbidden=())
    for logits_V in logits_TV[8:]:
        assert next_token(first, logits_V) == next_token(second, logits_V)


def test_a_forbidden_token_is_forbidden_once() -> None:
    logits_V = torch.zeros(V)
    logits_V[6], logits_V[8] = 2.0, 1.0
    sampler = SequenceSampler(SamplingParams(), [], V)
    assert [next_token(sampler, logits_V).token_id for _ in range(3)] == [6, 6, 6]
    sampler.rewind([6, 6], forbidden=[6])
    assert [next_token(sampler, logits_V).token_id for _ in range(2)] == [8, 6]
    assert sampler.num_generated == 3


def test_blocks_by_hand() -> None:
    """The example at the top of candidates.py, a block for each of its pairs."""
    scores_V = torch.full((3 * WIDTH,), -9.0)
    for place, score in zip((0, 1, WIDTH, WIDTH + 1, 2 * WIDTH, 2 * WIDTH + 1), (5, 1, 4, 3, 0, 2), strict=True):
        scores_V[place] = score
    blocks = Blocks(scores_V[None])
    assert blocks.best() == ([5.0], [0])
    assert blocks.floors([0, 0, 0], [2, 3, 4]) == [4.0, 2.0, -math.inf]
    (found,) = blocks.at_least([0], [2.0])
    assert found.ids_K.tolist() == [0, WIDTH, WIDTH + 1, 2 * WIDTH + 1] and found.scores_K.tolist() == [5, 4, 3, 2]


def test_the_real_vocabulary() -> None:
    """Sixteen rows with the presets of the card and others; candidates as the whole vocabulary gives them."""
    random = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(16, 151_936, generator=random) * 3
    names = ("vl", "text", "vl-thinking", "greedy")
    all_params = [SamplingParams.preset(names[row % 4], seed=row) for row in range(16)]
    together, alone = (
        [SequenceSampler(p, np.arange(1000), 151_936, stop_ids=STOPS) for p in all_params] for _ in range(2)
    )
    for _ in range(2):
        tokens = BatchSampler().sample(logits_BV, together)
        assert tokens == [next_token(s, logits_V) for s, logits_V in zip(alone, logits_BV, strict=True)]
    first = [token.token_id for token in tokens]
    assert first[3::4] == logits_BV.argmax(-1)[3::4].tolist() and len(set(first)) > 8
