"""Screens drawn by ourselves in a millisecond or two: buttons, fields, check boxes, switches, tabs, menus, icons.

A Board draws widgets in a theme and keeps what it drew. Themes ("palette/build") and layouts (widget_layouts.py)
belong to sides.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from qwen3vl.train.synthetic.faces import Kind, pick_face
from qwen3vl.train.synthetic.icons import ICONS
from qwen3vl.train.synthetic.interface_words import Names
from qwen3vl.train.synthetic.palette import Rgb, distance, is_dark, mix
from qwen3vl.train.synthetic.sample import PixelBox, Side
from qwen3vl.train.synthetic.shapes import Style, draw_tile
from qwen3vl.train.synthetic.sides import of_side

PALETTES: dict[str, tuple[Rgb, Rgb, Rgb]] = {  # ground, surface, accent
    "paper": ((245, 246, 248), (255, 255, 255), (37, 99, 235)),
    "stone": ((231, 229, 228), (250, 250, 249), (194, 65, 12)),
    "classic": ((192, 192, 192), (212, 208, 200), (0, 0, 128)),
    "night": ((17, 24, 39), (31, 41, 55), (96, 165, 250)),
    "coal": ((24, 24, 27), (39, 39, 42), (250, 204, 21)),
    "leaf": ((236, 253, 245), (255, 255, 255), (5, 150, 105)),
    "berry": ((253, 242, 248), (255, 255, 255), (190, 24, 93)),
    "plum": ((46, 16, 101), (76, 29, 149), (216, 180, 254)),
    "sand": ((250, 245, 235), (255, 253, 247), (120, 72, 24)),
    "sea": ((224, 242, 254), (240, 249, 255), (3, 105, 161)),
    "mono": ((255, 255, 255), (255, 255, 255), (20, 20, 20)),
    "steel": ((71, 85, 105), (100, 116, 139), (226, 232, 240)),
    "wine": ((69, 10, 10), (127, 29, 29), (254, 202, 202)),
    "mint": ((209, 250, 229), (236, 253, 245), (15, 118, 110)),
    "office": ((243, 242, 241), (255, 255, 255), (16, 124, 16)),
    "clay": ((254, 243, 199), (255, 251, 235), (180, 83, 9)),
}
BUILDS = ("round", "square", "pill", "flat", "raised", "outline")
THEMES = tuple(f"{palette}/{build}" for palette in PALETTES for build in BUILDS)


@dataclass(frozen=True, slots=True)
class Widget:
    """Something that can be clicked.

    Attributes:
        kind: as people call it: "button", "field", "check box", ...
        name: what is written on it or beside it; of an icon, what it shows.
        box: in pixels; what a click must hit.
    """

    kind: str
    name: str
    box: PixelBox

    @property
    def words(self) -> str:
        return f"{self.name} {self.kind}"


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours and forms; `size` of the letters in pixels."""

    build: str
    ground: Rgb
    surface: Rgb
    accent: Rgb
    ink: Rgb
    edge: Rgb
    font: ImageFont.FreeTypeFont
    size: int
    capitals: bool

    @property
    def radius(self) -> int:
        return {"round": 5, "pill": 99, "flat": 3, "outline": 4}.get(self.build, 0)

    @property
    def row(self) -> int:
        """Of a button or a field."""
        return round(self.size * (1.9 if self.build in ("square", "raised") else 2.3))


@lru_cache(maxsize=2)
def themes(side: Side) -> tuple[str, ...]:
    return of_side(side, "widget theme", THEMES)


