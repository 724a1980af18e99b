"""Where things are: the one module that knows that the model counts 0..1000.

Three frames, each with its own types. Origin top left, x right, y down, everywhere; coordinates are
continuous (a picture W pixels wide spans 0..W; the centre of its first pixel is 0.5).

    RelativePoint, RelativeBox   what the model writes: 0..divisor across the picture it was shown
    Point, Box                   pixels of the file the user gave, after its EXIF orientation
    (stored pixels)              pixels of that file as stored, before orientation: see `orient`

The model is asked on a 0..1000 grid (0..999 for text spotting and the phone) and rounds to whole
numbers, so its answers are right to about 1/1000 of the side; the mapping itself loses nothing.
Worked example (also a test): in a 1600 x 900 picture, (500, 250) of 1000 is the pixel (800.0, 225.0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen3vl.errors import ParseError

DIVISOR = 1000  # of every task but the two below; cookbooks of QwenLM/Qwen3-VL
SPOTTING_DIVISOR = 999  # ocr.ipynb
PHONE_DIVISOR = 999  # mobile_agent.ipynb: "The screen's resolution is 999x999"


@dataclass(frozen=True, slots=True)
class Point:
    """A place in pixels (float) of the user's picture after its EXIF orientation."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle in pixels (float) of the user's picture after its EXIF orientation;
    (x1, y1) is its top left corner, (x2, y2) its bottom right one."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def centre(self) -> Point:
        return Point((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2


@dataclass(frozen=True, slots=True)
class RelativePoint:
    """A place in 0..divisor of the picture the model was shown: its own numbers, unmended."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class RelativeBox:
    """A rectangle in 0..divisor of the picture the model was shown: its own numbers, unmended, so
    corners may be swapped and values may lie outside."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Frame:
    """The picture a model was shown, as a part of the picture the user gave.

    Attributes:
        width, height: of the user's picture in pixels, after its EXIF orientation.
        divisor: what the model calls the full width and the full height.
        shown: the part it was shown, in pixels of the user's picture; None is all of it. Resizing
            needs no entry: relative coordinates do not depend on it.
    """

    width: float
    height: float
    divisor: float = DIVISOR
    shown: Box | None = None

    def __post_init__(self) -> None:
        assert self.width > 0 and self.height > 0 and self.divisor > 0, self
        assert self.shown is None or (self.shown.width > 0 and self.shown.height > 0), self

    @property
    def region(self) -> Box:
        """The part of the user's picture that the model was shown, in its pixels."""
        return self.shown or Box(0.0, 0.0, float(self.width), float(self.height))

    def crop(self, box: Box) -> Frame:
        """The frame of a picture cut out of the user's picture at `box` (in the user's pixels),
        however it was resized afterwards."""
        return replace(self, shown=box)

    def to_pixels(self, point: RelativePoint) -> Point:
        """Model to user, without mending: a point outside stays outside."""
        region = self.region
        return Point(
            region.x1 + point.x * region.width / self.divisor, region.y1 + point.y * region.height / self.divisor
        )

    def to_relative(self, point: Point) -> RelativePoint:
        """User to model, in float; the model itself would round."""
        region = self.region
        return RelativePoint(
            (point.x - region.x1) * self.divisor / region.width, (point.y - region.y1) * self.divisor / region.height
        )

    def box_to_relative(self, box: Box) -> RelativeBox:
        low, high = self.to_relative(Point(box.x1, box.y1)), self.to_relative(Point(box.x2, box.y2))
        return RelativeBox(low.x, low.y, high.x, high.y)

    def box_to_pixels(self, box: RelativeBox) -> Box:
        """Model to user, without mending."""
        low, high = self.to_pixels(RelativePoint(box.x1, box.y1)), self.to_pixels(RelativePoint(box.x2, box.y2))
        return Box(low.x, low.y, high.x, high.y)

    def mend_point(self, point: RelativePoint) -> tuple[Point, tuple[str, ...]]:
        """`to_pixels` of the point moved into the frame, and a note where it had to be moved."""
        inside = RelativePoint(self._clamp(point.x), self._clamp(point.y))
        notes = (
            () if inside == point else (f"point {_show(point.x, point.y)} lay outside 0..{self.divisor:g}: clamped",)
        )
        return self.to_pixels(inside), notes

    def mend_box(self, box: RelativeBox) -> tuple[Box, tuple[str, ...]]:
        """`box_to_pixels` of the box with its corners in order and inside the frame, and a note for
        each of the two that had to be done."""
        name = f"box {_show(box.x1, box.y1, box.x2, box.y2)}"
        notes: list[str] = []
        (x1, x2), (y1, y2) = sorted((box.x1, box.x2)), sorted((box.y1, box.y2))
        ordered = RelativeBox(x1, y1, x2, y2)
        if ordered != box:
            notes.append(f"{name} had swapped corners: put in order")
        inside = RelativeBox(*(self._clamp(v) for v in (ordered.x1, ordered.y1, ordered.x2, ordered.y2)))
        if inside != ordered:
            notes.append(f"{name} lay outside 0..{self.divisor:g}: clamped")
        return self.box_to_pixels(inside), tuple(notes)

    def _clamp(self, value: float) -> float:
        if not math.isfinite(value):
            raise ParseError(f"a coordinate is {value}")
        return min(max(value, 0), self.divisor)


def _show(*values: float) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


# ---------------------------------------------------------------------- EXIF orientation, tag 0x0112


def oriented_size(stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) as seen, of a file that stores `stored` pixels; orientations 5-8 turn it on its side."""
    return (stored[1], stored[0]) if orientation >= 5 else stored


def orient(point: Point, stored: tuple[int, int], orientation: int) -> Point:
    """From the pixels of a file as stored, `stored` = (width, height), to the upright picture.

    Orientation 6 (turn a quarter clockwise) on a 400 x 300 file: the stored top left corner (0, 0)
    is seen at the top right, (300, 0).
    """
    x, y, (w, h) = point.x, point.y, stored
    assert 1 <= orientation <= 8, orientation
    seen = [(x, y), (w - x, y), (w - x, h - y), (x, h - y), (y, x), (h - y, x), (h - y, w - x), (y, w - x)]
    return Point(*seen[orientation - 1])


def unorient(point: Point, stored: tuple[int, int], orientation: int) -> Point:
    """The inverse of `orient`; 6 and 8 undo each other, all others undo themselves."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    return orient(point, oriented_size(stored, orientation), inverse)


def unorient_box(box: Box, stored: tuple[int, int], orientation: int) -> Box:
    """The same rectangle in the pixels of the file as stored (for tools that ignore EXIF)."""
    a = unorient(Point(box.x1, box.y1), stored, orientation)
    b = unorient(Point(box.x2, box.y2), stored, orientation)
    return enclosing([a, b])


def enclosing(points: Sequence[Point]) -> Box:
    """The smallest box around the points."""
    xs, ys = [p.x for p in points], [p.y for p in points]
    return Box(min(xs), min(ys), max(xs), max(ys))
