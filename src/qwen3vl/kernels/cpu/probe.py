"""What this machine can do at most, measured with loops of our own: the yardstick of `qwen3vl bench`.

Taken on the kernels' threads and instruction set. A machine that others use too gives less for a moment: measure
several times and take the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

from qwen3vl.kernels.cpu.library import library

READ_BYTES = 1 << 28  # more than the last cache of ordinary machines holds
_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Peaks:
    """Bytes read a second from memory, float32 operations and byte operations a second (multiply and add are two).

    `integers` is None without the kernels: torch multiplies floats then.
    """

    isa: str
    threads: int
    read: float
    floats: float
    integers: float | None

    def best(self, other: Peaks) -> Peaks:
        """The larger of each; of the same machine."""
        assert (self.isa, self.threads) == (other.isa, other.threads), (self, other)
        integers = None if self.integers is None or other.integers is None else max(self.integers, other.integers)
        return Peaks(self.isa, self.threads, max(self.read, other.read), max(self.floats, other.floats), integers)


class Prober:
    """Measures again and again on one buffer, whose first touch takes longer than the measurement."""

    def __init__(self, read_bytes: int = READ_BYTES, seconds: float = _SECONDS) -> None:
        self._data = torch.ones(read_bytes, dtype=torch.uint8)
        self._seconds = seconds

    def measure(self) -> Peaks:
        """Takes about 0.2 seconds."""
        kernels = library()
        if kernels is None:
            return self._with_torch()
        return Peaks(
            isa=kernels.qwen3vl_isa().decode(),
            threads=kernels.qwen3vl_threads(),
            read=kernels.qwen3vl_probe_read(self._data.data_ptr(), self._data.numel()),
            floats=kernels.qwen3vl_probe_arithmetic(0, self._seconds),
            integers=kernels.qwen3vl_probe_arithmetic(1, self._seconds),
        )

    def _with_torch(self) -> Peaks:
        """A sum over the buffer, and the largest product that is sure to be in the caches."""
        start = perf_counter()
        self._data.view(torch.int64).sum()
        read = self._data.numel() / (perf_counter() - start)
        a, operations, start = torch.ones(256, 256), 0, perf_counter()
        while perf_counter() - start < self._seconds:
            a @ a
            operations += 2 * 256**3
        return Peaks("torch", torch.get_num_threads(), read, operations / (perf_counter() - start), None)
