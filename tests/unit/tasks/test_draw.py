"""Drawings: in the right place, inside the picture, legible on small and large pictures, with a font that fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.tasks import fonts
from qwen3vl.tasks.coordinates import Box, Point
from qwen3vl.tasks.documents import parse
from qwen3vl.tasks.draw import (
    PALETTE,
    Canvas,
    _clip,
    draw_3d,
    draw_grounding,
    draw_page,
    draw_points,
    draw_reading,
    draw_seen,
)
from qwen3vl.tasks.fonts import runs
from qwen3vl.tasks.grounding import locate, point
from qwen3vl.tasks.ocr import read
from qwen3vl.tasks.spatial import locate_3d
from qwen3vl.tasks.video import SeenBox
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

GREY = (120, 120, 120)


def grey(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


@pytest.mark.parametrize(("size", "line", "letter"), [((300, 300), 2, 11), ((640, 480), 2, 11), ((3840, 2160), 7, 48)])
def test_lines_and_letters_grow_with_the_picture(size: tuple[int, int], line: int, letter: int) -> None:
    canvas = Canvas(grey(*size))
    assert (canvas.line, canvas.letter) == (line, letter)


def test_boxes_are_drawn_where_they_are() -> None:
    picture = grey()
    found = locate(FakeGenerator('[{"bbox_2d": [250, 250, 750, 750], "label": "a"}]'), picture, "a")
    drawing = draw_grounding(picture, found)
    assert picture.getpixel((160, 240)) == GREY, "the picture that was passed in was drawn on"
    for x, y in ((160, 240), (479, 240), (320, 120), (320, 359)):
        assert drawing.image.getpixel((x, y)) == PALETTE[0]
    assert drawing.image.getpixel((320, 240)) == GREY and not drawing.notes
    half = draw_grounding(picture.resize((320, 240)), found)
    assert half.image.getpixel((80, 120)) == PALETTE[0]


def test_labels_stay_inside_and_apart() -> None:
    canvas = Canvas(grey(300, 200))
    for box in (Box(0, 0, 10, 10), Box(290, 190, 300, 200), Box(290, 0, 300, 5), Box(0, 0, 300, 200), Box(5, 0, 20, 9)):
        canvas.label("a label of some length " * 3, box, PALETTE[0])
    assert len(canvas.taken) == 5
    for x1, y1, x2, y2 in canvas.taken:
        assert x1 >= 0 and y1 >= 0 and x2 <= 300.001 and y2 <= 200.001
    for i, a in enumerate(canvas.taken):
        for b in canvas.taken[:i]:
            assert min(a[2], b[2]) - max(a[0], b[0]) <= 0 or min(a[3], b[3]) - max(a[1], b[1]) <= 0.001


def test_twelve_labels_have_twelve_colours() -> None:
    canvas = Canvas(grey())
    assert len({canvas.colour(str(n)) for n in range(12)}) == 12 and canvas.colour("0") == PALETTE[0]


def test_points_are_never_covered() -> None:
    picture = grey(600, 400)
    found = point(FakeGenerator(answer("thirdparty_grounding2d_15")), picture, "people")
    drawing = draw_points(picture, found)
    for p in found.points:
        assert drawing.image.getpixel((int(p.point.x), int(p.point.y))) == PALETTE[0]


def test_wireframes() -> None:
    picture = grey(1600, 900)
    found = locate_3d(FakeGenerator(answer("3d_11_autonomous_driving")), picture, "cars")
    drawing = draw_3d(picture, found)
    corner = (found.boxes[1].projected or ())[0]
    assert drawing.image.getpixel((int(corner.x), int(corner.y))) == PALETTE[1]
    behind = locate_3d(FakeGenerator('[{"bbox_3d": [0,0,1,1,1,4,0,0,0], "label": "near"}]'), picture, "cars")
    assert "behind the camera" in draw_3d(picture, behind).notes[0]


def test_lines_that_leave_the_picture_are_clipped() -> None:
    assert _clip(Point(-1e9, 50), Point(1e9, 50), 100, 100, 0) == (Point(0, 50), Point(100, 50))
    assert _clip(Point(-10, -10), Point(-5, 500), 100, 100, 0) is None
    assert _clip(Point(10, 10), Point(20, 20), 100, 100, 0) == (Point(10, 10), Point(20, 20))


def test_reading_page_and_video() -> None:
    picture = grey(870, 1398)
    reading = draw_reading(picture, read(FakeGenerator(answer("ocr_line_spotting")), picture, level="line"))
    assert reading.image.size == (1740, 1398)
    right = reading.image.crop((870 + 617, 30, 870 + 850, 115))  # where "A06002" stands
    assert right.convert("L").getextrema()[0] < 60
    page = parse(FakeGenerator(answer("docparse_html")), picture, format="html").pages[0]
    assert draw_page(picture, page).image.getpixel((100 + 100, 45)) in (GREY, *PALETTE)
    seen = draw_seen(grey(), (640, 480), [SeenBox(0.0, 0, "dog", Box(100, 100, 200, 200))])
    assert seen.image.getpixel((100, 150)) == PALETTE[0]


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> str:
    path = next((p for p in fonts.font_files() if Path(p).name == "DejaVuSans.ttf"), None)
    if path is None:
        pytest.skip("DejaVu Sans is not installed")
    monkeypatch.setattr(fonts, "font_files", lambda: (path,))
    fonts._font_with.cache_clear()
    yield path
    fonts._font_with.cache_clear()


def test_a_font_is_chosen_by_the_letters_it_has(only_dejavu: str) -> None:
    pieces, note = runs("Straße кошка قطة", 12)
    assert len(pieces) == 1 and note is None and getattr(pieces[0].font, "path", "") == only_dejavu
    pieces, note = runs("cat 猫", 12)
    assert [p.text for p in pieces] == ["cat ", "猫"] and note is not None and "'猫'" in note
    found = locate(FakeGenerator('[{"bbox_2d": [250, 250, 750, 750], "label": "猫"}]'), grey(), "a")
    assert "QWEN3VL_FONTS" in draw_grounding(grey(), found).notes[0]


def test_without_any_font_labels_are_still_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: ())
    fonts._font_with.cache_clear()
    pieces, note = runs("Straße", 12)
    assert "".join(p.text for p in pieces) == "Straße" and note is None
    assert "к" in (runs("кот", 12)[1] or "")
    fonts._font_with.cache_clear()


def test_coverage_agrees_with_fontconfig(only_dejavu: str) -> None:
    starts, ends = fonts._coverage(only_dejavu)
    assert starts == sorted(starts) and all(a <= b for a, b in zip(starts, ends, strict=True))
    assert fonts._has(only_dejavu, frozenset("aß€Ж")) and not fonts._has(only_dejavu, frozenset("a猫"))
    assert fonts._coverage("no such file") == ([], [])
