"""The probes measure something on every instruction set; what they find is not asserted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen3vl.kernels.cpu import probe
from qwen3vl.kernels.cpu.library import library
from qwen3vl.kernels.cpu.probe import Peaks, Prober


@pytest.mark.parametrize("isa", ["plain", "avx2", "avx512"])
def test_each_instruction_set(isa: str) -> None:
    kernels = library()
    if kernels is None:
        pytest.skip("the kernels were not built")
    before = kernels.qwen3vl_isa()
    if kernels.qwen3vl_use_isa(isa.encode()):
        pytest.skip(f"this CPU has no {isa}")
    try:
        peaks = Prober(read_bytes=(1 << 20) + 100, seconds=0.001).measure()
    finally:
        kernels.qwen3vl_use_isa(before)
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
