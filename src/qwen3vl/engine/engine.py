"""The engine: schedule, run, sample, update."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter
from typing import Protocol

from qwen3vl.engine.answer import TextDecoder
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Output, Work
from qwen3vl.model.qwen3vl import Qwen3VL


class Tokenizer(Protocol):
    """What the engine needs of processor.tokenizer.Tokenizer."""

    @property
    def eos_token_ids(self) -> Collection[int]: ...
    def incremental_decoder(self) -> TextDecoder: ...
    def id_of(self, token: str) -> int: ...
    def encode(self, text: str, *, allow_special: bool) -> list[int]: ...


class Recorder(Protocol):
    """What the engine reports of itself (engine/metrics.py)."""

    def step(self, seconds: float, num_prefill: int, num_decode: int) -> None:
        """One step: tokens of prompts read and tokens decoded in it."""
        ...

    def first_token(self, seconds: float) -> None:
        """From `add` to the first token of a request."""
        ...

    def token(self, seconds: float) -> None:
        """From one token of an answer to its next."""
        ...

    def gauges(self, waiting: int, running: int, kv_used: int, kv_total: int) -> None:
        """Sequences in either queue; blocks of the cache that are in use, and all of them."""
        ...

    def cache(self, prefix_hits: int, prefix_asked: int, vision_hits: int, vision_asked: int) -> None:
        """A request begins: tokens of its prompt found and asked for. Visuals are counted when they are needed."""
        ...


class Engine:
    """Answers many requests at once. Synchronous, for one thread; knows no messages, media or files.

    Args:
        num_blocks: of the cache (engine/memory.py says how many a budget gives).
        name: of the model, for Completions.
        clock: seconds, for metrics and for the reading share.
    """

    def __init__(
        self,
        model: Qwen3VL,
        tokenizer: Tokenizer,
        settings: EngineSettings,
        num_blocks: int,
        *,
        name: str = "",
        metrics: Recorder | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        raise NotImplementedError

    def add(self, work: Work) -> None:
        """Queue a request. Raises InvalidRequest for what can never be answered: nothing is kept of it then."""
        raise NotImplementedError

    def step(self) -> list[Output]:
        """One pass of the model; at most one Output per request. Call it while `has_work`."""
        raise NotImplementedError

    def abort(self, request_id: str) -> Output | None:
        """End a request now and free all it holds. -> its last Output (finish_reason "abort"); None: it is not here."""
        raise NotImplementedError

    @property
    def has_work(self) -> bool:
        raise NotImplementedError

    def forget(self) -> None:
        """Empty the prefix and vision caches (after the weights changed, or to free memory)."""
        raise NotImplementedError
