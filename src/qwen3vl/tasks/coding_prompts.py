"""What is asked when pictures become code.

The prompts for HTML and for charts are the cookbook's, word for word (cookbooks/mmcode.ipynb); it has none for
Draw.io and SVG, and ours follow its wording.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from qwen3vl.tasks.coding_source import Target
from qwen3vl.types import ImagePart, Message, Part, TextPart, VideoPart

PROMPTS: dict[Target, str] = {
    "html": "Analyze this screenshot and convert it to clean, functional and modern HTML code. ",
    "matplotlib": "Convert this chart image to Python matplotlib code that can reproduce the chart.",
    "drawio": "Analyze this diagram and convert it to Draw.io XML code (an mxfile with uncompressed mxGraphModel). ",
    "svg": "Analyze this picture and convert it to clean SVG code. ",
}
TEXT_FIRST = ("matplotlib",)  # in the cookbook the chart comes after its prompt
FENCES: dict[Target, str] = {"html": "html", "matplotlib": "python", "drawio": "xml", "svg": "svg"}


def question(shown: ImagePart | VideoPart, prompt: str, target: Target) -> Message:
    """The first turn."""
    parts: tuple[Part, ...] = (shown, TextPart(prompt))
    return Message("user", parts[::-1] if target in TEXT_FIRST else parts)


def mending(
    asked: Message, target: Target, source: str, raw: str, rendering: Image.Image | None, problems: Sequence[str]
) -> list[Message]:
    """The question, the best code so far, and what it looks like; the rounds between are left out, so that the
    prompt does not grow."""
    fence = FENCES[target]
    parts: list[Part] = []
    if rendering is not None:
        parts += [TextPart("This is what your code looks like when it is drawn:\n"), ImagePart(rendering)]
    if problems:
        parts.append(TextPart("These problems were found:\n" + "\n".join(f"- {p}" for p in problems[:20]) + "\n"))
    ask = "Compare it with the first picture and mend every difference" if rendering else "Mend them"
    parts.append(TextPart(f"{ask}. Reply with the whole corrected code in one ```{fence} block."))
    answer = f"```{fence}\n{source}\n```" if source else raw
    return [asked, Message("assistant", (TextPart(answer),)), Message("user", tuple(parts))]
