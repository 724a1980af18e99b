"""Colours that have names, and the backgrounds that things stand on.

A name stands for a range of hue, saturation and value; the ranges lie apart, so that a drawn colour has one name.
Backgrounds are themes "texture/base": each belongs to one side by its name.
"""

from __future__ import annotations

import colorsys
import random
from functools import lru_cache

from PIL import Image, ImageDraw

from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import of_side

Rgb = tuple[int, int, int]

COLOURS: dict[str, tuple[float, float, float, float, float, float]] = {
    # name: hue in degrees from, to; saturation from, to; value from, to
    "red": (-6, 5, 0.80, 1.0, 0.78, 1.0),
    "orange": (25, 33, 0.88, 1.0, 0.95, 1.0),
    "yellow": (51, 59, 0.80, 1.0, 0.95, 1.0),
    "green": (95, 145, 0.60, 1.0, 0.45, 0.80),
    "cyan": (176, 186, 0.60, 1.0, 0.88, 1.0),
    "blue": (204, 238, 0.75, 1.0, 0.70, 1.0),
    "purple": (269, 286, 0.60, 0.95, 0.45, 0.75),
    "pink": (322, 345, 0.30, 0.58, 0.95, 1.0),
    "brown": (18, 28, 0.62, 0.85, 0.35, 0.52),
    "black": (0, 0, 0.0, 0.0, 0.0, 0.12),
    "white": (0, 0, 0.0, 0.0, 0.97, 1.0),
    "gray": (0, 0, 0.0, 0.03, 0.46, 0.60),
}
COLOUR_NAMES = tuple(COLOURS)
BASES: dict[str, Rgb] = {
    "white": (255, 255, 255), "paper": (250, 248, 240), "cream": (255, 243, 214), "silver": (211, 211, 211),
    "mist": (226, 235, 241), "mint": (214, 240, 224), "sky": (196, 224, 248), "lilac": (226, 214, 244),
    "rose": (251, 219, 222), "sand": (226, 205, 168), "slate": (92, 104, 120), "navy": (26, 36, 72),
    "forest": (24, 62, 42), "wine": (84, 24, 40), "coal": (34, 34, 38), "plum": (66, 36, 82),
}  # fmt: skip
TEXTURES = ("plain", "slope", "stripes", "checks", "dots", "grain", "lines", "glow")
BACKGROUNDS = tuple(f"{texture}/{base}" for texture in TEXTURES for base in BASES)
CLEAR = 140.0  # weighted distance from which a colour stands out from its background


def shade_of(rng: random.Random, colour: str) -> Rgb:
    """A shade that everyone calls by that name."""
    h1, h2, s1, s2, v1, v2 = COLOURS[colour]
    r, g, b = colorsys.hsv_to_rgb(rng.uniform(h1, h2) / 360 % 1.0, rng.uniform(s1, s2), rng.uniform(v1, v2))
    return round(r * 255), round(g * 255), round(b * 255)


def distance(a: Rgb, b: Rgb) -> float:
    """How different two colours look, 0 to about 765 (the weights of compuphase's "redmean")."""
    mean = (a[0] + b[0]) / 2
    dr, dg, db = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return float(((2 + mean / 256) * dr * dr + 4 * dg * dg + (2 + (255 - mean) / 256) * db * db) ** 0.5)


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`share` of b in a."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def is_dark(colour: Rgb) -> bool:
    return 0.30 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 110


@lru_cache(maxsize=2)
def backgrounds(side: Side) -> tuple[str, ...]:
    return of_side(side, "background", BACKGROUNDS)


@lru_cache(maxsize=64)
def standing_out(base: Rgb) -> tuple[str, ...]:
    """Names of the colours all of whose shades can be told from a background of this colour."""
    rng = random.Random(0)
    return tuple(c for c in COLOURS if min(distance(shade_of(rng, c), base) for _ in range(24)) > CLEAR)


def paint_background(rng: random.Random, theme: str, size: tuple[int, int]) -> Image.Image:
    """A picture of (width, height) in the theme "texture/base"; its texture stays near its base."""
    texture, name = theme.split("/")
    base = BASES[name]
    other = mix(base, (255, 255, 255) if is_dark(base) else (0, 0, 0), rng.uniform(0.05, 0.12))
    picture = Image.new("RGB", size, base)
    if texture == "slope":
        ramp = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(size)
        picture.paste(other, (0, 0, *size), ramp)
    elif texture == "glow":
        picture.paste(other, (0, 0, *size), Image.radial_gradient("L").resize(size))
    elif texture == "grain":
        picture.paste(other, (0, 0, *size), _grain(rng, size))
    elif texture != "plain":
        _pattern(rng, ImageDraw.Draw(picture), texture, size, other)
    return picture


def _grain(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Noise from our own random numbers (Pillow's would not repeat), drawn coarse and enlarged."""
    width, height = max(1, size[0] // 3), max(1, size[1] // 3)
    return Image.frombytes("L", (width, height), rng.randbytes(width * height)).resize(size)


def _pattern(rng: random.Random, draw: ImageDraw.ImageDraw, texture: str, size: tuple[int, int], other: Rgb) -> None:
    width, height = size
    step = rng.randint(8, 28)
    if texture == "stripes":
        lean = rng.choice((0, 0, height, -height))
        for x in range(-height, width + height, 2 * step):
            draw.polygon([(x, 0), (x + step, 0), (x + step + lean, height), (x + lean, height)], fill=other)
    elif texture == "lines":
        for y in range(step, height, step):
            draw.line([(0, y), (width, y)], fill=other)
        for x in range(step, width if rng.random() < 0.5 else 0, step):
            draw.line([(x, 0), (x, height)], fill=other)
    else:
        radius = step // 5 + 1
        for row, y in enumerate(range(0, height, step)):
            for x in range(step * (row % 2), width, 2 * step):
                if texture == "checks":
                    draw.rectangle([x, y, x + step - 1, y + step - 1], fill=other)
                else:
                    draw.ellipse([x, y, x + 2 * radius, y + 2 * radius], fill=other)
