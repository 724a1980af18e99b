"""SequenceSampler: history, seeds, distributions, log-probabilities; and transformers' own draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from qwen3vl.engine.sampler import index_at
from qwen3vl.engine.sequence_sampler import SequenceSampler, choice_generator
from qwen3vl.errors import GenerationError, InvalidParams
from qwen3vl.hf_sampling import draw_like_transformers
from qwen3vl.types import SamplingParams
from tests import oracle
from tests.engine.sampling import next_token

V = 40


def noise(steps: int, seed: int = 0, vocab: int = V) -> Tensor:
    return torch.randn(steps, vocab, generator=torch.Generator().manual_seed(seed)) * 2


def run(params: SamplingParams, logits_TV: Tensor, choice: int = 0) -> list[int]:
    sampler = SequenceSampler(params, [1, 2], logits_TV.shape[1], choice=choice)
    return [next_token(sampler, logits_V).token_id for logits_V in logits_TV]


# ------------------------------------------------------------------------------------------- seeds


def test_equal_seeds_give_equal_tokens_and_choices_differ() -> None:
    params = SamplingParams(temperature=1.0, seed=7)
    logits_TV = noise(60)
    assert run(params, logits_TV) == run(params, logits_TV)
    streams = {tuple(run(params, logits_TV, choice)) for choice in range(4)}
    streams.add(tuple(run(SamplingParams(temperature=1.0, seed=8), logits_TV)))
    assert len(streams) == 5


def test_a_sequence_does_not_see_other_sequences_or_the_global_generator() -> None:
    params = SamplingParams(temperature=1.0, top_k=10, seed=3)
    logits_TV = noise(30)
    alone = run(params, logits_TV)
    mine, other = SequenceSampler(params, [1, 2], V), SequenceSampler(SamplingParams(temperature=2.0), [], V)
    together = []
    for logits_V in logits_TV:
        next_token(other, logits_V)
        torch.rand(5)
        together.append(next_token(mine, logits_V).token_id)
    assert together == alone


def test_large_seeds_stay_apart_and_a_fresh_seed_is_reported() -> None:
    draws = [torch.rand(4, generator=choice_generator(seed, 0)).tolist() for seed in (5, 5 + 2**32, 5 + 2**80)]
    assert draws[0] != draws[1] != draws[2] != draws[0]
    logits_TV = noise(50)
    first = SequenceSampler(SamplingParams(temperature=1.0), [1, 2], V)
    tokens = [next_token(first, x).token_id for x in logits_TV]
    assert run(SamplingParams(temperature=1.0, seed=first.seed), logits_TV) == tokens
    assert first.seed != SequenceSampler(SamplingParams(temperature=1.0), [1, 2], V).seed


# ----------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(temperature=1.0, seed=1), [0, 1, 2, 3, 4, 5]),
        (SamplingParams(temperature=0.5, seed=2), [0, 1, 2, 3, 4, 5]),
        (SamplingParams(temperature=1.0, top_k=3, seed=3), [0, 2, 4]),
        (SamplingParams(temperature=1.0, top_p=0.6, seed=4), [2, 4]),
        (SamplingParams(temperature=1.0, min_p=0.3, seed=5), [0, 2, 4]),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams, kept: list[int]) -> None:
    probs = torch.tensor([0.15, 0.08, 0.4, 0.02, 0.3, 0.05])
    weights = probs[kept] ** (1 / params.temperature)
    expected = (weights / weights.sum()).double() * 2500
    tokens = torch.tensor(run(params, probs.log().expand(2500, 6)))
    counts = torch.bincount(tokens, minlength=6)
    assert counts.sum() == counts[kept].sum()
    assert chisquare(counts[kept].numpy(), (expected * 2500 / expected.sum()).numpy()).pvalue > 0.01


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits_V = torch.tensor([-math.inf, 0.0, -math.inf, -200.0, 0.0, -math.inf])
    assert set(run(SamplingParams(temperature=1.0, seed=0), logits_V.expand(500, 6))) == {1, 4}


def test_a_number_picks_the_first_weight_above_it() -> None:
    cumulative_K = torch.tensor([0.0, 0.25, 0.25, 1.0, 1.0], dtype=torch.float64)
    picks = {u: index_at(cumulative_K, u) for u in (0.0, 0.1, 0.25, 0.9, 1 - 2**-53)}
    assert picks == {0.0: 1, 0.1: 1, 0.25: 3, 0.9: 3, 1 - 2**-53: 3}
    assert index_at(cumulative_K * 3, 1.0) == 3  # as if u * total had been rounded up


# ----------------------------------------------------------------------------------------- history


def test_greedy_with_every_penalty_by_hand() -> None:
    params = SamplingParams(
        repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2, logit_bias={5: 4.5, 9: -1.0}
    )
    prompt, made = [1, 2, 2], []
    sampler = SequenceSampler(params, prompt, V)
    for logits_V in noise(80, seed=4) * 0.4 + noise(1, seed=5):
        scores = logits_V.tolist()
        for i in {*prompt, *made}:
            scores[i] = scores[i] * 1.3 if scores[i] < 0 else scores[i] / 1.3
        scores = [s - made.count(i) * 0.2 - (0.4 if i in made else 0) for i, s in enumerate(scores)]
        scores[5] += 4.5
        scores[9] -= 1.0
        made.append(max(range(V), key=scores.__getitem__))
        assert next_token(sampler, logits_V).token_id == made[-1]
    assert len(set(made)) > 10 and made.count(5) > 3


def test_stop_tokens_are_impossible_before_min_tokens() -> None:
    logits_V = torch.zeros(V)
    logits_V[[3, 4]] = 9.0
    params = SamplingParams(min_tokens=2, stop_token_ids=(4,))
    sampler = SequenceSampler(params, [], V, stop_ids=[3])
    tokens = [next_token(sampler, logits_V).token_id for _ in range(3)]
    assert not {3, 4} & set(tokens[:2])
    assert tokens[2] in (3, 4)


def test_forced_tokens_are_counted() -> None:
    sampler = SequenceSampler(SamplingParams(presence_penalty=2.0, logprobs=True), [], V)
    logits_V = torch.zeros(V)
    logits_V[6], logits_V[7] = 1.0, 0.5
    forced = next_token(sampler, logits_V, forced=6)
    assert forced.token_id == 6 and forced.logprob == pytest.approx(logits_V.log_softmax(-1)[6].item())
    assert next_token(sampler, logits_V).token_id == 7


# ------------------------------------------------------------------------------- reports and errors


def test_logprobs_are_of_the_raw_logits() -> None:
    params = SamplingParams(temperature=0.3, top_k=2, presence_penalty=1.0, logprobs=True, top_logprobs=3, seed=1)
    sampler = SequenceSampler(params, [], V)
    for logits_V in noise(20).bfloat16():
        token = next_token(sampler, logits_V)
        expected = logits_V.float().log_softmax(-1)
        assert token.logprob == expected[token.token_id]
        assert [p for _, p in token.top] == expected.sort(descending=True).values[:3].tolist()
        assert all(expected[i] == p for i, p in token.top)
        assert token.as_logprob().token_id == token.token_id
    assert next_token(SequenceSampler(SamplingParams(), [], V), noise(1)[0]).logprob is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error(bad: float, temperature: float) -> None:
    logits_V = noise(1)[0]
    logits_V[5] = bad
    with pytest.raises(GenerationError, match="logits"):
        next_token(SequenceSampler(SamplingParams(temperature=temperature), [], V), logits_V)
    with pytest.raises(GenerationError):
        next_token(SequenceSampler(SamplingParams(temperature=temperature), [], V), torch.full((V,), -math.inf))


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(logit_bias={V: 1.0}),
        SamplingParams(logit_bias={-1: 1.0}),
        SamplingParams(stop_token_ids=(V + 3,)),
        SamplingParams(logprobs=True, top_logprobs=V + 1),
    ],
)
def test_settings_outside_the_vocabulary_are_refused(params: SamplingParams) -> None:
    with pytest.raises(InvalidParams, match=str(V)):
        SequenceSampler(params, [], V)


# ------------------------------------------------------------------------------------ transformers


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads cost more than they bring on a model of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(one_thread: None) -> Any:
    oracle.import_torchvision()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.4,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config).eval()


SETTINGS = {
    "card": dict(temperature=0.7, top_k=20, top_p=0.8),
    "no top_k": dict(temperature=1.0, top_p=0.9),
    "plain": dict(temperature=1.0),
    "all": dict(temperature=1.3, top_k=60, top_p=0.95, min_p=0.02, repetition_penalty=1.2),
    "greedy": dict(temperature=0.0, repetition_penalty=1.1),
}


@pytest.mark.parametrize(
    ("name", "steps"), [("card", 200), ("no top_k", 40), ("plain", 40), ("all", 200), ("greedy", 40)]
)
@torch.inference_mode()
def test_draws_are_those_of_transformers_generate(tiny: Any, name: str, steps: int) -> None:
    params = SamplingParams(**SETTINGS[name])
    prompt_BT = torch.randint(1, 300, (2, 6), generator=torch.Generator().manual_seed(1))
    hf_settings = dict(SETTINGS[name], do_sample=not params.greedy, top_k=params.top_k or 0)
    if params.greedy:
        hf_settings = dict(do_sample=False, repetition_penalty=1.1)
    torch.manual_seed(11)
    theirs = tiny.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        max_new_tokens=steps,
        output_logits=True,
        return_dict_in_generate=True,
        **hf_settings,
    )
    expected_BT = theirs.sequences[:, 6:]
    seen_BV = torch.zeros(2, 300, dtype=torch.bool).scatter(1, prompt_BT, True)
    torch.manual_seed(11)
    for step, logits_BV in enumerate(theirs.logits):
        tokens_B = draw_like_transformers(logits_BV, params, seen_BV=seen_BV)
        assert tokens_B.tolist() == expected_BT[:, step].tolist(), step
        seen_BV.scatter_(1, tokens_B[:, None], True)
    assert expected_BT.shape == (2, steps)
    assert len(expected_BT.unique()) > 5


def test_draws_with_suppressed_end_tokens_are_those_of_transformers(tiny: Any) -> None:
    prompt_BT = torch.tensor([[5, 6, 7]])
    ends = list(range(100, 300))
    torch.manual_seed(2)
    theirs = tiny.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        max_new_tokens=30,
        min_new_tokens=20,
        eos_token_id=ends,
        do_sample=True,
        top_k=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    torch.manual_seed(2)
    tokens = [
        int(draw_like_transformers(x, SamplingParams(temperature=1.0), suppressed=ends if step < 20 else ()))
        for step, x in enumerate(theirs.logits)
    ]
    assert tokens == theirs.sequences[0, 3:].tolist()
    assert len(tokens) >= 20 and not set(tokens[:20]) & set(ends)
