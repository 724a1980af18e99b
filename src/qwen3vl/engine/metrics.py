"""How busy the engine is and how long answers take: counted where things happen, read as one frozen snapshot."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

RECENT_STEPS = 256  # passes of the model that rates are taken over
RECENT_TIMES = 2048  # latencies that percentiles are taken over

Outcome = Literal["finished", "aborted", "failed"]


class Recorder(Protocol):
    """What the engine reports of itself."""

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
        """A prompt has been read: its tokens, those that the prefix cache had, and the same of visuals."""
        ...


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the last RECENT_TIMES events, in seconds; `count` is of all. Zeros where there were none."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0

    @classmethod
    def of(cls, seconds: Iterable[float], count: int) -> Latencies:
        """Percentiles are times that occurred: of 1, 2, 3, 4 the p50 is 2 and the p90 is 4."""
        ordered = sorted(seconds)
        if not ordered:
            return cls()
        p50, p90, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99))
        return cls(count, sum(ordered) / len(ordered), p50, p90, p99)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The engine at one moment.

    Attributes:
        preparing: requests whose pictures, videos and prompt are being prepared, or that wait for that.
        waiting, running: answers that wait for the cache, and that the model works on.
        finished, aborted, failed: requests since the start; refused ones do not count.
        kv_blocks_used, kv_blocks_total: of the key/value cache.
        prompt_tokens, answer_tokens: computed since the start; what a cache served is not computed.
        prompt_rate, answer_rate: of these per second of model time, over the last passes.
        model_seconds: time spent in passes.
        time_to_first_token: from the moment that a request was prepared.
        inter_token_latency: from one token of an answer to its next.
        prefix_tokens_found, prefix_tokens_asked: tokens of prompts that the prefix cache served, of all.
        visuals_found, visuals_asked: pictures and videos that the vision cache served, of those needed.
    """

    preparing: int = 0
    waiting: int = 0
    running: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    prompt_rate: float = 0.0
    answer_rate: float = 0.0
    model_seconds: float = 0.0
    time_to_first_token: Latencies = Latencies()
    inter_token_latency: Latencies = Latencies()
    prefix_tokens_found: int = 0
    prefix_tokens_asked: int = 0
    visuals_found: int = 0
    visuals_asked: int = 0

    @property
    def kv_use(self) -> float:
        """Share of the cache that is in use."""
        return _share(self.kv_blocks_used, self.kv_blocks_total)

    @property
    def prefix_hit_rate(self) -> float:
        return _share(self.prefix_tokens_found, self.prefix_tokens_asked)

    @property
    def vision_hit_rate(self) -> float:
        return _share(self.visuals_found, self.visuals_asked)


class Metrics:
    """Told of what happens, by any thread; `snapshot` reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Snapshot()  # but for the rates and latencies, which are worked out when they are asked for
        self._steps: deque[tuple[float, int, int]] = deque(maxlen=RECENT_STEPS)
        self._first_tokens = _Times()
        self._tokens = _Times()

    def step(self, seconds: float, num_prefill: int, num_decode: int) -> None:
        """One pass of the model: tokens of prompts and of answers that it computed."""
        with self._lock:
            self._steps.append((seconds, num_prefill, num_decode))
            self._add(model_seconds=seconds, prompt_tokens=num_prefill, answer_tokens=num_decode)

    def first_token(self, seconds: float) -> None:
        with self._lock:
            self._first_tokens.add(seconds)

    def token(self, seconds: float) -> None:
        with self._lock:
            self._tokens.add(seconds)

    def gauges(self, waiting: int, running: int, kv_used: int, kv_total: int) -> None:
        with self._lock:
            self._now = replace(
                self._now, waiting=waiting, running=running, kv_blocks_used=kv_used, kv_blocks_total=kv_total
            )

    def cache(self, prefix_hits: int, prefix_asked: int, vision_hits: int, vision_asked: int) -> None:
        with self._lock:
            self._add(
                prefix_tokens_found=prefix_hits,
                prefix_tokens_asked=prefix_asked,
                visuals_found=vision_hits,
                visuals_asked=vision_asked,
            )

    def preparing(self, change: int) -> None:
        with self._lock:
            self._add(preparing=change)

    def outcome(self, outcome: Outcome) -> None:
        with self._lock:
            self._add(**{outcome: 1})

    def snapshot(self) -> Snapshot:
        with self._lock:
            return replace(
                self._now,
                prompt_rate=_rate(self._steps, 1),
                answer_rate=_rate(self._steps, 2),
                time_to_first_token=self._first_tokens.summary(),
                inter_token_latency=self._tokens.summary(),
            )

    def _add(self, **changes: float) -> None:
        self._now = replace(self._now, **{name: getattr(self._now, name) + by for name, by in changes.items()})


class _Times:
    """The last latencies, and how many there were in all."""

    def __init__(self) -> None:
        self._count = 0
        self._last: deque[float] = deque(maxlen=RECENT_TIMES)

    def add(self, seconds: float) -> None:
        self._count += 1
        self._last.append(seconds)

    def summary(self) -> Latencies:
        return Latencies.of(self._last, self._count)


def _rate(steps: Iterable[tuple[float, int, int]], column: Literal[1, 2]) -> float:
    """Tokens per second of the passes that had any."""
    own = [(step[0], step[column]) for step in steps if step[column]]
    return _share(sum(tokens for _, tokens in own), sum(seconds for seconds, _ in own))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
