"""The numbers of a place, however a model spells them in JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"))
_SIZED = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
SPELLED_KEYS = frozenset(name for names in (*_CORNERS, *_SIZED) for name in names)


def number_groups(value: Any) -> list[list[float]]:
    """The coordinates in a value, one list for each place: [[1, 2, 3, 4], [5, 6, 7, 8]] are two boxes,
    [[1, 2], [3, 4]] under one key is one box by its corners. Empty if there is more than numbers."""
    if isinstance(value, dict):
        numbers = spelled_numbers(value)
        return [numbers] if numbers else []
    if isinstance(value, str):
        text = re.sub(r"<\|[a-z_]+\|>", " ", value)
        if re.search(r"[^\W\d_]", re.sub(r"px|[eE][-+]?\d", "", text)):
            return []
        numbers = [float(n) for n in _NUMBER.findall(text)]
        return [numbers] if numbers else []
    if not isinstance(value, list):
        return []
    if all(_is_number(v) for v in value):
        return [[float(v) for v in value]] if value else []
    inner = [number_groups(v) for v in value]
    if not all(inner) or any(isinstance(v, dict) and not spelled_numbers(v) for v in value):
        return []
    groups = [group for found in inner for group in found]
    if all(len(g) == 2 for g in groups) and len(groups) == 2:
        return [groups[0] + groups[1]]
    if all(len(g) == 1 for g in groups):
        return [[g[0] for g in groups]]
    return groups


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def spelled_numbers(value: Mapping[str, Any]) -> list[float]:
    """Coordinates spelled as an object: {"x1": ..}, {"left": ..}, {"x": .., "width": ..}, {"x": .., "y": ..}."""
    for names in _CORNERS:
        if all(_is_number(value.get(n)) for n in names):
            return [float(value[n]) for n in names]
    for names in _SIZED:
        if all(_is_number(value.get(n)) for n in names):
            x, y, w, h = (float(value[n]) for n in names)
            return [x, y, x + w, y + h]
    if _is_number(value.get("x")) and _is_number(value.get("y")):
        return [float(value["x"]), float(value["y"])]
    return []


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(_has_names(v) for v in value))
