"""A pytest plugin: the kernels come from the library that QWEN3VL_SANITIZED names (scripts/sanitize_kernels.sh)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from qwen3vl.kernels.cpu import library


def _places() -> Iterator[Path]:
    yield Path(os.environ["QWEN3VL_SANITIZED"])


library._places = _places
