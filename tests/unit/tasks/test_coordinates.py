"""Frames: there and back, crops, EXIF orientation, and what is said about mended answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qwen3vl.errors import ParseError
from qwen3vl.tasks.coordinates import (
    SPOTTING_DIVISOR,
    Box,
    Frame,
    Point,
    RelativeBox,
    RelativePoint,
    enclosing,
    orient,
    oriented_size,
    unorient,
    unorient_box,
)

sides = st.integers(1, 20000)
parts = st.floats(0, 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    width, height = draw(sides), draw(sides)
    frame = Frame(width, height, draw(st.sampled_from([1000, 999])))
    if draw(st.booleans()):
        x, y = draw(st.floats(0, width * 0.9)), draw(st.floats(0, height * 0.9))
        frame = frame.crop(Box(x, y, x + width * 0.1, y + height * 0.1))
    return frame


def test_worked_example() -> None:
    assert Frame(1600, 900).to_pixels(RelativePoint(500, 250)) == Point(800.0, 225.0)
    assert Frame(870, 1398, SPOTTING_DIVISOR).to_pixels(RelativePoint(999, 999)) == Point(870.0, 1398.0)


@given(frames(), parts, parts)
def test_points_go_there_and_back(frame: Frame, u: float, v: float) -> None:
    region = frame.region
    point = Point(region.x1 + u * region.width, region.y1 + v * region.height)
    back = frame.to_pixels(frame.to_relative(point))
    assert back.x == pytest.approx(point.x, abs=1e-9 * frame.width)
    assert back.y == pytest.approx(point.y, abs=1e-9 * frame.height)


@given(frames(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_go_there_and_back(frame: Frame, values: list[float]) -> None:
    x1, y1, x2, y2 = (v * frame.divisor for v in values)
    box = RelativeBox(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    pixels, notes = frame.mend_box(box)
    assert not notes
    back = frame.box_to_relative(pixels)
    for got, want in zip((back.x1, back.y1, back.x2, back.y2), (box.x1, box.y1, box.x2, box.y2), strict=True):
        assert got == pytest.approx(want, abs=1e-6 * frame.divisor)


@given(frames(), parts, parts)
def test_the_models_rounding_costs_at_most_half_a_unit(frame: Frame, u: float, v: float) -> None:
    point = frame.to_pixels(RelativePoint(u * frame.divisor, v * frame.divisor))
    exact = frame.to_relative(point)
    rounded = frame.to_pixels(RelativePoint(round(exact.x), round(exact.y)))
    assert abs(rounded.x - point.x) <= 0.5001 / frame.divisor * frame.region.width
    assert abs(rounded.y - point.y) <= 0.5001 / frame.divisor * frame.region.height


def test_a_crop_counts_from_its_own_corner_in_the_users_pixels() -> None:
    zoom = Frame(2000, 1000).crop(Box(500, 200, 700, 300))
    assert zoom.to_pixels(RelativePoint(0, 0)) == Point(500, 200)
    assert zoom.to_pixels(RelativePoint(1000, 500)) == Point(700, 250)
    inner = zoom.crop(Box(600, 250, 610, 260))
    assert inner.to_pixels(RelativePoint(500, 500)) == Point(605, 255)


def test_swapped_and_outside_are_mended_and_said() -> None:
    frame = Frame(100, 200)
    box, notes = frame.mend_box(RelativeBox(900, 100, -50, 1400))
    assert box == Box(0, 20, 90, 200)
    assert len(notes) == 2 and "swapped" in notes[0] and "outside 0..1000" in notes[1]
    point, notes = frame.mend_point(RelativePoint(1001, 500))
    assert point == Point(100, 100) and len(notes) == 1
    assert frame.mend_box(RelativeBox(0, 0, 1000, 1000)) == (Box(0, 0, 100, 200), ())


def test_a_coordinate_that_is_no_number_is_refused() -> None:
    with pytest.raises(ParseError):
        Frame(10, 10).mend_point(RelativePoint(float("nan"), 1))


@given(st.integers(1, 8), sides, sides, parts, parts)
def test_orientation_goes_there_and_back(orientation: int, w: int, h: int, u: float, v: float) -> None:
    point = Point(u * w, v * h)
    seen = orient(point, (w, h), orientation)
    width, height = oriented_size((w, h), orientation)
    assert -1e-6 <= seen.x <= width + 1e-6 and -1e-6 <= seen.y <= height + 1e-6
    back = unorient(seen, (w, h), orientation)
    assert (back.x, back.y) == pytest.approx((point.x, point.y), abs=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_pillows(orientation: int) -> None:
    stored = Image.new("L", (4, 3))
    stored.putpixel((1, 0), 255)
    exif = stored.getexif()
    exif[0x0112] = orientation
    stored.info["exif"] = exif.tobytes()
    seen = ImageOps.exif_transpose(stored)
    centre = orient(Point(1.5, 0.5), (4, 3), orientation)
    assert seen.size == oriented_size((4, 3), orientation)
    assert seen.getpixel((int(centre.x), int(centre.y))) == 255


def test_a_box_in_stored_pixels_keeps_its_area() -> None:
    box = unorient_box(Box(250, 0, 300, 100), (400, 300), 6)  # the seen top right corner
    assert box == Box(0, 0, 100, 50)
    assert enclosing([Point(3, 1), Point(1, 2)]) == Box(1, 1, 3, 2)
