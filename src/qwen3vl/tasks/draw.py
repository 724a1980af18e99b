"""Drawings of results, for people to look at.

Lines and letters grow with the picture; every line has a dark or light rim, so that it shows on any
ground; labels stay inside the picture and keep out of each other's way. Nothing is drawn on the
picture that is passed in: each function returns a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from qwen3vl.tasks.blocks import ParsedPage
from qwen3vl.tasks.coordinates import Box, Point
from qwen3vl.tasks.fonts import Run, runs
from qwen3vl.tasks.grounding import Grounding, Pointing
from qwen3vl.tasks.ocr import Reading
from qwen3vl.tasks.spatial import EDGES, Grounding3D
from qwen3vl.tasks.video import SeenBox

Colour = tuple[int, int, int]
# Okabe and Ito's colours, which people with any colour vision tell apart, then six of Paul Tol's.
PALETTE: tuple[Colour, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    *((51, 34, 136), (136, 204, 238), (153, 153, 51), (136, 34, 85), (170, 68, 153)),
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The picture with what was drawn, and what could not be (letters without a font)."""

    image: Image.Image
    notes: tuple[str, ...]


class Canvas:
    """A copy of a picture to draw on, in its own pixels."""

    def __init__(self, picture: Image.Image) -> None:
        self.image = picture.convert("RGB")
        self.image = self.image.copy() if self.image is picture else self.image
        self.draw = ImageDraw.Draw(self.image)
        width, height = self.image.size
        scale = math.sqrt(width * height)
        self.line = max(2, round(scale / 400))  # 300 px: 2, 640 x 480: 2, 3840 x 2160: 7
        self.letter = max(11, round(scale / 60))  # 300 px: 11, 640 x 480: 11, 3840 x 2160: 48
        self.colours: dict[str, Colour] = {}
        self.taken: list[tuple[float, float, float, float]] = []
        self.notes: list[str] = []

    def colour(self, label: str) -> Colour:
        """The same for the same label; a new one for each of the first twelve."""
        return self.colours.setdefault(label, PALETTE[len(self.colours) % len(PALETTE)])

    def box(self, box: Box, colour: Colour) -> None:
        x1, y1 = math.floor(box.x1), math.floor(box.y1)
        x2, y2 = max(x1, math.ceil(box.x2) - 1), max(y1, math.ceil(box.y2) - 1)  # the last pixels inside
        rim = _contrast(colour)
        self.draw.rectangle([x1 - 1, y1 - 1, x2 + 1, y2 + 1], outline=rim, width=self.line + 2)
        self.draw.rectangle([x1, y1, x2, y2], outline=colour, width=self.line)

    def lines(self, segments: Sequence[tuple[Point, Point]], colour: Colour) -> None:
        width, height = self.image.size
        inside = [s for a, b in segments if (s := _clip(a, b, width, height, self.line))]
        for rim in (True, False):
            shade, wide = (_contrast(colour), self.line + 2) if rim else (colour, self.line)
            for a, b in inside:
                self.draw.line([(a.x, a.y), (b.x, b.y)], fill=shade, width=wide)

    def dot(self, point: Point, colour: Colour) -> None:
        radius = self.line * 2
        for grow, shade in ((2, _contrast(colour)), (0, colour)):
            r = radius + grow
            self.draw.ellipse([point.x - r, point.y - r, point.x + r, point.y + r], fill=shade)

    def label(self, text: str, anchor: Box, colour: Colour) -> None:
        """A plate with `text` beside `anchor`, where it covers the least of other labels."""
        text = " ".join(text.split())
        if not text:
            return
        pieces, note = self._fitted(text)
        if note and note not in self.notes:
            self.notes.append(note)
        pad = max(2, self.letter // 6)
        width = sum(_length(run) for run in pieces) + 2 * pad
        height = self.letter * 1.25 + 2 * pad
        x, y = self._free_place(anchor, width, height)
        self.taken.append((x, y, x + width, y + height))
        self.draw.rectangle([x, y, x + width, y + height], fill=colour)
        at = x + pad
        for run in pieces:
            self.draw.text((at, y + pad + self.letter), run.text, font=run.font, fill=_contrast(colour), anchor="ls")
            at += _length(run)

    def _fitted(self, text: str) -> tuple[list[Run], str | None]:
        """The text in runs, shortened with an ellipsis where the picture is too narrow for it."""
        room = self.image.size[0] - 2 * max(2, self.letter // 6)
        pieces, note = runs(text, self.letter)
        if sum(_length(run) for run in pieces) <= room:
            return pieces, note
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            pieces, _ = runs(text[:middle] + "…", self.letter)
            low, high = (middle, high) if sum(_length(run) for run in pieces) <= room else (low, middle - 1)
        return runs(text[:low] + "…" if low else "", self.letter)[0], note

    def _free_place(self, anchor: Box, width: float, height: float) -> tuple[float, float]:
        """Above the box, inside it at the top, below, and to the right, in this order of liking."""
        picture_width, picture_height = self.image.size
        wanted = [
            *((anchor.x1, anchor.y1 - height), (anchor.x1, anchor.y1), (anchor.x1, anchor.y2)),
            *((anchor.x2 - width, anchor.y1 - height), (anchor.x1, anchor.y2 - height), (anchor.x2, anchor.y1)),
        ]
        wanted += [(anchor.x1, anchor.y1 + step * height) for step in (-2, 1, -3, 2, -4, 3)]
        best, least = (0.0, 0.0), math.inf
        for rank, (x, y) in enumerate(wanted):
            inside = (max(0.0, min(x, picture_width - width)), max(0.0, min(y, picture_height - height)))
            moved = abs(inside[0] - x) + abs(inside[1] - y)
            covered = sum(_overlap(inside, width, height, other) for other in self.taken)
            cost = covered / (width * height) + rank * 0.02 + moved / (picture_width + picture_height)
            if cost < least:
                best, least = inside, cost
        return best

    def done(self) -> Drawing:
        return Drawing(self.image, tuple(self.notes))


def draw_grounding(picture: Image.Image, found: Grounding) -> Drawing:
    """Boxes with labels; `picture` upright (pictures.open_picture), of any size with the same sides' ratio."""
    return _boxes(picture, found.size, [(b.label, b.box) for b in found.boxes])


def draw_seen(picture: Image.Image, size: tuple[int, int], boxes: Iterable[SeenBox]) -> Drawing:
    """The boxes of one frame of a video."""
    return _boxes(picture, size, [(b.label, b.box) for b in boxes])


def draw_page(picture: Image.Image, page: ParsedPage) -> Drawing:
    """The blocks of a page: one colour for each kind, numbered in reading order; all but plain text by name."""
    canvas, scale = Canvas(picture), _scale(picture, page.size)
    canvas.letter = max(11, canvas.letter // 2)  # pages hold many small blocks
    placed = [(b, _scaled(b.box, scale)) for b in page.blocks if b.box]
    for block, box in placed:
        canvas.box(box, canvas.colour(block.kind))
    for block, box in placed:
        name = str(block.order + 1) if block.kind == "text" else f"{block.order + 1} {block.kind}"
        canvas.label(name, box, canvas.colour(block.kind))
    return canvas.done()


def _boxes(picture: Image.Image, size: tuple[int, int], boxes: Sequence[tuple[str, Box]]) -> Drawing:
    canvas, scale = Canvas(picture), _scale(picture, size)
    for label, box in boxes:
        canvas.box(_scaled(box, scale), canvas.colour(label))
    for label, box in boxes:
        canvas.label(label, _scaled(box, scale), canvas.colour(label))
    return canvas.done()


def draw_points(picture: Image.Image, found: Pointing) -> Drawing:
    """Points with labels."""
    canvas, (sx, sy) = Canvas(picture), _scale(picture, found.size)
    places = [(p.label, Point(p.point.x * sx, p.point.y * sy)) for p in found.points]
    reach = canvas.line * 2 + 2
    around = [Box(at.x - reach, at.y - reach, at.x + reach, at.y + reach) for _, at in places]
    canvas.taken += [box.corners for box in around]  # no label shall cover a point
    for (label, _), box in zip(places, around, strict=True):
        canvas.label(label, box, canvas.colour(label))
    for label, at in places:
        canvas.dot(at, canvas.colour(label))
    return canvas.done()


def draw_3d(picture: Image.Image, found: Grounding3D) -> Drawing:
    """Wireframes; a box with a corner behind the camera cannot be drawn and is noted."""
    canvas, (sx, sy) = Canvas(picture), _scale(picture, found.size)
    for number, box in enumerate(found.boxes):
        if box.projected is None:
            canvas.notes.append(f"{box.label!r} reaches behind the camera: not drawn")
            continue
        colour = canvas.colour(f"{number} {box.label}")
        corners = [Point(p.x * sx, p.y * sy) for p in box.projected]
        canvas.lines([(corners[a], corners[b]) for a, b in EDGES], colour)
        xs, ys = [p.x for p in corners], [p.y for p in corners]
        canvas.label(box.label, Box(min(xs), min(ys), max(xs), max(ys)), colour)
    return canvas.done()


def draw_reading(picture: Image.Image, reading: Reading) -> Drawing:
    """The picture with its lines or words boxed, and beside it the text that was read, each in its place."""
    canvas, scale = Canvas(picture), _scale(picture, reading.size)
    width, height = canvas.image.size
    sheet = Canvas(Image.new("RGB", (width, height), "white"))
    for number, found in enumerate(reading.boxes):
        colour, box = PALETTE[number % len(PALETTE)], _scaled(found.box, scale)
        canvas.box(box, colour)
        sheet.draw.rectangle(box.corners, outline=colour)
        if note := _fill(sheet.draw, found.text, box):
            sheet.notes.append(note)
    both = Image.new("RGB", (2 * width, height), "white")
    both.paste(canvas.image, (0, 0))
    both.paste(sheet.image, (width, 0))
    return Drawing(both, tuple(dict.fromkeys(sheet.notes)))


def _fill(draw: ImageDraw.ImageDraw, text: str, box: Box) -> str | None:
    """Writes the text as large as its box allows."""
    size = max(6, round(box.height * 0.75))
    pieces, note = runs(text, size)
    length = sum(_length(run) for run in pieces)
    if length > box.width > 0:
        size = max(6, int(size * box.width / length))
        pieces, note = runs(text, size)
    at = box.x1
    for run in pieces:
        draw.text((at, box.y1 + (box.height + size * 0.7) / 2), run.text, font=run.font, fill="black", anchor="ls")
        at += _length(run)
    return note


# ------------------------------------------------------------------------------------- geometry


def _length(run: Run) -> float:
    return float(run.font.getlength(run.text))


def _scale(picture: Image.Image, size: tuple[int, int]) -> tuple[float, float]:
    return picture.width / size[0], picture.height / size[1]


def _scaled(box: Box, scale: tuple[float, float]) -> Box:
    return Box(box.x1 * scale[0], box.y1 * scale[1], box.x2 * scale[0], box.y2 * scale[1])


def _contrast(colour: Colour) -> Colour:
    """Black on light colours, white on dark ones (relative luminance of sRGB, without its gamma)."""
    red, green, blue = colour
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 120 else (255, 255, 255)


def _overlap(at: tuple[float, float], width: float, height: float, other: tuple[float, float, float, float]) -> float:
    across = min(at[0] + width, other[2]) - max(at[0], other[0])
    down = min(at[1] + height, other[3]) - max(at[1], other[1])
    return max(0.0, across) * max(0.0, down)


def _clip(a: Point, b: Point, width: int, height: int, margin: int) -> tuple[Point, Point] | None:
    """The part of a segment inside the picture and a margin (Liang and Barsky 1984); a projected corner
    may lie millions of pixels outside."""
    low, high = 0.0, 1.0
    dx, dy = b.x - a.x, b.y - a.y
    edges = ((-dx, a.x + margin), (dx, width + margin - a.x), (-dy, a.y + margin), (dy, height + margin - a.y))
    for step, room in edges:
        if step == 0:
            if room < 0:
                return None
            continue
        t = room / step
        low, high = (max(low, t), high) if step < 0 else (low, min(high, t))
    if low > high:
        return None
    return Point(a.x + low * dx, a.y + low * dy), Point(a.x + high * dx, a.y + high * dy)
