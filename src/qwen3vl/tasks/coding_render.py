"""What generated code looks like: HTML, SVG and Draw.io in headless Chromium, matplotlib in a limited subprocess."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from qwen3vl.errors import RenderError
from qwen3vl.tasks.coding_browser import SECONDS, VIEWPORT, screenshot
from qwen3vl.tasks.coding_python import run_python
from qwen3vl.tasks.drawio import read_drawio

Target = Literal["html", "drawio", "matplotlib", "svg"]
MAXGRAPH = Path(__file__).parents[1] / "assets" / "maxgraph"
_SVG_PAGE = "<!DOCTYPE html><style>html,body{margin:0;background:#fff}svg{display:block}</style>"
_GRAPH_PAGE = '<!DOCTYPE html><style>html,body{margin:0;background:#fff}</style><div id="graph"></div>'


@dataclass(frozen=True, slots=True)
class Rendering:
    """The picture, and what a person should know: requests that were refused, shapes that were simplified."""

    image: Image.Image
    notes: tuple[str, ...]


def render(
    source: str, target: Target, *, viewport: tuple[int, int] = VIEWPORT, seconds: float = SECONDS, run: bool = False
) -> Rendering:
    """Draw generated code.

    Args:
        viewport: (width, height) in pixels of the window that HTML is laid out in; a longer page is pictured whole.
        seconds: the time for everything.
        run: allow Python code to run (see coding_python.py for what limits it).

    Raises RenderError, and ParseError for a Draw.io file that is none.
    """
    if target == "matplotlib":
        if not run:
            raise RenderError("Python code is not run unless asked for: run=True")
        figure = run_python(source, seconds=seconds)
        return Rendering(figure.image, figure.notes)
    if target == "drawio":
        return render_drawio(source, seconds=seconds)
    if target == "svg":
        return _tight(_SVG_PAGE + _without_declaration(source), "document.querySelector('svg')", viewport, seconds)
    shot = screenshot(source, viewport, seconds=seconds)
    return Rendering(shot.image, shot.notes)


def render_drawio(source: str, page: int = 0, *, seconds: float = SECONDS) -> Rendering:
    """One page (from 0) of a Draw.io file, drawn by maxGraph at 1 pixel per unit with a border of 10."""
    file = read_drawio(source)
    if not 0 <= page < len(file.pages):
        raise RenderError(f"page {page} of a diagram with {len(file.pages)} pages (counted from 0)")
    # "</script>" in a label must not end our script.
    xml = json.dumps(file.pages[page].xml).replace("<", "\\u003c")
    scripts = [(MAXGRAPH / name).read_text("utf-8") for name in ("maxgraph.min.js", "draw.js")]
    scripts.append(f"var drawn; try {{ drawn = draw({xml}) }} catch (error) {{ drawn = String(error) }}")
    html = _GRAPH_PAGE + "".join(f"<script>{script}</script>" for script in scripts)
    shot = screenshot(html, (320, 200), seconds=seconds, read="drawn")
    if not isinstance(shot.result, dict):
        raise RenderError(f"maxGraph cannot draw the diagram: {shot.result}")
    notes = list(shot.notes)
    if shot.result["unknown"]:
        notes.append(f"drawn as plain rectangles: the shapes {', '.join(sorted(shot.result['unknown']))}")
    if len(file.pages) > 1:
        notes.append(f"page {page + 1} of {len(file.pages)} is drawn")
    return Rendering(_cut(shot.image, shot.result), tuple(notes))


def _tight(html: str, element: str, viewport: tuple[int, int], seconds: float) -> Rendering:
    """The picture of one element at the page's top left corner."""
    read = (
        f"(e => e && {{width: e.getBoundingClientRect().width, height: e.getBoundingClientRect().height}})({element})"
    )
    shot = screenshot(html, viewport, seconds=seconds, read=read)
    if not isinstance(shot.result, dict):
        raise RenderError("there is no <svg> to draw")
    return Rendering(_cut(shot.image, shot.result), shot.notes)


def _cut(image: Image.Image, size: dict[str, float]) -> Image.Image:
    width, height = max(1, math.ceil(size["width"])), max(1, math.ceil(size["height"]))
    return image.crop((0, 0, min(width, image.width), min(height, image.height)))


def _without_declaration(source: str) -> str:
    """An <?xml?> line or a document type would be a comment or text inside HTML."""
    return source[source.find("<svg") :] if "<svg" in source else source
