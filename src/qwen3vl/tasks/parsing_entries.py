"""Boxes and points in an answer, whatever form the model gave them.

    JSON         [{"bbox_2d": [x1, y1, x2, y2], "label": ...}], {"car": [[...], [...]]}, {"objects": [...]}, ...
    XML          <points x1="10" y1="20" x2="30" y2="40">object</points>, <points 10 20>object</points>
    Qwen2-VL's   <|object_ref_start|>object<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>
    plain        car: [x1, y1, x2, y2]

All numbers are the model's own (see coordinates.py for what they mean); nothing is mended here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_json import ReadJson, has_object, read_json, shorten
from qwen3vl.tasks.parsing_numbers import SPELLED_KEYS, number_groups, spelled_numbers

Kind = Literal["box", "point", "box_3d"]
T = TypeVar("T")
SIZES: dict[int, Kind] = {2: "point", 4: "box", 9: "box_3d"}

_PLACE_KEY = re.compile(r"bbox|box|point|coord|position|location|cent(?:er|re)|quad|polygon|rect|region", re.IGNORECASE)
_LABEL_KEYS = ("label", "text_content", "text", "name", "category", "class", "object", "content", "description")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing with a place.

    Attributes:
        kind: "point" (x, y), "box" (x1, y1, x2, y2) or "box_3d" (nine numbers).
        numbers: as the model wrote them.
        label: what it is called, or "".
        attributes: everything else that the model said of it.
    """

    kind: Kind
    numbers: tuple[float, ...]
    label: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entries:
    """All places of an answer, in its order.

    Attributes:
        items: without exact repetitions.
        repeats: how many repetitions were cut (a model that loops says the same entry again and again).
        notes: what was mended or dropped.
        complete: False when the answer was cut off.
        raw: the whole answer.
    """

    items: tuple[Entry, ...]
    repeats: int
    notes: tuple[str, ...]
    complete: bool
    raw: str


def read_entries(text: str) -> Entries:
    """Every place in an answer. Raises ParseError if it has none and is not an empty list either."""
    notes: list[str] = []
    marked = list(_marked(text))
    if marked:
        return _entries(marked, notes, _ends_outside_tag(text), text)
    try:
        read = read_json(text)
    except ParseError:
        if plain := list(_plain(text)):
            return _entries(plain, notes, True, text)
        raise
    notes += read.notes
    found = list(_walk(read.value, "", {}, notes))
    if not has_object(read.value):
        found = list(_plain(text)) or found
    if not found and read.value not in ([], {}) and read.complete:
        raise ParseError(f"no coordinates in the answer {shorten(text)}", raw=text)
    return _entries(found, notes, read.complete, text)


def _entries(found: Iterable[Entry], notes: list[str], complete: bool, raw: str) -> Entries:
    items, repeats = cut_repeats(found, lambda e: (e.kind, e.numbers, e.label, _frozen(e.attributes)))
    if repeats:
        notes.append(f"{repeats} repeated entries were cut")
    return Entries(tuple(items), repeats, tuple(dict.fromkeys(notes)), complete, raw)


def cut_repeats(entries: Iterable[T], key: Callable[[T], Hashable]) -> tuple[list[T], int]:
    """The entries without those whose key was there before, and how many those were."""
    seen: set[Hashable] = set()
    kept: list[T] = []
    repeats = 0
    for entry in entries:
        if key(entry) in seen:
            repeats += 1
        else:
            seen.add(key(entry))
            kept.append(entry)
    return kept, repeats


def _frozen(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, default=str)


# ----------------------------------------------------------------------------------------- JSON


def entries_of(read: ReadJson) -> tuple[list[Entry], list[str]]:
    """The places in JSON that was read already, and what was dropped."""
    notes: list[str] = []
    return list(_walk(read.value, "", {}, notes)), notes


def _walk(value: Any, label: str, outer: Mapping[str, Any], notes: list[str]) -> Iterator[Entry]:
    """Entries in reading order. `label` is the key that led here: {"car": [[...], [...]]}."""
    if isinstance(value, dict):
        yield from _walk_object(value, label, outer, notes)
    elif isinstance(value, list):
        groups = number_groups(value)
        if groups and len(groups[0]) in SIZES:
            for group in groups:
                yield from _entry(label, group, label, outer, notes, like=len(groups[0]))
        elif row := _labelled_row(value):
            yield from _entry("", row[0], row[1], outer, notes)
        else:
            for item in value:
                yield from _walk(item, label, outer, notes)


def _labelled_row(value: list[Any]) -> tuple[list[float], str] | None:
    """[x1, y1, x2, y2, "label"] or ["label", [x1, y1, x2, y2]]."""
    names = [v for v in value if isinstance(v, str) and not number_groups(v)]
    groups = number_groups([v for v in value if v not in names])
    return (groups[0], names[0]) if len(names) == 1 and len(groups) == 1 and len(groups[0]) in SIZES else None


def _walk_object(value: dict[str, Any], label: str, outer: Mapping[str, Any], notes: list[str]) -> Iterator[Entry]:
    pairs: list[tuple[str, Any]] = getattr(value, "pairs", None) or list(value.items())
    places = [(k, groups) for k, v in pairs if _PLACE_KEY.search(k) and (groups := number_groups(v))]
    spelled = spelled_numbers(value)
    if not places and spelled:
        places = [("", [spelled])]
    if not places and any(k in value for k in _LABEL_KEYS):  # the place's own key may be damaged
        lists = [(k, groups) for k, v in pairs if isinstance(v, list) and (groups := number_groups(v))]
        places = lists if len(lists) == 1 and len(lists[0][1]) == 1 and len(lists[0][1][0]) in SIZES else []
    if not places:
        yield from _walk_inside(value, pairs, label, notes)
        return
    taken = {key for key, _ in places}
    name_key = next((k for k in _LABEL_KEYS if isinstance(value.get(k), (str, int, float))), None)
    name = str(value[name_key]) if name_key else _other_name(pairs) or label
    rest = {k: v for k, v in pairs if k not in taken and k != name_key and not (spelled and k in SPELLED_KEYS)}
    for key, groups in places:
        for group in groups:
            yield from _entry(key, group, name, rest, notes)


