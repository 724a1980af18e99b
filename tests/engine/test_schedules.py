"""Random schedules: requests come, are preempted, aborted and forgotten in any order. After every step all blocks are
accounted for, and every answer is what its own prompt alone gives (see fake_model)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qwen3vl.engine.engine import Engine
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.inputs import ModelInputs
from qwen3vl.settings import SamplingParams
from tests import models
from tests.engine.driving import Collected, NumberTokenizer, collect
from tests.engine.fake_model import FakeModel, expected_ids, prompt_of
from tests.engine.prompts import as_inputs

MODEL = FakeModel()
PROMPTS: list[tuple[tuple[models.Part, ...], int]] = [  # parts, seed: some begin alike, some but for their pixels
    ((1,), 0),
    ((9,), 0),
    ((14,), 0),
    ((5, ("image", 4, 6), 4), 1),
    ((5, ("image", 4, 6), 4), 2),
    ((5, ("image", 4, 6), 4, ("video", 2, 4, 4), 3), 1),
    ((("video", 3, 2, 4), 2), 3),
    ((("image", 8, 8),), 4),
]


@cache
def inputs_of(number: int) -> ModelInputs:
    parts, seed = PROMPTS[number]
    prompt = models.make_prompt(MODEL.config, *parts, seed=seed)
    prompt.input_ids_T[: parts[0] if isinstance(parts[0], int) else 0] = 7  # the same text in front of each picture
    return as_inputs(prompt, MODEL.config)


@cache
def answer_of(number: int, num_tokens: int) -> tuple[int, ...]:
    return expected_ids(inputs_of(number), num_tokens)


@dataclass
class Asked:
    number: int
    num_tokens: int
    n: int


class Schedules(RuleBasedStateMachine):
    @initialize(
        block_size=st.sampled_from([1, 3, 4, 16]),
        spare=st.integers(0, 20),
        budget=st.sampled_from([1, 5, 7, 2048]),
        max_sequences=st.integers(1, 5),
        prefix_cache=st.booleans(),
        vision_cache_bytes=st.sampled_from([0, 200, 1 << 20]),
        share=st.sampled_from([0.3, 1.0]),
    )
    def begin(
        self,
        block_size: int,
        spare: int,
        budget: int,
        max_sequences: int,
        prefix_cache: bool,
        vision_cache_bytes: int,
        share: float,
    ) -> None:
        options = EngineSettings(
            block_size=block_size,
            max_batched_tokens=budget,
            max_sequences=min(max_sequences, budget),
            prefix_cache=prefix_cache,
            vision_cache_bytes=vision_cache_bytes,
            reading_share=share,
        )
        num_blocks = -(-48 // block_size) + spare
        model: Any = MODEL
        self.seconds = 0.0
        self.engine = Engine(model, NumberTokenizer(), options, num_blocks, clock=self.clock)
        self.asked: dict[str, Asked] = {}
        self.collected: dict[str, Collected] = {}
        self.aborted: set[str] = set()

    def clock(self) -> float:
        self.seconds += 0.01
        return self.seconds

    @rule(
        number=st.integers(0, len(PROMPTS) - 1),
        num_tokens=st.integers(1, 9),
        n=st.sampled_from([1, 1, 1, 2, 4]),
        streamed=st.booleans(),
    )
    def add(self, number: int, num_tokens: int, n: int, streamed: bool) -> None:
        request_id = str(len(self.asked))
        params = SamplingParams(max_tokens=num_tokens, n=n)
        prompt = prompt_of(MODEL, inputs_of(number))
        self.engine.add(Work(request_id, prompt, params, num_tokens, streamed=streamed))
        self.asked[request_id] = Asked(number, num_tokens, n)

    @precondition(lambda self: self.engine.has_work)
    @rule(times=st.integers(1, 6))
    def step(self, times: int) -> None:
        for _ in range(times):
            if self.engine.has_work:
                collect(self.engine.step(), self.collected)
                self.engine.check_integrity()

    @precondition(lambda self: self.engine.scheduler.running)
    @rule(which=st.integers(0, 9))
    def preempt(self, which: int) -> None:
        running = self.engine.scheduler.running
        self.engine.scheduler.preempt(running[which % len(running)])

    @precondition(lambda self: self.engine.jobs)
    @rule(which=st.integers(0, 9))
    def abort(self, which: int) -> None:
        request_id = list(self.engine.jobs)[which % len(self.engine.jobs)]
        self.aborted.add(request_id)
        output = self.engine.abort(request_id)
        assert output is not None
        collect([output], self.collected)
        asked, completion = self.asked[request_id], self.collected[request_id].completion
        assert len(completion.choices) == asked.n
        for choice in completion.choices:
            whole = answer_of(asked.number, asked.num_tokens)
            assert choice.token_ids == whole[: len(choice.token_ids)]
            assert choice.finish_reason == "abort" or choice.token_ids == whole

    @rule()
    def forget(self) -> None:
        self.engine.forget()

    @invariant()
    def nothing_leaks(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check_integrity()
            scheduler = self.engine.scheduler
            assert [s.order for s in scheduler.running] == sorted(s.order for s in scheduler.running)
            assert len(scheduler.running) <= self.engine.settings.max_sequences
            assert all(not s.table.blocks for s in scheduler.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        while self.engine.has_work:
            self.step(1)
        assert self.engine.blocks.num_used == 0 and not self.engine.runner._looking
        for request_id, asked in self.asked.items():
            completion = self.collected[request_id].completion
            if request_id not in self.aborted:
                expected = answer_of(asked.number, asked.num_tokens)
                assert [choice.token_ids for choice in completion.choices] == [expected] * asked.n


Schedules.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSchedules = Schedules.TestCase
