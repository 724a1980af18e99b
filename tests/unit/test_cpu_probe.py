"""The probes measure something on every instruction set; what they find is not asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen3vl.kernels.cpu import probe
from qwen3vl.kernels.cpu.probe import Peaks, Prober
from tests.isas import ISAS, using


@pytest.mark.parametrize("isa", ISAS)
def test_each_instruction_set(isa: str) -> None:
    with using(isa) as kernels:
        peaks = Prober(read_bytes=(1 << 20) + 100, seconds=0.001).measure()
    assert (peaks.isa, peaks.threads) == (isa, kernels.qwen3vl_threads())
    assert peaks.integers is not None and min(peaks.read, peaks.floats, peaks.integers) > 1e6


def test_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "library", lambda: None)
    peaks = Prober(read_bytes=1 << 20, seconds=0.001).measure()
    assert peaks.isa == "torch" and peaks.integers is None and min(peaks.read, peaks.floats) > 1e6


def test_the_best_of_two() -> None:
    one = Peaks("avx2", 2, read=3.0, floats=5.0, integers=8.0)
    other = replace(one, read=4.0, floats=1.0, integers=9.0)
    assert one.best(other) == other.best(one) == Peaks("avx2", 2, read=4.0, floats=5.0, integers=9.0)
