"""Draw.io files as models write them: read, inflated and checked as real mxGraph XML.

    <mxfile> <diagram name="Page-1"> <mxGraphModel> <root> <mxCell id="0"/> <mxCell id="1" parent="0"/> ...

`read_drawio` raises ParseError for what is no such file; what is wrong inside one is said in
`problems`, cell by cell, in words that a person or a model can act on.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_json import shorten

MAX_BYTES = 16 << 20  # of one inflated page
_WRAPPERS = ("object", "UserObject")


@dataclass(frozen=True, slots=True)
class DrawioPage:
    """One page.

    Attributes:
        name: of its tab.
        xml: its <mxGraphModel> as text, inflated.
        num_shapes, num_connections: vertices and edges.
        problems: what is wrong with it, by cell.
    """

    name: str
    xml: str
    num_shapes: int
    num_connections: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrawioFile:
    """All pages in order."""

    pages: tuple[DrawioPage, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Of all pages, named by page where there are several."""
        several = len(self.pages) > 1
        return tuple(f"page {p.name!r}: {what}" if several else what for p in self.pages for what in p.problems)


def read_drawio(source: str) -> DrawioFile:
    """The pages of an <mxfile>, or of a bare <diagram>, <mxGraphModel> or <root>. Raises ParseError."""
    top = _parse(source, "the diagram")
    if top.tag == "root":
        model = ET.Element("mxGraphModel")
        model.append(top)
        top = model
    if top.tag == "mxGraphModel":
        return DrawioFile((_page("Page-1", top),))
    diagrams = [top] if top.tag == "diagram" else list(top.iter("diagram")) if top.tag == "mxfile" else []
    if not diagrams:
        raise ParseError(
            f"the diagram is a <{top.tag}> without a page, not an <mxfile> or an <mxGraphModel>", raw=source
        )
    names = [d.get("name") or f"Page-{n}" for n, d in enumerate(diagrams, start=1)]
    return DrawioFile(tuple(_page(name, _model(name, d)) for name, d in zip(names, diagrams, strict=True)))


def _parse(source: str, name: str) -> ET.Element:
    if re.search(r"<!(?:DOCTYPE|ENTITY)", source, re.IGNORECASE):
        raise ParseError(f"{name} declares a document type or entities: no Draw.io file does", raw=source)
    try:
        return ET.fromstring(source.strip())
    except (ET.ParseError, ValueError) as error:
        raise ParseError(f"{name} is not well-formed XML: {error}{_near(source.strip(), error)}", raw=source) from error


def _near(source: str, error: Exception) -> str:
    line, column = getattr(error, "position", (0, 0))
    lines = source.splitlines()
    return f", near {lines[line - 1][max(0, column - 30) : column + 30]!r}" if 0 < line <= len(lines) else ""


def _model(name: str, diagram: ET.Element) -> ET.Element:
    model = diagram.find("mxGraphModel")
    if model is not None:
        return model
    text = (diagram.text or "").strip()
    if not text:
        raise ParseError(f"the page {name!r} is empty")
    found = _parse(text if text.startswith("<") else _inflate(text, name), f"the page {name!r}")
    if found.tag != "mxGraphModel":
        raise ParseError(f"the page {name!r} holds a <{found.tag}>, not an <mxGraphModel>")
    return found


def _inflate(text: str, name: str) -> str:
    """Draw.io's compressed form: URL-encoded, deflated without a header, base64."""
    try:
        packed = base64.b64decode("".join(text.split()), validate=True)
        reader = zlib.decompressobj(-15)
        plain = reader.decompress(packed, MAX_BYTES)
        if len(plain) >= MAX_BYTES:
            raise ParseError(f"the page {name!r} is more than {MAX_BYTES >> 20} MB when inflated")
        if not reader.eof:
            raise ParseError(f"the page {name!r} is compressed and cut off")
        return unquote(plain.decode("utf-8"))
    except (binascii.Error, zlib.error, UnicodeDecodeError) as error:
        raise ParseError(f"the page {name!r} is neither XML nor compressed XML: {error}") from error


# -------------------------------------------------------------------------------------- checking


@dataclass(frozen=True, slots=True)
class _Cell:
    """`name` is for people: the id and the label."""

    id: str | None
    element: ET.Element
    name: str

    def get(self, key: str) -> str | None:
        return self.element.get(key)


