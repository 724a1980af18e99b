"""Truth in pixels -> the text that the assistant writes, in the forms of the recorded answers.

Worked example: the box (10, 20, 110, 220) of a 448 x 224 picture is [22, 89, 246, 982] of 1000; an edge at the very
end is 999, as in the recorded answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from qwen3vl.agent.schemas import COMPUTER_SIDE, MOBILE_SIDE
from qwen3vl.tasks.coordinates import DIVISOR, Box, Frame, Point
from qwen3vl.train.synthetic.sample import Labelled, Moment, PixelBox

Size = tuple[int, int]
XY = tuple[float, float]
T = TypeVar("T")
NOTHING: Mapping[str, object] = MappingProxyType({})
HIGHEST = 999


def relative_box(box: PixelBox, size: Size, divisor: int = DIVISOR) -> list[int]:
    """In whole numbers of 0..999, of a picture of (width, height) pixels."""
    found = Frame(*size, divisor=divisor).box_to_relative(Box(*box))
    return [_whole(v) for v in (found.x1, found.y1, found.x2, found.y2)]


def relative_point(point: XY, size: Size, divisor: int = DIVISOR) -> list[int]:
    found = Frame(*size, divisor=divisor).to_relative(Point(*point))
    return [_whole(found.x), _whole(found.y)]


def _whole(value: float) -> int:
    return min(max(round(value), 0), HIGHEST)


def middle(box: PixelBox) -> XY:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def reading_order(items: Iterable[T], box_of: Callable[[T], PixelBox]) -> list[T]:
    """Row by row from the top, each from the left. A row is what begins within half the height of its first box.

    Boxes at y 10-30, 14-40 and 22-50: the second is in the first's row (4 < 10), the third begins a new one (12 >= 10).
    """
    rows: list[list[T]] = []
    for item in sorted(items, key=lambda i: box_of(i)[1]):
        first = box_of(rows[-1][0]) if rows else None
        if first is not None and box_of(item)[1] - first[1] < (first[3] - first[1]) / 2:
            rows[-1].append(item)
        else:
            rows.append([item])
    return [item for row in rows for item in sorted(row, key=lambda i: box_of(i)[0])]


def boxes_answer(items: Sequence[Labelled], size: Size, attributes: Sequence[Mapping[str, str]] | None = None) -> str:
    """A fenced list with one object a line, as the cookbooks show it. `attributes` has one mapping for each item."""
    more = attributes or [{}] * len(items)
    entries = [
        {"bbox_2d": relative_box(box, size), "label": label, **extra}
        for (label, box), extra in zip(items, more, strict=True)
    ]
    return _fenced(entries)


def points_answer(items: Sequence[Labelled], size: Size) -> str:
    """The middles of the boxes."""
    return _fenced([{"point_2d": relative_point(middle(box), size), "label": label} for label, box in items])


def _fenced(entries: Sequence[Mapping[str, object]]) -> str:
    if not entries:
        return "```json\n[]\n```"
    lines = ",\n".join(f"\t{json.dumps(entry, ensure_ascii=False)}" for entry in entries)
    return f"```json\n[\n{lines}\n]\n```"


def computer_call(action: str, at: XY | None, size: Size, more: Mapping[str, object] = NOTHING) -> str:
    """A call of computer_use; `at` in pixels of the screen of `size`, `more` its other arguments."""
    return _call("computer_use", action, [("coordinate", at)], size, COMPUTER_SIDE, more)


def mobile_call(
    action: str, at: XY | None, size: Size, more: Mapping[str, object] = NOTHING, to: XY | None = None
) -> str:
    """A call of mobile_use; `to`: where a swipe ends."""
    return _call("mobile_use", action, [("coordinate", at), ("coordinate2", to)], size, MOBILE_SIDE, more)


def _call(
    tool: str, action: str, at: Sequence[tuple[str, XY | None]], size: Size, side: int, more: Mapping[str, object]
) -> str:
    places = {name: relative_point(point, size, side) for name, point in at if point is not None}
    call = {"name": tool, "arguments": {"action": action, **places, **more}}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def clock(seconds: float) -> str:
    """mm:ss.ff; 83.5 is 01:23.50."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 6000:02d}:{hundredths % 6000 / 100:05.2f}"


def moments_answer(moments: Sequence[Moment]) -> str:
    """The recorded form: one bare object, range -> sentence. Ranges that are equal need the form of a list."""
    ranges = [f"{clock(start)} - {clock(end)}" for start, end, _ in moments]
    if len(set(ranges)) < len(ranges):
        events = [{"start_time": clock(a), "end_time": clock(b), "event": text} for a, b, text in moments]
        return json.dumps(events, indent=4, ensure_ascii=False)
    if not moments:
        return "[]"
    return json.dumps(dict(zip(ranges, (m[2] for m in moments), strict=True)), indent=4, ensure_ascii=False)
