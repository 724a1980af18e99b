"""Documents as the model writes them in answer to `qwenvl html`, as blocks in reading order.

The form (official sample and notebook):  <div class="text|table|image|formula|..." data-bbox="x1 y1 x2 y2">, also
h1-h6, p, ol/li, table, img with data-bbox or data-polygon of their own. Text is not escaped reliably, so
only tags of HTML count as tags: "a<b" stays text.
Coordinates are the model's own, 0..1000. Nothing here is lost: text outside any block becomes a block
without a box.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from qwen3vl.tasks.coordinates import Point, RelativeBox, enclosing
from qwen3vl.tasks.parsing_tables import TAG, Table, html_table, plain_text

Kind = Literal[
    "text", "heading", "list item", "table", "image", "caption", "formula", "chart", "music", "chemistry", "code"
]
_KINDS: dict[str, Kind] = {  # class names of the notebook, without the rest of the name ("formula.machine_printed")
    "text": "text",
    "table": "table",
    "image": "image",
    "image caption": "caption",
    "formula": "formula",
    "chart": "chart",
    "music sheet": "music",
    "chemical formula": "chemistry",
    "code": "code",
    "title": "heading",
}


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One piece of a page.

    Attributes:
        kind: what it is.
        text: its text (a formula's LaTeX, a chart's data); "" for pictures. Tables: see `table`.
        box: where it is, in 0..1000 of the page, unmended; None if the model did not say.
        html: its inside as HTML, without boxes and colours.
        table: the rows, of a table.
        level: 1-6 of a heading.
        format: of the text, where the model names one ("csv", "smile", "abc notation").
    """

    kind: Kind
    text: str
    box: RelativeBox | None = None
    html: str = ""
    table: Table | None = None
    level: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class RawPage:
    """The blocks of one answer in reading order; see `parsing_entries.Entries` for the other fields."""

    blocks: tuple[RawBlock, ...]
    notes: tuple[str, ...]
    complete: bool
    raw: str


_FENCE = re.compile(
    r"\A\s*```[ \t]*(?:html|markdown|md|latex)?[ \t]*\n?(.*?)(?:\n?```\s*)?\Z", re.DOTALL | re.IGNORECASE
)


def unfence(text: str) -> str:
    """The answer without a fence around the whole of it."""
    match = _FENCE.match(text)
    return match[1] if match else text


