"""Fonts of the base system only, so that tests are quick and the same with and without the training packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen3vl.tasks.fonts import font_files
from qwen3vl.train.synthetic import faces

BASE = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf",
        "LiberationMono-Regular.ttf", "LiberationSerif-Italic.ttf")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def base_fonts() -> Iterator[None]:
    """DejaVu and Liberation, DejaVu Serif being the held-out one; skips where they are not installed."""
    found = tuple(p for p in font_files() if p.endswith(BASE))
    if not any(p.endswith("DejaVuSerif.ttf") for p in found) or len(found) < 3:
        pytest.skip("needs the DejaVu and Liberation fonts")
    caches = (faces.all_faces, faces._clans, faces.bolder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "font_files", lambda: found)
        for cache in caches:
            cache.cache_clear()
        yield
    for cache in caches:
        cache.cache_clear()
