"""Reading text: a whole page as text, or lines and words with their boxes (cookbooks/ocr.ipynb).

Text spotting counts 0..999 across the picture, unlike the other tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.asking import PIXELS_PER_TOKEN, ask_once, image_part
from qwen3vl.tasks.coordinates import SPOTTING_DIVISOR, Box, Frame, RelativeBox
from qwen3vl.tasks.parsing_entries import read_entries
from qwen3vl.tasks.parsing_markup import unfence
from qwen3vl.tasks.pictures import first_picture, picture_size
from qwen3vl.types import Generator, ImagePart, MediaOptions, MediaReceipt, PictureSource, SamplingParams

Level = Literal["page", "line", "word"]
PAGE_PROMPT = "Read all the text in the image."
SPOTTING_PROMPT = (
    "Spotting all the text in the image with {level}-level, and output in JSON format as "
    "[{{'bbox_2d': [x1, y1, x2, y2], 'text_content': 'text'}}, ...]."
)
USUAL = MediaOptions(min_pixels=512 * PIXELS_PER_TOKEN, max_pixels=2048 * PIXELS_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class TextBox:
    """A line or a word; `box` in pixels of the user's picture after its EXIF orientation."""

    text: str
    box: Box


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Attributes:
        text: all of it; of lines and words: joined by new lines in the model's order.
        boxes: lines or words with their places; empty at level "page".
        level: page, line or word.
        size: (width, height) of the user's picture after its EXIF orientation: the frame of the boxes.
        raw, notes, complete, receipts: as in grounding.Grounding.
    """

    text: str
    boxes: tuple[TextBox, ...]
    level: Level
    size: tuple[int, int]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


def read(
    model: Generator,
    image: PictureSource | ImagePart,
    *,
    level: Level = "page",
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Reading:
    """The text of a picture. Raises ParseError if lines or words were asked for and none come back."""
    if level not in get_args(Level):
        raise InvalidParams(f"level={level!r} is not one of {', '.join(get_args(Level))}")
    picture = image_part(image)
    question = prompt or (PAGE_PROMPT if level == "page" else SPOTTING_PROMPT.format(level=level))
    answer = ask_once(model, [picture, question], params, media, usual=USUAL)
    size = picture_size(picture.image, first_picture(answer.receipts))
    if level == "page":
        text = unfence(answer.text).strip()
        complete = not any("max_tokens" in note for note in answer.notes)
        return Reading(text, (), level, size, answer.text, answer.notes, complete, answer.receipts)
    entries = read_entries(answer.text)
    frame = Frame(*size, divisor=SPOTTING_DIVISOR)
    notes = [*answer.notes, *entries.notes]
    boxes = []
    for entry in entries.items:
        if entry.kind != "box":
            notes.append(f"{entry.label!r} came without a box: dropped")
            continue
        box, mended = frame.mend_box(RelativeBox(*entry.numbers))
        notes += mended
        boxes.append(TextBox(entry.label, box))
    text = "\n".join(b.text for b in boxes)
    return Reading(text, tuple(boxes), level, size, entries.raw, tuple(notes), entries.complete, answer.receipts)