def _page(name: str, model: ET.Element) -> DrawioPage:
    cells = list(_cells(model))
    problems = tuple(_problems(model, cells))
    shapes = sum(c.get("vertex") == "1" for c in cells)
    connections = sum(c.get("edge") == "1" for c in cells)
    return DrawioPage(name, ET.tostring(model, encoding="unicode"), shapes, connections, problems)


def _cells(model: ET.Element) -> Iterator[_Cell]:
    for number, element in enumerate(model.findall("root/*"), start=1):
        inner = element.find("mxCell") if element.tag in _WRAPPERS else element if element.tag == "mxCell" else None
        if inner is None:
            continue
        label = re.sub(r"<[^>]*>", " ", element.get("label") or element.get("value") or "").strip()
        id = element.get("id")
        name = f"cell {id!r}" if id is not None else f"the cell number {number} (without an id)"
        yield _Cell(id, inner, f"{name} ({shorten(label)})" if label else name)


def _problems(model: ET.Element, cells: list[_Cell]) -> Iterator[str]:
    if model.find("root") is None:
        yield "the <mxGraphModel> has no <root>"
    for element in model.findall("root/*"):
        if element.tag not in ("mxCell", *_WRAPPERS):
            yield f"<{element.tag}> stands in <root>, where only mxCell, object and UserObject may"
        elif element.tag in _WRAPPERS and element.find("mxCell") is None:
            yield f"<{element.tag} id={element.get('id')!r}> holds no mxCell"
    ids = {c.id: c for c in cells if c.id is not None}
    for id, count in Counter(c.id for c in cells if c.id is not None).items():
        if count > 1:
            yield f"the id {id!r} is used by {count} cells"
    roots = [c for c in cells if c.get("parent") is None]
    if len(roots) != 1:
        yield f"{len(roots)} cells have no parent, where only the root cell (id 0) may: " + (
            ", ".join(c.name for c in roots) or "the root cell is missing"
        )
    if not any(c.get("vertex") == "1" or c.get("edge") == "1" for c in cells):
        yield "the page has no shape and no connection"
    for cell in cells:
        yield from _cell_problems(cell, ids)


def _cell_problems(cell: _Cell, ids: dict[str, _Cell]) -> Iterator[str]:
    if cell.id is None:
        yield f"{cell.name} has no id"
    parent = cell.get("parent")
    if parent is not None and parent not in ids:
        yield f"{cell.name} has the parent {parent!r}, which does not exist"
    elif _circular(cell, ids):
        yield f"{cell.name} is inside itself by way of its parents"
    vertex, edge = cell.get("vertex") == "1", cell.get("edge") == "1"
    if vertex and edge:
        yield f"{cell.name} is both a vertex and an edge"
    elif vertex:
        yield from _geometry_problems(cell)
    elif edge:
        yield from _edge_problems(cell, ids)


def _circular(cell: _Cell, ids: dict[str, _Cell]) -> bool:
    seen = {cell.id}
    parent = cell.get("parent")
    while parent is not None and parent in ids:
        if parent in seen:
            return parent == cell.id
        seen.add(parent)
        parent = ids[parent].get("parent")
    return False


def _geometry_problems(cell: _Cell) -> Iterator[str]:
    geometry = cell.element.find("mxGeometry")
    if geometry is None:
        yield f"{cell.name} has no mxGeometry"
        return
    if geometry.get("as") != "geometry":
        yield f'{cell.name}: its mxGeometry lacks as="geometry"'
    for key in ("x", "y", "width", "height"):
        value = geometry.get(key)
        number = _number(value) if value is not None else 0.0
        if number is None:
            yield f"{cell.name}: {key}={value!r} of its mxGeometry is no number"
        elif key in ("width", "height") and number < 0:
            yield f"{cell.name}: its {key} is {number:g}"


def _edge_problems(cell: _Cell, ids: dict[str, _Cell]) -> Iterator[str]:
    geometry = cell.element.find("mxGeometry")
    for end in ("source", "target"):
        other = cell.get(end)
        if other is not None and other not in ids:
            yield f"{cell.name} has the {end} {other!r}, which does not exist"
        elif other is None and (geometry is None or geometry.find(f"mxPoint[@as='{end}Point']") is None):
            yield f"{cell.name} has neither a {end} nor a {end}Point"
    for point in geometry.iter("mxPoint") if geometry is not None else ():
        if any(_number(point.get(key, "0")) is None for key in ("x", "y")):
            yield f"{cell.name}: a point ({point.get('x')!r}, {point.get('y')!r}) is no pair of numbers"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
