"""Decoding every class of picture, and the receipt that tells what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qwen3vl.errors import InvalidMessage, InvalidParams, MediaDecodeError, MediaNotFound, MediaTimeout, MediaTooLarge
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.images import load_picture, prepare_picture
from qwen3vl.processor.resize import digest_frames, patchify, smart_resize
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart
from tests.fixtures.pictures import CORNERS, all_pictures, corner_colours, make_broken, scene

HALF = (0.5, 0.5, 0.5)
SETTINGS = VisionSettings(16, 2, 2, min_pixels=65536, max_pixels=1 << 24, mean=HALF, std=HALF)


@pytest.fixture(scope="module")
def pictures() -> dict[str, Path]:
    return all_pictures()


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_broken(tmp_path_factory.mktemp("broken"))


def close(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) < 30


# ----------------------------------------------------------------------------------- patch order


def test_patch_order_by_the_worked_example() -> None:
    """The example of patchify's docstring: 64 x 96 pixels, row 5 of the patches."""
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    patches = patchify(frame[None], SETTINGS).read()
    assert patches.shape == (4 * 6, 3 * 2 * 16 * 16)
    for c, f, y, x in ((0, 0, 0, 0), (2, 1, 15, 15), (1, 0, 3, 9)):
        expected = (np.float32(frame[0 + y, 48 + x, c]) - np.float32(127.5)) / np.float32(127.5)
        assert patches[5, 512 * c + 256 * f + 16 * y + x] == expected
    # Blocks of 2 x 2 patches follow each other; inside a block, rows before columns.
    origins = [(0, 0), (0, 16), (16, 0), (16, 16), (0, 32), (0, 48), (16, 32), (16, 48)]
    firsts = [(np.float32(frame[y, x, 0]) - np.float32(127.5)) / np.float32(127.5) for y, x in origins]
    assert patches[:8, 0].tolist() == firsts
    assert patches[12, 0] == (np.float32(frame[32, 0, 0]) - np.float32(127.5)) / np.float32(127.5)


def test_frames_of_a_video_share_rows_in_pairs() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, 32, 64, 3), dtype=np.uint8)
    patches = patchify(frames, SETTINGS).read().reshape(2, 8, 3, 2, 256)
    for t in range(2):
        for f in range(2):
            alone = patchify(frames[2 * t + f][None], SETTINGS).read().reshape(8, 3, 2, 256)
            assert np.array_equal(patches[t, :, :, f], alone[:, :, 0])
            assert np.array_equal(alone[:, :, 0], alone[:, :, 1])


def test_other_patch_geometry_and_channel_statistics() -> None:
    odd = VisionSettings(6, 3, 2, 1, 10**6, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    frames = np.random.default_rng(2).integers(0, 256, (3, 24, 36, 3), dtype=np.uint8)
    patches = patchify(frames, odd).read().reshape(2, 3, 2, 2, 3, 3, 6, 6)  # by, bx, my, mx, C, T, y, x
    mean, std = (np.array(v, np.float32) * np.float32(255) for v in (odd.mean, odd.std))
    pixel = frames[2, 12 + 6 + 4, 24 + 5]
    assert patches[1, 2, 1, 0, :, 2, 4, 5].tolist() == ((pixel.astype(np.float32) - mean) / std).tolist()


def test_smart_resize_bounds() -> None:
    assert smart_resize(1920, 1376, 32, 65536, 2048 * 32 * 32) == (1696, 1216)
    assert smart_resize(10, 10, 32, 65536, 1 << 24) == (256, 256)
    assert smart_resize(1, 200, 32, 65536, 1 << 24) == (32, 3648)
    assert smart_resize(48, 80, 32, 1, 1 << 24) == (64, 64)  # 1.5 and 2.5 both round to the even 2
    with pytest.raises(MediaTooLarge, match="1x201"):
        smart_resize(201, 1, 32, 65536, 1 << 24)


# --------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("name", [*(f"exif{i}.jpg" for i in range(1, 9)), "exif6.png", "exif6.tif", "exif6.webp"])
def test_orientation_is_applied(pictures: dict[str, Path], name: str) -> None:
    picture = load_picture(pictures[name])
    assert picture.pixels.shape == (100, 150, 3)
    assert picture.orientation == int(name[4])
    assert picture.original_size == ((100, 150) if picture.orientation >= 5 else (150, 100))
    found = corner_colours(picture.pixels)
    assert all(close(found[corner], CORNERS[corner]) for corner in CORNERS), found
    with Image.open(pictures[name]) as opened:
        assert np.array_equal(load_picture(opened).pixels, picture.pixels)


def test_every_way_of_giving_a_picture(pictures: dict[str, Path]) -> None:
    import base64

    path = pictures["rgb.png"]
    data = path.read_bytes()
    expected = np.asarray(scene(150, 100))
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for source in (path, str(path), path.as_uri(), data, url, scene(150, 100), expected, expected[:, ::1]):
        picture = load_picture(source)
        assert np.array_equal(picture.pixels, expected)
        assert picture.notes == ()
    flipped = load_picture(expected[:, ::-1])
    assert np.array_equal(flipped.pixels, expected[:, ::-1])


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), 7, None]
)
def test_what_is_not_a_picture_object(wrong: object) -> None:
    with pytest.raises(InvalidMessage):
        load_picture(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["rgba.png", "rgba.webp", "la.png"])
