"""Answers that carry text: spotting, key information, documents, in the forms of the recorded official ones.

spotting    ```json, one tab-indented object a line, 0..999
fields      a bare JSON object, no fence, two spaces
html        `qwenvl html`: a div with data-bbox for each block
markdown    `qwenvl markdown`: <!-- Table (x1, y1, x2, y2) --> before a LaTeX tabular
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qwen3vl.tasks.coordinates import SPOTTING_DIVISOR
from qwen3vl.train.synthetic.answers import Size, relative_box
from qwen3vl.train.synthetic.sample import Labelled, PixelBox


def spotting_answer(items: Iterable[Labelled], size: Size) -> str:
    """Lines or words with their boxes in a picture of `size`, in the order given.

    Worked example (also a test): "ab" at (16, 8, 64, 24) of 320 x 32 has "bbox_2d": [50, 250, 200, 749].
    """
    lines = ",\n".join(
        "\t"
        + json.dumps({"bbox_2d": relative_box(box, size, SPOTTING_DIVISOR), "text_content": text}, ensure_ascii=False)
        for text, box in items
    )
    return f"```json\n[\n{lines}\n]\n```"


def fields_answer(fields: Mapping[str, Any]) -> str:
    """One JSON object."""
    return json.dumps(fields, ensure_ascii=False, indent=2)


@dataclass(frozen=True, slots=True)
class PageBlock:
    """A block of a page as it is answered.

    Attributes:
        kind: "heading", "text", "image" or "table".
        text: of headings and paragraphs on one line; "" of pictures; the table's HTML or LaTeX of tables.
        box: in pixels of the page.
    """

    kind: str
    text: str
    box: PixelBox


def html_answer(blocks: Iterable[PageBlock], size: Size) -> str:
    """`qwenvl html`: headings are text divs like paragraphs, as in the recorded answer; text is not escaped there."""
    made = []
    for block in blocks:
        kind = "text" if block.kind == "heading" else block.kind
        place = " ".join(map(str, relative_box(block.box, size)))
        made.append(f'<div class="{kind}" data-bbox="{place}">{block.text}</div>')
    return "<html><body>" + "\n".join(made) + "\n</body></html>"


def markdown_answer(blocks: Iterable[PageBlock], size: Size) -> str:
    """`qwenvl markdown`: pictures and tables are announced with their boxes, text goes without."""
    made = []
    for block in blocks:
        place = ", ".join(map(str, relative_box(block.box, size)))
        if block.kind == "image":
            made.append(f"<!-- Image ({place}) -->")
        elif block.kind == "table":
            made.append(f"<!-- Table ({place}) -->\n{block.text}")
        else:
            made.append(("# " if block.kind == "heading" else "") + block.text)
    return "\n\n".join(made)
