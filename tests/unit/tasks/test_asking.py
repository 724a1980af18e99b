"""Pixel limits of tasks: a cookbook's, unless the checkpoint was trained on smaller pictures."""

from __future__ import annotations

import pytest
from PIL import Image

import qwen3vl
from qwen3vl.tasks.asking import within
from qwen3vl.tasks.documents import parse
from qwen3vl.tasks.ocr import USUAL, read
from qwen3vl.types import MediaOptions
from tests import models
from tests.fixtures.fake_generator import FakeGenerator

SMALL, RELEASE = (1_024, 1_048_576), (65_536, 16_777_216)


def knowing(bounds: tuple[int, int] | None) -> FakeGenerator:
    model = FakeGenerator("said", repeat=True)
    model.picture_bounds = bounds  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize(
    ("bounds", "limits"),
    [
        (None, (524_288, 2_097_152)),
        (RELEASE, (524_288, 2_097_152)),
        (SMALL, SMALL),  # the docstring's example
        ((65_535, 16_777_216), (65_535, 2_097_152)),
        ((65_536, 100_000), (100_000, 100_000)),  # what the checkpoint cannot see is not asked for
        ((600_000, 600_000), (524_288, 600_000)),
    ],
)
def test_a_checkpoints_own_limits(bounds: tuple[int, int] | None, limits: tuple[int, int]) -> None:
    expected = MediaOptions(min_pixels=limits[0], max_pixels=limits[1])
    assert within(knowing(bounds), USUAL) == expected
    assert within(knowing(bounds), None) is None


def test_tasks_ask_within_them() -> None:
    model, picture, own = knowing(SMALL), Image.new("RGB", (64, 32)), MediaOptions(min_pixels=5)
    for ask in (read, parse):
        ask(model, picture if ask is read else [picture])  # type: ignore[operator]
        assert model.last.media == MediaOptions(min_pixels=SMALL[0], max_pixels=SMALL[1])
    read(model, picture, media=own)
    assert model.last.media == own


def test_a_loaded_model_knows_its_own() -> None:
    with qwen3vl.load(models.small_folder("4b"), lazy=True) as model:
        assert model.picture_bounds == RELEASE
