"""Who waits for whom: reading yields to answers that somebody reads along, and to no others."""

from __future__ import annotations

from typing import Any

import pytest

from qwen3vl.engine.engine import Engine
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.settings import SamplingParams
from tests import models
from tests.engine.driving import Collected, NumberTokenizer, collect
from tests.engine.fake_model import FakeModel, expected_ids, prompt_of
from tests.engine.prompts import as_inputs

MODEL = FakeModel()
PASS, TOKEN, PIECE = 1.0, 0.02, 5.0  # seconds: of a pass, more for each token of it, of a piece of the tower
PICTURES: tuple[models.Part, ...] = tuple(part for _ in range(6) for part in (3, ("image", 8, 8)))
LONG: tuple[models.Part, ...] = (600,)


class Timed:
    """An engine whose clock shows what its passes and pieces of the tower would take."""

    def __init__(self, **settings: Any) -> None:
        chosen = EngineSettings(**{"block_size": 4, "max_batched_tokens": 256, "max_sequences": 16, **settings})
        model: Any = MODEL
        self.engine = Engine(model, NumberTokenizer(), chosen, 1000, clock=lambda: self.now)
        self.now = 0.0
        self.pieces: list[int] = []  # of the tower, in each step
        self.read: list[int] = []  # tokens of prompts, in each step
        self.collected: dict[str, Collected] = {}
        run, look = self.engine.runner.run, self.engine.runner.look

        def slow_run(batch: Any) -> Any:
            self.now += PASS + TOKEN * sum(chunk.length for chunk in batch.chunks)
            self.read[-1] += batch.num_read
            return run(batch)

        def slow_look(*arguments: Any) -> int:
            self.now += PIECE
            self.pieces[-1] += 1
            return look(*arguments)

        runner: Any = self.engine.runner
        runner.run, runner.look = slow_run, slow_look

    def add(
        self, name: str, *parts: models.Part, num_tokens: int = 400, streamed: bool = False, seed: int = 99
    ) -> None:
        inputs = as_inputs(models.make_prompt(MODEL.config, *parts, seed=seed), MODEL.config)
        params = SamplingParams(max_tokens=num_tokens, loop_guard="off")
        self.engine.add(Work(name, prompt_of(MODEL, inputs), params, num_tokens, streamed=streamed))

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.pieces.append(0)
            self.read.append(0)
            collect(self.engine.step(), self.collected)
            self.engine.check_integrity()

    def until_written(self, name: str) -> tuple[int, float]:
        """Until a request has its first token. -> steps and seconds that took."""
        before, started = len(self.read), self.now
        while not (name in self.collected and self.collected[name].deltas):
            self.steps(1)
            assert len(self.read) < 2000
        return len(self.read) - before, self.now - started


def growing(*, streamed: bool) -> Timed:
    """Four answers, the first of which is streamed or not, and a step or two to learn what decoding takes."""
    timed = Timed()
    for i in range(4):
        timed.add(str(i), 9, seed=i, streamed=streamed and i == 0)
    timed.steps(5)
    assert len(timed.engine.scheduler.running) == 4
    timed.read.clear()
    timed.pieces.clear()
    return timed


@pytest.mark.parametrize("parts", [LONG, PICTURES])
def test_words_that_are_read_along_come_half_as_fast_at_worst(parts: tuple[models.Part, ...]) -> None:
    timed = growing(streamed=True)
    timed.add("long", *parts, num_tokens=1)
    steps, seconds = timed.until_written("long")
    alone = PASS + 4 * TOKEN
    assert alone < seconds / steps <= 2.05 * alone
    assert max(timed.pieces) <= 1 and max(timed.read) <= 60


def test_reading_goes_first_while_nobody_reads_along() -> None:
    timed = growing(streamed=False)
    timed.add("long", *LONG, num_tokens=1)
    assert timed.until_written("long")[0] == 3
    assert timed.read == [252, 252, 96]  # each pass decodes four tokens beside it


def test_pictures_are_seen_together_while_answers_grow_that_nobody_reads_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Six pictures of 64 patches in three pieces each; 100 patches are enough for a step."""
    monkeypatch.setattr("qwen3vl.engine.engine.PATCHES_PER_CHUNK", 100)
    timed = growing(streamed=False)
    for i in range(6):
        timed.add(f"picture {i}", 3, ("image", 8, 8), seed=i, num_tokens=2)
    timed.steps(4)
    assert timed.pieces == [6, 6, 6, 0]
    assert timed.read == [0, 42, 42, 42][: len(timed.read)]


def test_alone_a_picture_is_seen_in_pieces() -> None:
    """So that an abort or another request need not wait for all of it."""
    timed = Timed()
    timed.add("pictures", *PICTURES, num_tokens=1)
    timed.until_written("pictures")
    assert max(timed.pieces) == 1 and sum(timed.pieces) == 18


def test_who_is_streamed_is_protected_from_when_it_decodes_to_its_end() -> None:
    timed = growing(streamed=False)
    timed.add("streamed", 9, seed=7, num_tokens=6, streamed=True)
    timed.until_written("streamed")
    timed.add("long", 3000, num_tokens=1)
    begin = len(timed.read)
    while not timed.collected["streamed"].deltas[-1].completion:
        timed.steps(1)
    assert max(timed.read[begin:]) <= 60
    timed.steps(1)
    assert timed.read[-1] == 252


def test_answers_do_not_depend_on_it() -> None:
    timed = growing(streamed=False)
    for i, parts in enumerate((LONG, PICTURES, (20,))):
        timed.add(f"more {i}", *parts, num_tokens=9, seed=i, streamed=i == 2)
    while timed.engine.has_work:
        timed.steps(1)
    for i, parts in enumerate((LONG, PICTURES, (20,))):
        inputs = as_inputs(models.make_prompt(MODEL.config, *parts, seed=i), MODEL.config)
        assert timed.collected[f"more {i}"].completion.token_ids == expected_ids(inputs, 9)
    assert timed.engine.blocks.num_used == 0 and not timed.engine.runner._looking