def _other_name(pairs: list[tuple[str, Any]]) -> str:
    """A label for entries that are only named by "name_en", "name_zh" or "names": {...}; those stay attributes."""
    named = [v for k, v in pairs if k.lower().startswith("name")]
    named = [next(iter(v.values()), "") if isinstance(v, dict) else v for v in named]
    return next((v for v in named if isinstance(v, str) and v), "")


def _walk_inside(value: dict[str, Any], pairs: list[tuple[str, Any]], label: str, notes: list[str]) -> Iterator[Entry]:
    """An object that has no place of its own: a container, or entries keyed by their label."""
    said, count = len(notes), 0
    for key, inner in pairs:
        name = label if key.lower() in _CONTAINERS else key
        for entry in _walk(inner, name, {}, notes):
            count += 1
            yield entry
    if value and not count and len(notes) == said:
        shown = shorten(json.dumps(value, default=str, ensure_ascii=False))
        notes.append(f"an entry without coordinates was dropped: {shown}")


def _entry(
    key: str, group: list[float], name: str, rest: Mapping[str, Any], notes: list[str], like: int = 0
) -> Iterator[Entry]:
    """`like`: how many numbers it must have. A box that was cut off after two numbers is no point."""
    expected = like or (9 if "3d" in key.lower() else 0)
    kind = (
        None if expected not in (0, len(group)) or (len(group) == 2 and "box" in key.lower()) else SIZES.get(len(group))
    )
    if kind is None and len(group) >= 6 and len(group) % 2 == 0:
        xs, ys = group[0::2], group[1::2]
        group, kind = [min(xs), min(ys), max(xs), max(ys)], "box"
        notes.append("a polygon was read as the box around it")
    if kind is None or not all(math.isfinite(n) for n in group):
        notes.append(f"an entry was dropped: {key!r} has {len(group)} numbers, label {name!r}")
    else:
        yield Entry(kind, tuple(group), name, rest)


_CONTAINERS = frozenset(
    ("objects", "instances", "detections", "results", "items", "entries", "data", "answer", "boxes", "bboxes", "points")
)


# --------------------------------------------------------------------------------- other markup

_POINTS = re.compile(r"<points?\b([^>]*)(?:>(.*?)(?=</points?>|<points?\b|\Z)|\Z)", re.DOTALL | re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""\b([xy])(\d*)\s*=\s*["']?\s*([-\d.]+)(?=[\s"'/>])""", re.IGNORECASE)
_ALT = re.compile(r"""\b(?:alt|label)\s*=\s*["']([^"']*)["']""", re.IGNORECASE)
_BOX_TOKENS = re.compile(
    r"(?:<\|object_ref_start\|>(?P<label>.*?)<\|object_ref_end\|>)?\s*<\|box_start\|>(?P<box>.*?)<\|box_end\|>",
    re.DOTALL,
)
_PLAIN = re.compile(r"(?P<label>[^\n\[\](){}]*?)\W*[\[(]\s*(?P<box>-?[\d.]+(?:[\s,()]+-?[\d.]+){1,8})\s*[\])]")


def _marked(text: str) -> Iterator[Entry]:
    label = ""
    for match in _BOX_TOKENS.finditer(text):
        label = match["label"] if match["label"] is not None else label
        numbers = [float(n) for n in _NUMBER.findall(match["box"])]
        if len(numbers) in SIZES:
            yield Entry(SIZES[len(numbers)], tuple(numbers), label.strip())
    for match in _POINTS.finditer(text):
        label = " ".join((match[2] or "").split()) or next(iter(_ALT.findall(match[1])), "")
        places = _xml_points(match[1])
        if not places:  # <point>(1, 2)</point>
            places, label = _xml_points(label), next(iter(_ALT.findall(match[1])), "")
        for x, y in places:
            yield Entry("point", (x, y), label)


def _xml_points(attributes: str) -> list[tuple[float, float]]:
    """(x, y) of <points x1="1" y1="2" x2=...>, <point x=1 y=2> and <points 1 2 3 4>."""
    named: dict[str, dict[str, float]] = {}
    for axis, number, value in _ATTRIBUTE.findall(attributes + " "):
        if _NUMBER.fullmatch(value):
            named.setdefault(number, {})[axis.lower()] = float(value)
    if named:
        return [(p["x"], p["y"]) for p in named.values() if len(p) == 2]
    bare = [float(n) for n in _NUMBER.findall(_ALT.sub("", attributes))]
    return list(zip(bare[0::2], bare[1::2], strict=False))


def _plain(text: str) -> Iterator[Entry]:
    """Lines such as "- red car: [x1, y1, x2, y2]"."""
    for match in _PLAIN.finditer(text):
        numbers = [float(n) for n in _NUMBER.findall(match["box"])]
        if len(numbers) in SIZES:
            yield Entry(SIZES[len(numbers)], tuple(numbers), match["label"].strip(" \t-*•`:.,;\"'0123456789"))


def _ends_outside_tag(text: str) -> bool:
    return text.rfind("<") <= text.rfind(">")
