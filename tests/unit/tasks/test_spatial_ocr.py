"""3-D boxes: corners and projection by hand; reading: the divisor of 999."""

from __future__ import annotations

import math

import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError, UnsupportedOption
from qwen3vl.tasks.coordinates import Box, Point
from qwen3vl.tasks.ocr import PAGE_PROMPT, SPOTTING_PROMPT, read
from qwen3vl.tasks.spatial import EDGES, SIGNS, Box3D, Intrinsics, locate_3d, prompt_3d
from qwen3vl.types import MediaOptions
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer, recorded

DRIVING = Intrinsics(1266.417203046554, 1266.417203046554, 816.2670197447984, 491.50706579294757)


def picture(width: int = 1600, height: int = 900) -> Image.Image:
    return Image.new("RGB", (width, height))


def test_prompt_is_the_cookbooks() -> None:
    assert prompt_3d("cars") == recorded("3d_11_autonomous_driving")["prompt"]


def test_recorded_cars() -> None:
    found = locate_3d(FakeGenerator(answer("3d_11_autonomous_driving")), picture(), "cars", intrinsics=DRIVING)
    assert [b.label for b in found.boxes] == ["car", "car"] and not found.notes
    car = found.boxes[0].box
    assert car.centre == (2.88, 0.56, 6.28) and car.size == (4.45, 1.7, 1.84)
    assert car.angles == pytest.approx((135, 88.2, 135))
    assert found.boxes[0].projected is not None
    centre = DRIVING.project(car.centre)
    assert centre is not None and centre.x == pytest.approx(1397.05, abs=0.01)
    xs = [p.x for p in found.boxes[1].projected or ()]
    assert 800 < min(xs) < max(xs) < 1400  # the farther car stands right of the middle


def test_corners_of_an_unturned_box() -> None:
    corners = Box3D((0, 0, 10), (2, 4, 6), (0, 0, 0)).corners()
    assert corners[0] == (1, 2, 13) and corners[1] == (1, 2, 7) and corners[-1] == (-1, -2, 7)
    assert [tuple(int(math.copysign(1, v)) for v in (x, y, z - 10)) for x, y, z in corners] == list(SIGNS)
    assert len(EDGES) == 12 and (0, 1) in EDGES and (0, 7) not in EDGES
    lengths = sorted(math.dist(corners[a], corners[b]) for a, b in EDGES)
    assert lengths == [2] * 4 + [4] * 4 + [6] * 4


@pytest.mark.parametrize(
    ("angles", "corner"),
    [((90, 0, 0), (1, -3, 2)), ((0, 90, 0), (3, 2, -1)), ((0, 0, 90), (-2, 1, 3)), ((90, 90, 0), (2, -3, -1))],
)
def test_turns_are_about_x_then_y_then_z(angles: tuple[float, float, float], corner: tuple[float, ...]) -> None:
    assert Box3D((0, 0, 0), (2, 4, 6), angles).corners()[0] == pytest.approx(corner)


def test_camera() -> None:
    camera = Intrinsics.from_fov((1600, 900))
    assert camera.fx == pytest.approx(800 / math.tan(math.radians(30)))
    assert camera.fy == pytest.approx(450 / math.tan(math.radians(30)))
    assert camera.project((0, 0, 5)) == Point(800, 450) and camera.project((0, 0, 0)) is None
    with pytest.raises(InvalidParams):
        Intrinsics.from_fov((10, 10), 180)


def test_a_box_behind_the_camera_is_not_projected() -> None:
    reply = '[{"bbox_3d": [0, 0, 1, 1, 1, -4, 0, 0, 0], "label": "near"}, {"bbox_2d": [1, 2, 3, 4]}]'
    found = locate_3d(FakeGenerator(reply), picture(), "cars")
    assert found.boxes[0].projected is None and found.boxes[0].box.size == (1, 1, 4)
    assert len(found.notes) == 3 and "60 degrees" in found.notes[0]


def test_lines_are_read_with_999() -> None:
    model = FakeGenerator(answer("ocr_line_spotting"))
    reading = read(model, picture(870, 1398), level="line")
    assert model.prompt == recorded("ocr_line_spotting")["prompt"] == SPOTTING_PROMPT.format(level="line")
    assert model.last.media == MediaOptions(min_pixels=524288, max_pixels=2097152)
    assert len(reading.boxes) == 40 and reading.text.splitlines()[1] == "UNIHAKKA INTERNATIONAL SDN BHD"
    assert reading.boxes[0].box == Box(709 * 870 / 999, 22 * 1398 / 999, 976 * 870 / 999, 82 * 1398 / 999)


def test_pages_are_read_as_text() -> None:
    model = FakeGenerator(answer("ocr_full_zh"))
    reading = read(model, picture())
    assert reading.text == answer("ocr_full_zh") and reading.boxes == () and model.prompt == PAGE_PROMPT
    assert read(FakeGenerator("```\nfenced\n```"), picture()).text == "fenced"
    assert not read(FakeGenerator("half", finish_reason="length"), picture()).complete
    with pytest.raises(ParseError):
        read(FakeGenerator("plain"), picture(), level="word")
    with pytest.raises(InvalidParams):
        read(FakeGenerator("x"), picture(), level="letter")  # type: ignore[arg-type]


def test_a_server_that_cannot_set_pixel_limits_is_asked_without() -> None:
    def refuse(request: object) -> UnsupportedOption | None:
        return UnsupportedOption("min_pixels") if request.media else None  # type: ignore[attr-defined]

    model = FakeGenerator("text", repeat=True, refuse=refuse)
    assert "pixel limits" in read(model, picture()).notes[0] and model.num_requests == 2
    with pytest.raises(UnsupportedOption):
        read(model, picture(), media=MediaOptions(min_pixels=1))
