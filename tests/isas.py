"""The kernels of one instruction set at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qwen3vl.kernels.cpu.library import library

ISAS = ("plain", "avx2", "avx512", "neon")


@contextmanager
def using(isa: str) -> Iterator[ctypes.CDLL]:
    """Within it the kernels are those of `isa`; skips the test where the CPU lacks it, or nothing was built."""
    kernels = library()
    if kernels is None:
        pytest.skip("the kernels were not built")
    before = kernels.qwen3vl_isa()
    if kernels.qwen3vl_use_isa(isa.encode()):
        pytest.skip(f"this CPU has no {isa}")
    try:
        yield kernels
    finally:
        kernels.qwen3vl_use_isa(before)
