"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for a hub


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real media, where there is one (see CONTRIBUTING)."""
    folder = os.environ.get("QWEN3VL_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("QWEN3VL_MEDIA is not set")
    return Path(folder)