def test_transparency_is_laid_over_white(pictures: dict[str, Path], name: str) -> None:
    picture = load_picture(pictures[name])
    assert picture.notes == ("transparency laid over white",)
    assert (picture.pixels[:, 0] == 255).all()  # fully transparent there
    base = np.asarray(scene(150, 100).convert("L").convert("RGB") if name == "la.png" else scene(150, 100))
    alpha = np.linspace(0, 255, 150).astype(np.uint8)[None, :, None] / 255.0
    assert np.abs(picture.pixels - (base * alpha + 255 * (1 - alpha))).max() <= 1.5


def test_transparent_colours_and_opaque_alpha(pictures: dict[str, Path]) -> None:
    assert (load_picture(pictures["rgb_transparent.png"]).pixels[5, 5] == 255).all()
    assert load_picture(pictures["palette_transparent.png"]).notes == ("transparency laid over white",)
    opaque = load_picture(pictures["opaque_alpha.png"])
    assert opaque.notes == ()
    assert np.array_equal(opaque.pixels, np.asarray(scene(150, 100)))


def test_sixteen_bits_are_scaled_not_clipped(pictures: dict[str, Path], tmp_path: Path) -> None:
    picture = load_picture(pictures["grey16.png"])
    assert picture.notes == ("16-bit grey scaled to 8",)
    expected = np.rint(np.linspace(0, 65535, 120 * 80).astype(np.uint16).reshape(80, 120) / 257)
    assert np.array_equal(picture.pixels, np.repeat(expected[..., None], 3, -1))
    for name in ("a.tif", "a.pgm"):
        Image.open(pictures["grey16.png"]).save(tmp_path / name)
        assert np.array_equal(load_picture(tmp_path / name).pixels, picture.pixels), name


def test_floats_and_32_bit_grey_say_how_they_were_scaled(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0], [0.5, 3.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    picture = load_picture(tmp_path / "f.tif")
    assert picture.pixels[..., 0].tolist() == [[0, 64], [96, 255]]
    assert picture.notes == ("grey values -1 to 3 scaled to 0-255",)
    broken = load_picture(Image.fromarray(np.array([[np.nan, np.inf], [0, 2]], np.float32)))
    assert broken.pixels[..., 0].tolist() == [[0, 0], [0, 255]]
    with pytest.raises(MediaDecodeError, match="no finite value"):
        load_picture(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp", "animated.png"])
def test_animations_give_their_first_frame(pictures: dict[str, Path], name: str) -> None:
    picture = load_picture(pictures[name])
    assert "first of several frames or pages" in picture.notes
    assert np.abs(picture.pixels.astype(int) - np.asarray(scene(80, 60, 0))).mean() < 12
    if name == "animated.png":
        assert np.array_equal(picture.pixels, np.asarray(scene(80, 60, 0)))


def test_grey_cmyk_bilevel_and_palette(pictures: dict[str, Path]) -> None:
    base = np.asarray(scene(150, 100)).astype(int)
    assert np.ptp(load_picture(pictures["grey.jpg"]).pixels, axis=2).max() == 0
    assert np.abs(load_picture(pictures["cmyk.jpg"]).pixels - base).mean() < 12
    assert set(np.unique(load_picture(pictures["bilevel.png"]).pixels)) == {0, 255}
    assert np.abs(load_picture(pictures["palette.png"]).pixels - base).mean() < 16


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("truncated.jpg", MediaDecodeError, "truncated"),
        ("text.png", MediaDecodeError, "not a picture in a known format"),
        ("empty.jpg", MediaDecodeError, "is empty"),
        ("page.jpg", MediaDecodeError, "web page"),
        ("document.png", MediaDecodeError, "PDF"),
        ("header_only.png", MediaDecodeError, "decoded|damaged"),
        ("bomb.png", MediaTooLarge, "2500000000 pixels"),
        ("zero.png", MediaDecodeError, "0x10|damaged"),
        ("strip.png", MediaTooLarge, "1x4000 pixels; one side may be at most 200 times"),
    ],
)
def test_broken_files_are_named(broken: dict[str, Path], name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        prepare_picture(ImagePart(broken[name]), SETTINGS)
    assert name in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFound, match=r"gone\.png"):
        load_picture(tmp_path / "gone.png")


