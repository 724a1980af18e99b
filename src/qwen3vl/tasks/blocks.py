"""Blocks of a page in pixels, and as clean Markdown and HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from qwen3vl.tasks.coordinates import Box, Frame
from qwen3vl.tasks.parsing_markup import Kind, RawBlock
from qwen3vl.tasks.parsing_tables import Table
from qwen3vl.types import MediaReceipt

_FENCED = {"music": "abc", "chemistry": "smiles", "chart": "csv"}


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a page.

    Attributes:
        kind: text, heading, list item, table, image, caption, formula, chart, music, chemistry, code.
        text: see parsing_markup.RawBlock.
        box: in pixels of the page (of the picture after its EXIF orientation, or of the drawn PDF page);
            None where the model gave none.
        page: number of the page, from 1.
        order: place in the model's reading order on the page, from 0.
        html, table, level, format: see parsing_markup.RawBlock.
        picture: the file into which a picture of the page was cut out.
    """

    kind: Kind
    text: str
    box: Box | None
    page: int
    order: int
    html: str = ""
    table: Table | None = None
    level: int = 0
    format: str = ""
    picture: str | None = None

    def to_markdown(self) -> str:
        if self.kind == "heading":
            return "#" * max(1, self.level) + " " + " ".join(self.text.split())
        if self.kind == "list item":
            return "- " + self.text
        if self.kind == "table" and self.table:
            return self.table.to_markdown()
        if self.kind == "image":
            return f"![image of page {self.page}]({self.picture})" if self.picture else self.text
        if self.kind == "formula" and self.text and not self.text.lstrip().startswith(("$", "\\[", "\\begin")):
            return f"$$\n{self.text}\n$$"
        if self.kind in _FENCED and self.text:
            return f"```{self.format or _FENCED[self.kind]}\n{self.text.strip()}\n```"
        return self.text

    def to_html(self) -> str:
        if self.kind == "heading":
            level = max(1, self.level)
            return f"<h{level}>{html.escape(self.text, quote=False)}</h{level}>"
        if self.kind == "table" and self.table:
            return self.table.to_html()
        if self.kind == "image":
            return f'<img src="{html.escape(self.picture)}" alt="image of page {self.page}">' if self.picture else ""
        text = html.escape(self.text, quote=False)
        if self.kind in ("code", *_FENCED):
            return f"<pre>{text}</pre>"
        tag = "li" if self.kind == "list item" else "p"
        return f"<{tag}>{text}</{tag}>".replace("\n", "<br>")


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """One page.

    Attributes:
        number: among all pages, from 1.
        name, index: the file, and which of its pages (from 0).
        size: (width, height) in pixels: the frame of the boxes.
        blocks: in the model's reading order.
        raw: the model's answer.
        notes: what was mended or dropped.
        complete: False when the answer was cut off or failed.
        error: why the page could not be parsed, if it could not.
        receipts: what the model really saw.
    """

    number: int
    name: str
    index: int
    size: tuple[int, int]
    blocks: tuple[Block, ...]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    error: str | None = None
    receipts: tuple[MediaReceipt, ...] = ()

    def to_markdown(self) -> str:
        """Clean Markdown: tables as pipe tables, formulas as $$, pictures as links where they were cut out."""
        parts: list[str] = []
        for block in self.blocks:
            text = block.to_markdown()
            if parts and block.kind == "list item" and parts[-1].startswith("- "):
                parts[-1] += "\n" + text
            elif text:
                parts.append(text)
        return "\n\n".join(parts)

    def to_html(self) -> str:
        """Clean HTML of the page, without boxes."""
        inside = "\n".join(filter(None, (block.to_html() for block in self.blocks)))
        return f'<section data-page="{self.number}">\n{inside}\n</section>'

    def with_pictures(self, draw: Callable[[], Image.Image], folder: Path) -> ParsedPage:
        """This page with its pictures cut out of `draw()` into `folder` as page-0001-02.png (page, order)."""
        wanted = [
            b for b in self.blocks if b.kind in ("image", "chart") and b.box and min(b.box.width, b.box.height) >= 1
        ]
        if not wanted:
            return self
        folder.mkdir(parents=True, exist_ok=True)
        page = draw()
        cut = {}
        for block in wanted:
            assert block.box
            path = folder / f"page-{self.number:04d}-{block.order:02d}.png"
            page.crop((round(block.box.x1), round(block.box.y1), round(block.box.x2), round(block.box.y2))).save(path)
            cut[block.order] = replace(block, picture=path.as_posix())
        return replace(self, blocks=tuple(cut.get(b.order, b) for b in self.blocks))


def place_blocks(
    raw: Sequence[RawBlock], size: tuple[int, int], page: int
) -> tuple[tuple[Block, ...], tuple[str, ...]]:
    """Blocks in the pixels of a page of `size`, and what was mended."""
    frame = Frame(*size)
    notes: list[str] = []
    blocks = []
    for order, block in enumerate(raw):
        box = None
        if block.box:
            box, mended = frame.mend_box(block.box)
            notes += mended
        text = (block.kind, block.text, box, page, order, block.html, block.table, block.level, block.format)
        blocks.append(Block(*text))
    return tuple(blocks), tuple(notes)
