"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a hub
# Shrunken models gain nothing from a second thread, and threads that spin while they wait slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real media, where there is one (see CONTRIBUTING)."""
    folder = os.environ.get("QWEN3VL_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("QWEN3VL_MEDIA is not set")
    return Path(folder)
