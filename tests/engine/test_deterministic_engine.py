"""With a deterministic model, a request's tokens and log-probabilities are the same bits alone and in any company,
across chunk borders, cache hits and preemption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from qwen3vl.engine.engine import Engine
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.model.checkpoint import load_model
from qwen3vl.types import Completion
from tests import models
from tests.deterministic_models import kinds, load, short_blocks  # noqa: F401
from tests.engine.driving import NumberTokenizer, drive, work_of
from tests.engine.prompts import make_inputs
from tests.models import Part

REQUESTS: dict[str, tuple[Part, ...]] = {
    "long": (171,),  # over two blocks of keys
    "picture": (4, ("image", 6, 8), 7),
    "video": (3, ("video", 3, 4, 6), 6),
    "all": (2, ("image", 4, 6), 3, ("video", 2, 4, 4), 5, ("image", 6, 8), 14),
}


def engine_of(edition: str, dtype: torch.dtype, num_blocks: int = 200, **settings: Any) -> Engine:
    settings = {"block_size": 4, "max_sequences": 8, "reading_share": 1.0, **settings}
    return Engine(load(edition, dtype), NumberTokenizer(), EngineSettings(**settings), num_blocks)


def works(edition: str, names: Sequence[str] = tuple(REQUESTS), repeat: str = "") -> list[Work]:
    """Sampled with a seed of their own, so that a differing bit of a logit can also change a token."""
    config = models.small_config(edition)
    seeded = {name: i for i, name in enumerate(REQUESTS)}
    return [
        work_of(
            name + repeat, make_inputs(config, *REQUESTS[name]), 6, temperature=2.0, seed=seeded[name], logprobs=True
        )
        for name in names
    ]


def bits(completion: Completion) -> tuple[tuple[int, ...], tuple[float, ...]]:
    logprobs = completion.first.logprobs
    assert logprobs is not None
    return completion.token_ids, tuple(each.logprob for each in logprobs)


@cache
def alone(edition: str, dtype: torch.dtype, name: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """In an engine of its own, in one pass."""
    return bits(drive(engine_of(edition, dtype), works(edition, [name]))[name].completion)


@kinds
def test_in_company_in_odd_chunks_and_again_from_the_caches(edition: str, dtype: torch.dtype) -> None:
    """Passes of at most 29 tokens, all requests at once; then once more, with everything known."""
    engine = engine_of(edition, dtype, max_batched_tokens=29)
    for repeat in ("", " again"):
        done = drive(engine, works(edition, repeat=repeat))
        for name in REQUESTS:
            assert bits(done[name + repeat].completion) == alone(edition, dtype, name), name + repeat
    assert all(done[f"{name} again"].completion.usage.cached_tokens > 0 for name in REQUESTS)


@kinds
def test_preempted(edition: str, dtype: torch.dtype) -> None:
    """Every other step the youngest loses its blocks, without a prefix cache: all of it is computed again, with
    the tokens written so far as part of the prompt."""
    engine = engine_of(edition, dtype, prefix_cache=False, vision_cache_bytes=0, max_batched_tokens=50)
    preempted = []

    def between(step: int) -> None:
        if step % 2 and len(engine.scheduler.running) > 1 and len(preempted) < 6:
            preempted.append(engine.scheduler.running[-1])
            engine.scheduler.preempt(engine.scheduler.running[-1])

    streamed = [replace(work, streamed=True) for work in works(edition)]  # the tower takes one piece a step: more steps
    done = drive(engine, streamed, between)
    assert len(preempted) == 6
    for name in REQUESTS:
        assert bits(done[name].completion) == alone(edition, dtype, name), name


def test_several_answers_and_int8() -> None:
    """n = 3 shares the prompt; an int8 cache has other bits, but the same alone and in company."""
    make = partial(engine_of, "4b", torch.float32, kv_dtype="int8")
    config = models.small_config()
    three = work_of("n", make_inputs(config, 30, ("image", 4, 4), 9), 6, temperature=1.5, seed=5, logprobs=True, n=3)
    answers = []
    for others in ([], works("4b")):
        done = drive(make(max_batched_tokens=50 if others else 2048), [three, *others])
        answers.append([(c.token_ids, c.logprobs) for c in done["n"].completion.choices])
    assert answers[0] == answers[1] and len(set(map(str, answers[0]))) == 3
    assert bits(drive(make(), works("4b", ["long"]))["long"].completion) != alone("4b", torch.float32, "long")


def test_an_ordinary_model_differs() -> None:
    """The tests above can fail."""
    ordinary = load_model(models.small_folder("4b"), attention="sdpa")
    seen = set()
    for budget in (2048, 29):
        settings = EngineSettings(block_size=4, max_sequences=8, reading_share=1.0, max_batched_tokens=budget)
        engine = Engine(ordinary, NumberTokenizer(), settings, 200)
        seen.add(bits(drive(engine, works("4b"))["long"].completion))
    assert len(seen) == 2
