"""Answers that carry text: spotting, key information, documents, in the forms of the recorded official ones.

spotting    ```json, one tab-indented object a line, 0..999
fields      a bare JSON object, no fence, two spaces
html        `qwenvl html`: a div with data-bbox for each block
markdown    `qwenvl markdown`: <!-- Table (x1, y1, x2, y2) --> before a LaTeX tabular
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from qwen3vl.tasks.coordinates import SPOTTING_DIVISOR
from qwen3vl.train.synthetic.answers import Size, relative_box
from qwen3vl.train.synthetic.sample import Labelled


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