@lru_cache(maxsize=512)
def font_at(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def draw_widget_theme(rng: random.Random, side: Side, size: int) -> Theme:
    """A theme of that side with a face of that side."""
    palette, build = rng.choice(themes(side)).split("/")
    ground, surface, accent = PALETTES[palette]
    ink = (24, 24, 27) if not is_dark(ground) else (244, 244, 245)
    kinds: tuple[Kind, ...] = ("plain",) if rng.random() < 0.9 else ("plain", "mono")
    face = pick_face(rng, side, kinds)
    edge = mix(surface, ink, 0.3)
    return Theme(build, ground, surface, accent, ink, edge, font_at(face.path, size), size, rng.random() < 0.08)


class Board:
    """A screen that is being drawn. All places are pixels; every method that draws a widget also keeps it."""

    def __init__(self, rng: random.Random, size: tuple[int, int], theme: Theme, names: Names) -> None:
        self.rng, self.theme, self.names = rng, theme, names
        self.picture = Image.new("RGB", size, theme.ground)
        self.draw = ImageDraw.Draw(self.picture)
        self.widgets: list[Widget] = []

    def keep(self, kind: str, name: str, x: float, y: float, w: float, h: float) -> None:
        self.widgets.append(Widget(kind, name, (x, y, x + w, y + h)))

    def width(self, text: str) -> int:
        return round(self.theme.font.getlength(text))

    def text(self, x: float, y: float, text: str, colour: Rgb | None = None, anchor: str = "lm") -> None:
        self.draw.text((x, y), text, colour or self.theme.ink, self.theme.font, anchor)

    def panel(self, x: float, y: float, w: float, h: float, fill: Rgb | None = None) -> None:
        radius = min(self.theme.radius, 8)
        self.draw.rounded_rectangle([x, y, x + w, y + h], radius, fill or self.theme.surface, self.theme.edge)

    def shape(self, x: float, y: float, w: float, h: float, fill: Rgb | None, edge: Rgb | None) -> None:
        radius = min(self.theme.radius, int(min(w, h) / 2))
        self.draw.rounded_rectangle([x, y, x + w, y + h], radius, fill, edge)

    def button(self, x: float, y: float, w: float, text: str, main: bool = True, kind: str = "button") -> None:
        theme = self.theme
        h = theme.row
        shown = text.upper() if theme.capitals else text
        if theme.build == "raised":
            fill, ink = mix(theme.surface, theme.ink, 0.08), theme.ink
            self.draw.rectangle([x, y, x + w, y + h], fill, theme.edge)
            self.draw.line([x + 1, y + h - 1, x + 1, y + 1, x + w - 1, y + 1], mix(fill, (255, 255, 255), 0.8))
        elif main and theme.build != "outline":
            fill, ink = theme.accent, readable_on(theme.accent)
            self.shape(x, y, w, h, fill, None)
        else:
            self.shape(x, y, w, h, theme.surface, theme.accent if theme.build == "outline" else theme.edge)
            ink = theme.accent if distance(theme.accent, theme.surface) > 250 else theme.ink
        self.text(x + w / 2, y + h / 2, shown, ink, "mm")
        self.keep(kind, text, x, y, w, h)

    def button_width(self, text: str) -> int:
        return self.width(text.upper() if self.theme.capitals else text) + round(self.theme.size * 1.8)

    def field(self, x: float, y: float, w: float, name: str, value: str = "", kind: str = "field") -> None:
        theme = self.theme
        h = theme.row
        dark = is_dark(theme.surface)
        fill = mix(theme.surface, (0, 0, 0), 0.25) if dark else mix(theme.surface, (255, 255, 255), 0.5)
        self.shape(x, y, w, h, fill, theme.edge)
        if value and self.width(value) < w - theme.size * 2:
            self.text(x + theme.size * 0.6, y + h / 2, value, mix(theme.ink, fill, 0.35))
        if kind == "drop-down":
            cx, cy, s = x + w - theme.size * 0.9, y + h / 2, theme.size * 0.25
            self.draw.polygon([(cx - s, cy - s / 2), (cx + s, cy - s / 2), (cx, cy + s)], theme.ink)
        self.keep(kind, name, x, y, w, h)

    def tick(self, x: float, y: float, name: str, kind: str) -> None:
        """A check box or radio button, its text to the right; `y` is the middle of the row."""
        theme = self.theme
        s = round(theme.size * 1.1)
        on = self.rng.random() < 0.4
        box = [x, y - s / 2, x + s, y + s / 2]
        fill = theme.accent if on and kind == "check box" else theme.surface
        if kind == "check box":
            self.draw.rounded_rectangle(box, min(2, theme.radius), fill, mix(theme.edge, theme.ink, 0.4))
        else:
            self.draw.ellipse(box, fill, mix(theme.edge, theme.ink, 0.4))
        if on and kind == "check box":
            points = [(x + s * 0.2, y), (x + s * 0.42, y + s * 0.24), (x + s * 0.8, y - s * 0.26)]
            self.draw.line(points, readable_on(theme.accent), max(1, s // 6))
        elif on:
            self.draw.ellipse([x + s * 0.25, y - s * 0.25, x + s * 0.75, y + s * 0.25], theme.accent)
        self.text(x + s + theme.size * 0.5, y, name)
        self.keep(kind, name, x, y - s / 2, s, s)

    def switch(self, x: float, y: float, name: str) -> None:
        """`x` is its left edge, `y` the middle of its row; its text is drawn elsewhere."""
        theme = self.theme
        h, w = round(theme.size * 1.2), round(theme.size * 2.2)
        on = self.rng.random() < 0.5
        track = theme.accent if on else mix(theme.surface, theme.ink, 0.25)
        self.draw.rounded_rectangle([x, y - h / 2, x + w, y + h / 2], h / 2, track)
        knob = x + (w - h if on else 0)
        self.draw.ellipse([knob + 1, y - h / 2 + 1, knob + h - 1, y + h / 2 - 1], readable_on(track))
        self.keep("switch", name, x, y - h / 2, w, h)

    def link(self, x: float, y: float, name: str) -> float:
        """Text with a line under it; `y` its middle. Returns its width."""
        w, s = self.width(name), self.theme.size
        ink = self.theme.accent if distance(self.theme.accent, self.theme.ground) > 220 else self.theme.ink
        self.text(x, y, name, ink)
        self.draw.line([x, y + s * 0.6, x + w, y + s * 0.6], ink)
        self.keep("link", name, x, y - s * 0.7, w, s * 1.4)
        return w

    def icon(self, x: float, y: float, side: float, name: str, framed: bool) -> None:
        theme = self.theme
        if framed:
            self.shape(x, y, side, side, theme.surface, theme.edge)
        ground = theme.surface if framed else theme.ground
        colours = [c for c in (theme.accent, theme.ink, (220, 60, 50), (40, 150, 80)) if distance(c, ground) > 200]
        tile = draw_tile(ICONS[name], self.rng.choice(colours), round(side * (0.66 if framed else 0.9)), Style())
        self.picture.paste(tile, (round(x + (side - tile.width) / 2), round(y + (side - tile.height) / 2)), tile)
        self.keep("icon", name, x, y, side, side)


def readable_on(colour: Rgb) -> Rgb:
    return (255, 255, 255) if is_dark(colour) or distance(colour, (255, 255, 255)) > 330 else (20, 20, 24)
