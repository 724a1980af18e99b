"""Headers without decoding: sizes, orientations, token counts, limits."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from qwen3vl.errors import InvalidParams, MediaDecodeError, MediaTooLarge
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.images import load_picture, prepare_picture
from qwen3vl.processor.probe import PictureHeader, check_picture, count_picture_tokens, picture_grid, probe_picture
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart
from tests.fixtures.pictures import all_pictures, gif_of_many_frames, jpeg_of_many_scans, scene

HALF = (0.5, 0.5, 0.5)
SETTINGS = VisionSettings(16, 2, 2, min_pixels=65536, max_pixels=1 << 24, mean=HALF, std=HALF)
POLICY = MediaPolicy.library()


@pytest.fixture(scope="module")
def pictures() -> dict[str, Path]:
    return all_pictures()


def test_no_pixel_is_decoded(pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for name, path in pictures.items():
        header = probe_picture(path, POLICY)
        assert min(header.size) > 0, name
        assert count_picture_tokens(path, SETTINGS) > 0, name


def test_headers(pictures: dict[str, Path]) -> None:
    header = probe_picture(pictures["exif8.jpg"], POLICY)
    assert (header.size, header.upright_size, header.orientation) == ((100, 150), (150, 100), 8)
    assert header.format == "JPEG"
    for name in ("exif6.png", "exif6.tif", "exif6.webp"):
        header = probe_picture(pictures[name], POLICY)
        assert (header.size, header.orientation) == ((100, 150), 6), name
    assert probe_picture(pictures["animated.png"], POLICY).num_frames == 3
    assert probe_picture(pictures["animated.gif"], POLICY).num_frames is None  # not in its header


def test_tokens_are_those_of_the_real_thing(pictures: dict[str, Path]) -> None:
    for options in (None, MediaOptions(max_pixels=100_000), MediaOptions(min_pixels=200_000)):
        for name in ("exif6.jpg", "tall.png", "tiny.png", "rgb.png"):
            visual = prepare_picture(ImagePart(pictures[name]), SETTINGS, options)
            header = probe_picture(pictures[name], POLICY)
            assert picture_grid(header.upright_size, SETTINGS, options) == visual.grid_thw
            assert count_picture_tokens(pictures[name], SETTINGS, options) == visual.receipt.num_tokens


def test_grid_of_the_notebook_example() -> None:
    assert picture_grid((1376, 1920), SETTINGS, MediaOptions(max_pixels=2048 * 1024)) == (1, 106, 76)
    with pytest.raises(InvalidParams, match=r"min_pixels=20000000 \(given\) is above max_pixels=16777216"):
        picture_grid((100, 100), SETTINGS, MediaOptions(min_pixels=20_000_000))


def exif_png(*, behind_the_pixels: bool) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    scene(40, 60).save(file, "PNG", exif=exif)
    data = file.getvalue()
    if not behind_the_pixels:
        return data
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    tail = data.index(b"IEND") - 4
    return data[:start] + data[end:tail] + data[start:end] + data[tail:]


@pytest.mark.parametrize("behind", [False, True])
def test_png_orientation_before_and_behind_the_pixels(behind: bool) -> None:
    data = exif_png(behind_the_pixels=behind)
    assert (data.index(b"eXIf") > data.index(b"IDAT")) == behind
    assert probe_picture(data, POLICY).orientation == 6
    assert load_picture(data).pixels.shape == (40, 60, 3)


def test_png_orientation_in_a_text_chunk() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    file = io.BytesIO()
    scene(40, 60).save(file, "PNG", pnginfo=info)
    assert probe_picture(file.getvalue(), POLICY).orientation == load_picture(file.getvalue()).orientation == 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_nonsense_orientation_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    file = io.BytesIO()
    scene(40, 60).save(file, "JPEG", exif=exif)
    assert probe_picture(file.getvalue(), POLICY).orientation == 1
    assert load_picture(file.getvalue()).pixels.shape == (60, 40, 3)


def test_unreadable_exif_is_none() -> None:
    file = io.BytesIO()
    scene(40, 60).save(file, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 40)
    assert probe_picture(file.getvalue(), POLICY).orientation == 1
    assert load_picture(file.getvalue()).pixels.shape == (60, 40, 3)


def test_limits() -> None:
    check_picture(PictureHeader("a", (200, 1)), POLICY)
    with pytest.raises(MediaTooLarge, match="a: 201x1"):
        check_picture(PictureHeader("a", (201, 1)), POLICY)
    with pytest.raises(MediaTooLarge, match=r"100x100 = 10000 pixels, above the limit of 9999"):
        check_picture(PictureHeader("a", (100, 100)), replace(POLICY, max_pixels=9999))
    with pytest.raises(MediaDecodeError, match="0x5"):
        check_picture(PictureHeader("a", (0, 5)), POLICY)


def test_jpeg_of_very_many_scans_is_refused() -> None:
    assert load_picture(jpeg_of_many_scans(64, 64, 300)).pixels.shape == (64, 64, 3)
    with pytest.raises(MediaTooLarge, match="scans over 4000x4000"):
        load_picture(jpeg_of_many_scans(4000, 4000, 300))


def test_a_gif_of_100_000_frames_is_its_first() -> None:
    picture = load_picture(gif_of_many_frames(100_000))
    assert picture.pixels.shape == (64, 64, 3)
    assert picture.notes == ("first of several frames or pages",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7 ...", "is a PDF"),
        (b"%!PS-Adobe", "PostScript"),
        (b" \n<!DOCTYPE html>", "web page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "XML"),
        (b"<svg xmlns=", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0", "video"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "decoded|damaged"),
        (b"", "empty"),
    ],
)
def test_what_other_files_are_called(data: bytes, words: str) -> None:
    with pytest.raises(MediaDecodeError, match=words):
        probe_picture(data, POLICY)
