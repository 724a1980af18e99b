"""Patches and grids against transformers' picture processor: the same bits for every class of picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qwen3vl.errors import MediaTooLarge
from qwen3vl.inputs import Visual
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.images import load_picture, prepare_picture
from qwen3vl.processor.probe import probe_picture
from qwen3vl.processor.resize import resize_pixels, smart_resize
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart
from tests import oracle
from tests.fixtures.pictures import all_pictures, scene

SETTINGS = VisionSettings.from_file(oracle.ASSETS / "preprocessor_config.json")
BOUNDS = [(None, None), (4 * 1024, 64 * 1024), (300_000, None), (1024, 50_000), (256 * 1024, 256 * 1024)]
# Depth and unreadable EXIF are where we part from PIL's convert("RGB") on purpose.
DEEP = {"grey16.png"}
SOME = ("exif6.jpg", "rgb.png", "tall.png", "tiny.png", "large.jpg")


@pytest.fixture(scope="module")
def pictures() -> dict[str, Path]:
    return all_pictures()


def oracle_patches(
    picture: Image.Image | np.ndarray, low: int | None = None, high: int | None = None
) -> tuple[np.ndarray, tuple]:
    size = {"shortest_edge": low or SETTINGS.min_pixels, "longest_edge": high or SETTINGS.max_pixels}
    out = oracle.processor().image_processor(images=[picture], size=size, return_tensors="pt")
    return out["pixel_values"].numpy(), tuple(out["image_grid_thw"][0].tolist())


def assert_same(visual: Visual, expected: tuple[np.ndarray, tuple]) -> None:
    patches, grid = expected
    assert visual.grid_thw == grid
    assert visual.patches.read().dtype == patches.dtype == np.float32
    assert np.array_equal(visual.patches.read(), patches)
    assert visual.receipt.num_tokens == grid[1] * grid[2] // 4


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_generated_pictures_give_transformers_patches(
    pictures: dict[str, Path], low: int | None, high: int | None
) -> None:
    chosen = pictures.keys() - DEEP if low is None else SOME
    for name in sorted(chosen):
        path = pictures[name]
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
        visual = prepare_picture(ImagePart(path, MediaOptions(min_pixels=low, max_pixels=high)), SETTINGS)
        patches, grid = oracle_patches(upright, low, high)
        assert (visual.grid_thw, np.array_equal(visual.patches.read(), patches)) == (grid, True), name


def test_the_bounds_change_what_is_compared(pictures: dict[str, Path]) -> None:
    grids = {
        prepare_picture(ImagePart(pictures["large.jpg"], MediaOptions(min_pixels=a, max_pixels=b)), SETTINGS).grid_thw
        for a, b in BOUNDS
    }
    assert len(grids) == 4  # only min 300,000 leaves this picture as it is


def test_real_pictures(media: Path) -> None:
    files = sorted(p for p in (media / "pictures").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = files[:: len(files) // 24]
    assert len(chosen) >= 20
    for path in chosen:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
        visual = prepare_picture(ImagePart(path, MediaOptions(max_pixels=1024 * 1024)), SETTINGS)
        assert_same(visual, oracle_patches(upright, None, 1024 * 1024))


def test_all_exif_files_look_the_same(media: Path) -> None:
    for kind in ("Landscape", "Portrait"):
        files = sorted((media / "pictures/exif_orientation").rglob(f"{kind}_*.jpg"))
        assert len(files) >= 8, files
        loaded = [load_picture(path) for path in files]
        assert {p.pixels.shape for p in loaded} == {loaded[0].pixels.shape}
        first = loaded[0].pixels.astype(int)
        # Each was compressed on its own, hence not equal; a wrong turn would be far away.
        assert max(np.abs(p.pixels - first).mean() for p in loaded) < 6
        assert np.abs(first[::-1, ::-1] - first).mean() > 20
        assert {p.orientation for p in loaded} == set(range(1, 9))


@pytest.mark.parametrize(
    "name",
    [
        "exif6.jpg",
        "rgba.png",
        "la.png",
        "palette_transparent.png",
        "cmyk.jpg",
        "grey16.png",
        "rgb_transparent.png",
        "animated.gif",
        "exif6.png",
        "bilevel.png",
    ],
)
def test_transformers_manner_for_files_and_for_pil(pictures: dict[str, Path], name: str) -> None:
    """Files go through its load_image, which drops transparency; PIL pictures keep their turn."""
    from transformers.image_utils import load_image

    path = pictures[name]
    assert_same(
        prepare_picture(ImagePart(path), SETTINGS, manner="transformers"),
        oracle_patches(np.asarray(load_image(str(path)))),
    )
    with Image.open(path) as picture:
        assert_same(prepare_picture(ImagePart(picture), SETTINGS, manner="transformers"), oracle_patches(picture))


def test_transformers_manner_differs_where_it_should(pictures: dict[str, Path]) -> None:
    path = pictures["rgba.png"]
    ours, theirs = load_picture(path), load_picture(path, manner="transformers")
    assert not np.array_equal(ours.pixels, theirs.pixels)
    with Image.open(pictures["exif6.jpg"]) as turned:
        assert load_picture(turned, manner="transformers").pixels.shape != load_picture(turned).pixels.shape


def test_other_normalisation_and_patch_sizes() -> None:
    """Means and deviations that are not exact in binary, and a patch of 14 as in Qwen2-VL."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    other = replace(SETTINGS, patch_size=14, mean=mean, std=std, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    oracle.import_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    out = Qwen2VLImageProcessor()(images=[scene(200, 150)], return_tensors="pt")
    visual = prepare_picture(ImagePart(scene(200, 150)), other)
    assert_same(visual, (out["pixel_values"].numpy(), tuple(out["image_grid_thw"][0].tolist())))


def test_notebook_check_value() -> None:
    assert smart_resize(1920, 1376, 32, 65536, 2048 * 32 * 32) == (1696, 1216)


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    low=st.integers(1, 1 << 22),
    extra=st.integers(0, 1 << 24),
    factor=st.sampled_from([28, 32]),
)
def test_smart_resize_equals_transformers(height: int, width: int, low: int, extra: int, factor: int) -> None:
    oracle.import_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs

    try:
        expected = theirs(height, width, factor, low, low + extra)
    except ValueError:
        with pytest.raises(MediaTooLarge):
            smart_resize(height, width, factor, low, low + extra)
        return
    assert smart_resize(height, width, factor, low, low + extra) == expected


@pytest.mark.parametrize("size", [(64, 96), (320, 256), (100, 150), (33, 640)])
def test_resize_equals_torchvision_in_either_memory_format(size: tuple[int, int]) -> None:
    oracle.import_torchvision()
    from torchvision.transforms.v2 import functional

    pixels = np.asarray(scene(150, 100))
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
    cubic = functional.InterpolationMode.BICUBIC
    theirs = functional.resize(planes, list(size), interpolation=cubic, antialias=True)
    assert np.array_equal(resize_pixels(pixels, size), theirs.permute(1, 2, 0).numpy())


def test_probe_agrees_with_decoding(pictures: dict[str, Path]) -> None:
    for path in pictures.values():
        header, loaded = probe_picture(path, MediaPolicy.library()), load_picture(path)
        assert header.upright_size == loaded.pixels.shape[1::-1], path.name
        assert (header.size, header.orientation) == (loaded.original_size, loaded.orientation), path.name
