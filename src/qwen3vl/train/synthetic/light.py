"""What a camera does to a sheet: tilt, perspective, uneven light, blur, noise, JPEG. Boxes go along.

`strength` 0 leaves the picture as it is, 1 is a good photograph, 2 a poor one. Speed counts: a small line
passes in well under a millisecond (noise comes from a bank that was drawn once).
"""

from __future__ import annotations

import io
import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from qwen3vl.train.synthetic.sheet import Colour

_BANK = 1 << 19


def photograph(
    picture: Image.Image, boxes: np.ndarray, rng: random.Random, strength: float, desk: Colour
) -> tuple[Image.Image, np.ndarray]:
    """The picture as taken, same size, and the (N, 4) boxes in it. `desk` is what shows beyond its edges.

    Every box stays inside the picture: a tilt that would push one out is made smaller.
    """
    if strength <= 0:
        return picture, boxes
    if rng.random() < 0.45 * strength:
        picture, boxes = tilted(picture, boxes, rng, strength, desk)
    if rng.random() < 0.25 * strength:
        picture = blurred(picture, rng, strength)
    if rng.random() < 0.4 * strength:
        picture = lit(picture, rng, strength)
    if rng.random() < 0.25 * strength:
        picture = jpeg(picture, rng.randint(40 if strength > 1 else 60, 92))
    return picture, boxes


# ---------------------------------------------------------------------------------------- geometry


def tilted(
    picture: Image.Image, boxes: np.ndarray, rng: random.Random, strength: float, desk: Colour
) -> tuple[Image.Image, np.ndarray]:
    """Turned by a few degrees, scaled a little, seen at an angle."""
    width, height = picture.size
    angle, scale = rng.gauss(0, 1.6) * strength, math.exp(rng.uniform(-0.12, 0.06) * strength)
    bend = (rng.gauss(0, 0.05) * strength / width, rng.gauss(0, 0.05) * strength / height)
    squeeze = math.exp(rng.gauss(0, 0.03) * strength)
    for _ in range(4):
        forward = _homography(width, height, angle, scale, squeeze, bend)
        moved = move_boxes(boxes, forward)
        if not len(moved) or _inside(moved, width, height):
            back = np.linalg.inv(forward)
            back /= back[2, 2]
            seen = picture.transform(
                (width, height), Image.Transform.PERSPECTIVE, tuple(back.ravel()[:8]), Image.Resampling.BICUBIC,
                fillcolor=desk,
            )  # fmt: skip
            return seen, moved
        angle, scale, bend, squeeze = angle / 2, min(scale, 1) * 0.99, (bend[0] / 2, bend[1] / 2), math.sqrt(squeeze)
    return picture, boxes


def _inside(boxes: np.ndarray, width: int, height: int) -> bool:
    (x1, y1), (x2, y2) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    return bool(x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height)


def _homography(
    width: int, height: int, angle: float, scale: float, squeeze: float, bend: tuple[float, float]
) -> np.ndarray:
    """3 x 3, from the sheet to the photograph, about the middle of both."""
    cos, sin = math.cos(math.radians(angle)) * scale, math.sin(math.radians(angle)) * scale
    turn = np.array([[cos * squeeze, -sin, 0], [sin * squeeze, cos, 0], [bend[0], bend[1], 1]])
    there = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    back = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    return np.asarray(back @ turn @ there)


def move_boxes(boxes: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """The upright boxes around the (N, 4) boxes after a homography.

    Worked example (also a test): a quarter turn about the origin, (x, y) -> (-y, x), takes (1, 2, 3, 5) to
    (-5, 1, -2, 3).
    """
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    moved = corners @ homography[:2, :2].T + homography[:2, 2]
    moved = moved / (corners @ homography[2, :2] + homography[2, 2])[..., None]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


# ------------------------------------------------------------------------------------------- light


def lit(picture: Image.Image, rng: random.Random, strength: float) -> Image.Image:
    """A slope of light across the picture, cloudy light, and sensor noise."""
    width, height = picture.size
    pixels = np.asarray(picture, np.float32)
    light = np.ones((height, width), np.float32)
    if rng.random() < 0.7:
        a, b = rng.uniform(-0.3, 0.3) * strength, rng.uniform(-0.3, 0.3) * strength
        light += (
            np.linspace(-a, a, width, dtype=np.float32)[None] + np.linspace(-b, b, height, dtype=np.float32)[:, None]
        ) / 2
    if rng.random() < 0.4:
        light += _clouds(width, height, rng, 0.08 * strength)
    pixels = pixels * light[..., None]
    if rng.random() < 0.7:
        sigma = rng.uniform(1, 9) * strength
        grey = rng.random() < 0.5
        noise = _noise(width * height * (1 if grey else 3), rng)
        pixels += (noise * np.float32(sigma)).reshape(height, width, 1 if grey else 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _clouds(width: int, height: int, rng: random.Random, amount: float) -> np.ndarray:
    small = _noise(64, rng).reshape(8, 8)[: 2 + height // 64, : 2 + width // 64]
    grown = Image.fromarray(np.ascontiguousarray(small)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(grown, np.float32) * np.float32(amount)


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    return np.random.Generator(np.random.SFC64(20)).standard_normal(_BANK, np.float32)


def _noise(count: int, rng: random.Random) -> np.ndarray:
    """Normal numbers from the bank at a random place, going round where it is too short."""
    start = rng.randrange(_BANK)
    if start + count <= _BANK:
        return _bank()[start : start + count]
    return np.take(_bank(), np.arange(start, start + count), mode="wrap")


def blurred(picture: Image.Image, rng: random.Random, strength: float) -> Image.Image:
    """Out of focus, or small and enlarged again."""
    if rng.random() < 0.7:
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.55 + 0.3 * strength)))
    width, height = picture.size
    part = rng.uniform(0.95 - 0.2 * strength, 0.95)
    small = picture.resize((max(8, round(width * part)), max(8, round(height * part))), Image.Resampling.BILINEAR)
    return small.resize((width, height), Image.Resampling.BILINEAR)


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Through JPEG and back."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    file.seek(0)
    return Image.open(file).convert("RGB")
