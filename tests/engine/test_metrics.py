"""What is counted, and the snapshot of it."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError

import pytest

from qwen3vl.engine.metrics import RECENT_STEPS, RECENT_TIMES, Latencies, Metrics, Snapshot


def test_nothing_yet() -> None:
    snapshot = Metrics().snapshot()
    assert snapshot == Snapshot()
    assert (snapshot.kv_use, snapshot.prefix_hit_rate, snapshot.vision_hit_rate) == (0, 0, 0)
    with pytest.raises(FrozenInstanceError):
        snapshot.waiting = 1  # type: ignore[misc]


def test_percentiles_are_times_that_occurred() -> None:
    assert Latencies.of([4, 1, 3, 2], 9) == Latencies(9, 2.5, 2, 4, 4)
    assert Latencies.of([5], 1) == Latencies(1, 5, 5, 5, 5)
    hundred = Latencies.of([float(i) for i in range(1, 101)], 100)
    assert (hundred.p50, hundred.p90, hundred.p99) == (50, 90, 99)


def test_everything_told_is_in_the_snapshot() -> None:
    metrics = Metrics()
    metrics.step(0.5, 100, 0)
    metrics.step(0.5, 100, 3)
    metrics.step(0.25, 0, 5)
    metrics.first_token(0.3)
    metrics.token(0.1)
    metrics.token(0.2)
    metrics.gauges(4, 3, 2, 8)
    metrics.cache(30, 40, 1, 2)
    metrics.cache(0, 20, 0, 0)
    metrics.preparing(+3)
    metrics.preparing(-1)
    for outcome in ("finished", "finished", "aborted", "failed"):
        metrics.outcome(outcome)  # type: ignore[arg-type]
    snapshot = metrics.snapshot()
    assert snapshot == Snapshot(
        preparing=2,
        waiting=4,
        running=3,
        finished=2,
        aborted=1,
        failed=1,
        kv_blocks_used=2,
        kv_blocks_total=8,
        prompt_tokens=200,
        answer_tokens=8,
        prompt_rate=200.0,  # in the second that prompts were read in
        answer_rate=8 / 0.75,
        model_seconds=1.25,
        time_to_first_token=Latencies(1, 0.3, 0.3, 0.3, 0.3),
        inter_token_latency=snapshot.inter_token_latency,
        prefix_tokens_found=30,
        prefix_tokens_asked=60,
        visuals_found=1,
        visuals_asked=2,
    )
    assert snapshot.inter_token_latency.count == 2 and snapshot.inter_token_latency.mean == pytest.approx(0.15)
    assert (snapshot.kv_use, snapshot.prefix_hit_rate, snapshot.vision_hit_rate) == (0.25, 0.5, 0.5)


def test_rates_and_percentiles_are_of_late_and_counts_of_all_time() -> None:
    metrics = Metrics()
    for _ in range(RECENT_STEPS):
        metrics.step(1.0, 0, 1)
    for _ in range(RECENT_STEPS):
        metrics.step(0.5, 0, 1)
    for seconds in [9.0] * 10 + [1.0] * RECENT_TIMES:
        metrics.token(seconds)
    snapshot = metrics.snapshot()
    assert snapshot.answer_rate == 2.0 and snapshot.answer_tokens == 2 * RECENT_STEPS
    assert snapshot.inter_token_latency == Latencies(RECENT_TIMES + 10, 1, 1, 1, 1)


def test_many_threads_may_tell() -> None:
    metrics = Metrics()
    threads = [
        threading.Thread(target=lambda: [metrics.outcome("finished") for _ in range(500)] and None) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot().finished == 2000
