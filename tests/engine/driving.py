"""Requests for an Engine over tiny models, and driving it to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from qwen3vl import reference
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Output, Work
from qwen3vl.inputs import ModelInputs
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.settings import SamplingParams
from qwen3vl.types import Completion, Delta
from tests import models
from tests.engine.prompts import make_inputs


class NumberDecoder:
    """Tokens as text: "17 4 "."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def flush(self) -> str:
        return ""


@dataclass(frozen=True)
class NumberTokenizer:
    eos_token_ids: tuple[int, ...] = ()

    def incremental_decoder(self) -> NumberDecoder:
        return NumberDecoder()

    def id_of(self, token: str) -> int:
        return {"</think>": 900}[token]

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        assert (text, allow_special) == ("\n</think>\n\n", True)
        return [901, 900, 902]


@cache
def model(edition: str = "4b") -> Qwen3VL:
    """Two layers less than little: fast."""
    return models.ours(models.small_folder(edition))


def new_engine(edition: str = "4b", num_blocks: int = 64, eos: tuple[int, ...] = (), **settings: Any) -> Engine:
    settings = {"block_size": 4, "max_sequences": 8, "reading_share": 1.0, "loop_guard": "off", **settings}
    settings.pop("loop_guard")
    return Engine(model(edition), NumberTokenizer(eos), EngineSettings(**settings), num_blocks, name="tiny")


def work_of(request_id: str, inputs: ModelInputs, max_tokens: int = 8, **params: Any) -> Work:
    settings = SamplingParams(max_tokens=max_tokens, **params)
    return Work(request_id, Prompt.of(inputs, model().config), settings, max_tokens)


@cache
def expected(edition: str, parts: tuple[models.Part, ...], num_tokens: int, seed: int = 0) -> tuple[int, ...]:
    """The reference's answer to make_inputs(config, *parts, seed=seed)."""
    tiny = model(edition)
    answer = reference.generate_greedy(tiny, make_inputs(tiny.config, *parts, seed=seed), num_tokens)
    assert len(set(answer)) > 1 or num_tokens < 3
    return tuple(answer)


@dataclass
class Collected:
    """All outputs of one request."""

    deltas: list[Delta] = field(default_factory=list)
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    error: Exception | None = None

    @property
    def completion(self) -> Completion:
        assert self.error is None, self.error
        (completion,) = [delta.completion for delta in self.deltas if delta.completion is not None]
        assert self.deltas[-1].completion is completion
        return completion

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def collect(outputs: Sequence[Output], into: dict[str, Collected]) -> None:
    ids = [output.request_id for output in outputs]
    assert len(ids) == len(set(ids)), ids
    for output in outputs:
        collected = into.setdefault(output.request_id, Collected())
        assert collected.error is None and not any(delta.completion for delta in collected.deltas), "it was over"
        collected.deltas += output.deltas
        collected.progress += output.progress
        collected.error = output.error


def drive(
    engine: Engine, works: Sequence[Work] = (), between: Callable[[int], None] | None = None
) -> dict[str, Collected]:
    """Add the works and step to the end; integrity is checked after every step. `between` is called after each."""
    for work in works:
        engine.add(work)
    collected: dict[str, Collected] = {}
    for step in range(1000):
        if not engine.has_work:
            break
        collect(engine.step(), collected)
        engine.check_integrity()
        if between is not None:
            between(step)
            engine.check_integrity()
    assert not engine.has_work and engine.blocks.num_used == 0
    assert not engine.scheduler.waiting and not engine.scheduler.running
    return collected


def answers(collected: dict[str, Collected]) -> dict[str, tuple[int, ...]]:
    return {request_id: each.completion.token_ids for request_id, each in collected.items()}