def test_limits_come_before_decoding(pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for limit in (dict(max_pixels=14_999), dict(max_bytes=500)):
        with pytest.raises(MediaTooLarge, match=next(iter(limit))):
            load_picture(pictures["rgb.png"], replace(MediaPolicy.library(), **limit))
    with pytest.raises(MediaTooLarge, match="14999"):
        load_picture(np.zeros((100, 150, 3), np.uint8), replace(MediaPolicy.library(), max_pixels=14_999))


def test_decoding_stops_reading_when_time_is_up(pictures: dict[str, Path]) -> None:
    with pytest.raises(MediaTimeout, match="decode_timeout"):
        load_picture(pictures["rgb.png"], replace(MediaPolicy.library(), decode_timeout=1e-9))


def test_pillow_settings_are_left_alone(tmp_path: Path) -> None:
    """More pixels than Pillow's process-wide bound are fine where the policy allows them, without a warning."""
    import warnings

    from PIL import ImageFile

    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    scene(600, 400).save(tmp_path / "a.png")
    Image.MAX_IMAGE_PIXELS = 100_000
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_picture(tmp_path / "a.png").pixels.shape == (400, 600, 3)
        assert Image.MAX_IMAGE_PIXELS == 100_000
    finally:
        Image.MAX_IMAGE_PIXELS = before[0]
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.parametrize("error", [RuntimeError("x"), OverflowError(), EOFError(), KeyError("k"), RecursionError()])
def test_whatever_a_decoder_raises_becomes_ours(pictures, monkeypatch, error: Exception) -> None:  # type: ignore[no-untyped-def]
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(MediaDecodeError, match=r"rgb\.bmp: cannot be decoded"):
        load_picture(pictures["rgb.bmp"])


def test_memory_error_and_interrupt_pass(pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError, KeyboardInterrupt):

        def fail(*args: object, error: type[BaseException] = error) -> None:
            raise error

        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
        with pytest.raises(error):
            load_picture(pictures["rgb.bmp"])


# -------------------------------------------------------------------------------------- receipts


def test_receipt(pictures: dict[str, Path]) -> None:
    visual = prepare_picture(ImagePart(pictures["exif6.jpg"]), SETTINGS)
    receipt = visual.receipt
    assert receipt.source == str(pictures["exif6.jpg"])
    assert (receipt.original_size, receipt.orientation) == ((100, 150), 6)
    assert receipt.resized_size == (320, 224)
    assert receipt.grid_thw == visual.grid_thw == (1, 14, 20)
    assert receipt.num_tokens == 70
    assert visual.patches.values_PC.shape == (280, 1536)
    assert len(receipt.digest) == 64


def test_digest_tells_pixels_sizes_and_settings_apart() -> None:
    frame = np.asarray(scene(64, 32))[None]
    other = frame.copy()
    other[0, 0, 0, 0] ^= 1
    variants = [
        digest_frames(frame, SETTINGS),
        digest_frames(other, SETTINGS),
        digest_frames(frame.reshape(1, 64, 32, 3), SETTINGS),
        digest_frames(frame, replace(SETTINGS, std=(0.5, 0.5, 0.4))),
    ]
    assert len(set(variants)) == 4
    assert digest_frames(frame.copy(), SETTINGS) == variants[0]


def test_part_settings_override_the_request(pictures: dict[str, Path]) -> None:
    part = ImagePart(pictures["large.jpg"], MediaOptions(max_pixels=2048 * 1024))
    visual = prepare_picture(part, SETTINGS, MediaOptions(max_pixels=100_000))
    assert visual.receipt.resized_size == (1216, 1696)


def test_crossing_bounds_and_settings_of_videos_are_refused(pictures: dict[str, Path]) -> None:
    part = ImagePart(pictures["rgb.png"])
    with pytest.raises(
        InvalidParams, match=r"min_pixels=65536 \(the checkpoint's\) is above max_pixels=1024 \(given\)"
    ):
        prepare_picture(part, SETTINGS, MediaOptions(max_pixels=1024))
    with pytest.raises(InvalidParams, match="fps, video_end: not a setting of a picture"):
        prepare_picture(ImagePart(part.image, MediaOptions(fps=1, video_end=2.0)), SETTINGS)