_CUT_TAG = re.compile(r"<[a-z/][^<>]*\Z", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([\w-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))")
_VOID = frozenset(("img", "br", "hr", "col"))
_DROPPED = re.compile(r"\s*\b(?:data-(?:bbox|polygon)|style|color)\s*=\s*(?:\"[^\"]*\"|'[^']*')", re.IGNORECASE)
_FRAME_TAGS = ("html", "body", "head", "section", "article", "main", "header", "footer", "figure", "div", "ol", "ul")
_LIST_TAGS = ("ol", "ul")
MAX_DEPTH = 100


@dataclass(slots=True)
class _Element:
    name: str
    attributes: dict[str, str]
    tag_start: int
    start: int  # of its inside
    end: int
    children: list[_Element] = field(default_factory=list)


def read_html(text: str) -> RawPage:
    """The blocks of a `qwenvl html` answer, whole or cut. Never raises."""
    source = re.sub(r"<!--.*?-->", "", unfence(text), flags=re.DOTALL)
    notes: list[str] = []
    if cut := _CUT_TAG.search(source):
        notes.append("the answer ends inside a tag: the tag was dropped")
        source = source[: cut.start()]
    root, open_tags = _tree(source)
    complete = not cut and not any(name not in ("html", "body", "p", "li") for name in open_tags)
    blocks = list(_html_blocks(source, root, notes))
    if not complete:
        notes.append("the answer was cut off: the last block may not be whole")
    return RawPage(tuple(blocks), tuple(dict.fromkeys(notes)), complete, text)


def _tree(source: str) -> tuple[_Element, list[str]]:
    """Elements, and the names of those that were never closed."""
    root = _Element("", {}, 0, 0, len(source))
    stack = [root]
    for match in TAG.finditer(source):
        closing, name, attributes = match["closing"], match["name"].lower(), match["attributes"]
        if closing:
            depth = next((i for i in range(len(stack) - 1, 0, -1) if stack[i].name == name), 0)
            if depth:
                for element in stack[depth:]:
                    element.end = match.start()
                del stack[depth:]
            continue
        found = {k.lower(): html.unescape(a or b or c) for k, a, b, c in _ATTRIBUTE.findall(attributes)}
        element = _Element(name, found, match.start(), match.end(), match.end())
        stack[-1].children.append(element)
        if name not in _VOID and not match[0].endswith("/>") and len(stack) < MAX_DEPTH:
            stack.append(element)
    for element in stack[1:]:
        element.end = len(source)
    return root, [element.name for element in stack[1:]]


def _html_blocks(source: str, parent: _Element, notes: list[str]) -> Iterator[RawBlock]:
    """Depth first. An element with a place of its own, or that is no mere frame, is a block."""
    at = parent.start
    for child in parent.children:
        yield from _loose_text(source[at : child.tag_start])
        at = max(child.end, child.start)
        boxed = _box_of(child, notes) is not None
        inner_boxed = any(_has_box(c) for c in child.children)
        frame = child.name in _FRAME_TAGS and (child.name in _LIST_TAGS or not (boxed or "class" in child.attributes))
        if (child.name in _VOID and child.name != "img") or child.name in ("head", "title"):
            continue
        if frame or (inner_boxed and not boxed):
            yield from _html_blocks(source, child, notes)
        else:
            yield _html_block(source, child, notes)
    yield from _loose_text(source[at : parent.end])


def _loose_text(markup: str) -> Iterator[RawBlock]:
    text = plain_text(TAG.sub("", markup))
    if text and not re.fullmatch(r"<!DOCTYPE[^>]*>", text, re.IGNORECASE):
        yield RawBlock("text", text, html=text)


def _html_block(source: str, element: _Element, notes: list[str]) -> RawBlock:
    inside = _DROPPED.sub("", source[element.start : element.end])
    inside = re.sub(r"<img\b[^>]*>", "", inside).strip()
    name = element.name
    kind = _kind(element)
    table = html_table(inside) if kind == "table" or (kind == "chart" and "<table" in inside) else None
    text = table.to_csv() if kind == "chart" and table else "" if kind == "table" else plain_text(inside)
    level = int(name[1]) if re.fullmatch(r"h[1-6]", name) else 1 if kind == "heading" else 0
    if name == "table":
        inside = f"<table>{inside}</table>"
    box = _box_of(element, notes)
    return RawBlock(kind, text, box, inside, table, level, element.attributes.get("format", ""))


def _kind(element: _Element) -> Kind:
    if element.name in ("table", "li", "img", "figcaption", "pre") or re.fullmatch(r"h[1-6]", element.name):
        return {"table": "table", "li": "list item", "img": "image", "figcaption": "caption", "pre": "code"}.get(
            element.name, "heading"
        )  # type: ignore[return-value]
    cls = element.attributes.get("class", "text").lower().strip()
    if any(c.name == "table" for c in element.children) and cls == "text":
        return "table"
    for known in sorted(_KINDS, key=len, reverse=True):
        if cls.startswith(known):
            return _KINDS[known]
    return "text"


def _has_box(element: _Element) -> bool:
    return "data-bbox" in element.attributes or any(_has_box(c) for c in element.children)


def _box_of(element: _Element, notes: list[str]) -> RelativeBox | None:
    written = element.attributes.get("data-bbox") or element.attributes.get("data-polygon")
    if not written:
        return None
    numbers = [float(n) for n in re.findall(r"-?\d{1,9}(?:\.\d+)?", written)]
    if len(numbers) == 4:
        return RelativeBox(*numbers)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        around = enclosing([Point(x, y) for x, y in zip(numbers[0::2], numbers[1::2], strict=True)])
        return RelativeBox(around.x1, around.y1, around.x2, around.y2)
    notes.append(f"a block's place {written!r} has {len(numbers)} numbers: the block was kept without it")
    return None
