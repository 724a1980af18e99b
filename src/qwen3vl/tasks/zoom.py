"""The zoom tool: what the model may ask for, and the picture it gets.

`image_zoom_in_tool` of Qwen-Agent (tools/image_zoom_in_qwen3vl.py), schema word for word. The box is in
0..1000 of the picture with number `img_idx`, counted over the user's pictures and then the crops, in order.
Where a picture is itself a crop, the new one is cut from the user's file all the same (Qwen-Agent enlarges
the enlarged crop), so that no sharpness is lost and every crop has an exact box in that file's pixels.

Worked example (also a test): [574, 301, 660, 468] of a 2460 x 1612 picture is the box 1412.04, 485.212,
1623.6, 754.416; cut at whole pixels 1412, 485, 1624, 754; shown as 480 x 608.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from qwen3vl.tasks.coordinates import Box, Frame, RelativeBox
from qwen3vl.tasks.parsing_numbers import number_groups

NAME = "image_zoom_in_tool"
FACTOR = 32  # patch size times merge size: the model sees pictures in steps of this
MIN_SIDE = 32
MIN_PIXELS = 256 * 32 * 32
MAX_PIXELS = 12845056
MAX_RATIO = 150

_BOX = (
    "The bounding box of the region to zoom in, as [x1, y1, x2, y2], where (x1, y1) is the top-left corner and "
    "(x2, y2) is the bottom-right corner"
)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Zoom in on a specific region of an image by cropping it based on a bounding box (bbox) and an "
        "optional object label",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": _BOX,
                },
                "label": {
                    "type": "string",
                    "description": "The name or label of the object in the specified bounding box",
                },
                "img_idx": {"type": "number", "description": "The index of the zoomed-in image (starting from 0)"},
            },
            "required": ["bbox_2d", "label", "img_idx"],
        },
    },
}


class BadCall(Exception):
    """What is wrong with a call, in words for the model."""


@dataclass(frozen=True, slots=True)
class ZoomCall:
    """A call as it was meant: label, number of the picture, box in 0..1000 of it with its corners in order."""

    label: str
    img_idx: int
    box: RelativeBox
    notes: tuple[str, ...]


def read_call(arguments: object, num_images: int) -> ZoomCall:
    """The call, for a conversation of `num_images` pictures so far. Raises BadCall."""
    if not isinstance(arguments, Mapping):
        raise BadCall(f"the arguments are not a JSON object: {str(arguments)[:200]}")
    lacking = [name for name in ("bbox_2d", "img_idx") if arguments.get(name) is None]
    if lacking:
        raise BadCall(f"missing argument: {', '.join(lacking)}")
    numbers = _box(arguments["bbox_2d"])
    index = _index(arguments["img_idx"], num_images)
    label = str(arguments.get("label") or "")
    (x1, x2), (y1, y2) = sorted((numbers[0], numbers[2])), sorted((numbers[1], numbers[3]))
    notes = ["swapped corners were put in order"] if [x1, y1, x2, y2] != numbers else []
    inside = [min(max(v, 0.0), 1000.0) for v in (x1, y1, x2, y2)]
    if inside != [x1, y1, x2, y2]:
        notes.append("the box was clamped to 0..1000")
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise BadCall(
            f"bbox_2d {json.dumps(arguments['bbox_2d'])} is empty: it needs x1 < x2 and y1 < y2 within 0..1000"
        )
    return ZoomCall(label, index, RelativeBox(*inside), tuple(notes))


def _box(value: Any) -> list[float]:
    groups = number_groups(value) if isinstance(value, (str, list)) else []
    if len(groups) != 1 or len(groups[0]) != 4 or not all(math.isfinite(n) for n in groups[0]):
        raise BadCall(f"bbox_2d must be four numbers [x1, y1, x2, y2] from 0 to 1000, not {str(value)[:100]}")
    return [float(n) for n in groups[0]]


def _index(value: Any, num_images: int) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or number not in range(num_images):
        raise BadCall(f"img_idx {value!r} is no picture: there are {num_images}, numbered from 0 to {num_images - 1}")
    return int(number)


def cut_box(frame: Frame, box: RelativeBox) -> Box:
    """What is cut for a call, in whole pixels of the user's picture; `frame` is the part of it that the call's
    picture shows. Exact: this box is what a further zoom into the crop counts from."""
    width, height = round(frame.width), round(frame.height)
    wanted = grown(frame.box_to_pixels(box), (width, height))
    x1, y1 = min(round(wanted.x1), width - 1), min(round(wanted.y1), height - 1)
    return Box(x1, y1, max(x1 + 1, min(round(wanted.x2), width)), max(y1 + 1, min(round(wanted.y2), height)))


def cut(picture: Image.Image, box: Box) -> Image.Image:
    """The crop as the model is shown it: bicubic, at `shown_size`."""
    x1, y1, x2, y2 = (round(v) for v in box.corners)
    crop = picture.crop((x1, y1, x2, y2))
    return crop.resize(shown_size(crop.size), Image.Resampling.BICUBIC)


def grown(box: Box, size: tuple[int, int]) -> Box:
    """A box with a side under 32 pixels grows around its centre, in its own shape, until that side has 32, as far
    as a picture of `size` has room. Beyond Qwen-Agent: no side stays under 1/150 of the other, because the model
    takes no picture longer than 200 times its width.

    Worked example: 10 x 100 at (100, 100) of 640 x 480 becomes (89, 0)-(121, 310): 3.2 times as large, less what
    lies outside.
    """
    least = max(MIN_SIDE, max(box.width, box.height) / MAX_RATIO)
    shorter = min(box.width, box.height)
    if shorter >= least:
        return box
    centre = box.centre
    half_width, half_height = (math.ceil(side * least / shorter / 2) for side in (box.width, box.height))
    x1, x2 = _span(centre.x, half_width, size[0])
    y1, y2 = _span(centre.y, half_height, size[1])
    return Box(x1, y1, x2, y2)


def _span(middle: float, half: int, length: int) -> tuple[int, int]:
    """Clipped to the picture, as Qwen-Agent does; at its rim moved inwards where less than MIN_SIDE would remain."""
    low, high = max(0, math.floor(middle - half)), min(length, math.ceil(middle + half))
    if high - low >= MIN_SIDE:
        return low, high
    low = max(0, min(low, length - MIN_SIDE))
    return low, min(length, low + MIN_SIDE)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in steps of 32, with at least MIN_PIXELS and at most MAX_PIXELS.

    Worked examples: 212 x 269 -> 480 x 608; 130 x 40 -> 928 x 288.
    """
    width, height = (max(FACTOR, round(side / FACTOR) * FACTOR) for side in size)
    if width * height > MAX_PIXELS:
        scale = math.sqrt(size[0] * size[1] / MAX_PIXELS)
        width, height = (max(FACTOR, math.floor(side / scale / FACTOR) * FACTOR) for side in size)
    elif width * height < MIN_PIXELS:
        scale = math.sqrt(MIN_PIXELS / (size[0] * size[1]))
        width, height = (math.ceil(side * scale / FACTOR) * FACTOR for side in size)
    return width, height
