"""Questions about documents, answered with the pages they rest on (cookbooks/long_document_understanding.ipynb)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwen3vl.tasks.asking import PIXELS_PER_TOKEN, ask_once
from qwen3vl.tasks.pages import DPI, Documents, drawn, pages_of
from qwen3vl.types import Generator, ImagePart, MediaOptions, MediaReceipt, Part, SamplingParams, TextPart

MAX_SIDE = 1500  # the cookbook shows pages at 144 dpi and no longer than this
PIXELS = (512 * PIXELS_PER_TOKEN, 730 * PIXELS_PER_TOKEN)  # of one page
_PAGES = re.compile(
    r"\b(?:pages?|pp?\.)\s*((?:\d{1,5})(?:\s*(?:-|–|—|to|and|,|&)\s*(?:pages?\s*)?\d{1,5}\b)*)|第\s*(\d{1,5})\s*页",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"\bimages?\s*(\d{1,5})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """An answer about a document.

    Attributes:
        text: the answer.
        pages: the page numbers (from 1) that it cites, in rising order; empty if it cites none.
        num_pages: how many pages it was shown.
        notes, receipts: as in grounding.Grounding.
    """

    text: str
    pages: tuple[int, ...]
    num_pages: int
    notes: tuple[str, ...]
    receipts: tuple[MediaReceipt, ...] = ()


def ask(
    model: Generator,
    files: Documents,
    question: str,
    *,
    cite: bool = True,
    dpi: float = DPI,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> DocumentAnswer:
    """Shows all pages in one turn, in order, then the question. With `cite` each page is announced by its
    number and the model is asked to name the pages it uses. Raises the MediaError of a page that cannot be shown."""
    parts: list[Part | str] = []
    count = 0
    for page, picture in drawn(pages_of(files, dpi=dpi)):
        if isinstance(picture, Exception):
            raise picture
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        count += 1
        if cite:
            parts.append(TextPart(f"Page {page.number}:"))
        parts.append(ImagePart(picture))
    cue = "\nName the pages that the answer rests on, as (page N)." if cite else ""
    usual = MediaOptions(min_pixels=PIXELS[0], max_pixels=PIXELS[1])
    answer = ask_once(model, [*parts, question + cue], params, media, usual=usual)
    cited = cited_pages(answer.text)
    notes = answer.notes
    if beyond := [n for n in cited if not 1 <= n <= count]:
        notes = (*notes, f"the answer cites pages {beyond}, but {count} were shown: left out")
    return DocumentAnswer(answer.text, tuple(n for n in cited if 1 <= n <= count), count, notes, answer.receipts)


def cited_pages(text: str) -> tuple[int, ...]:
    """Page numbers in "page 3", "pages 2-4 and 7", "第5页"; "(image 0)" counts from 0 and stands for page 1
    where no page is named."""
    pages: set[int] = set()
    for several, chinese in _PAGES.findall(text):
        if chinese:
            pages.add(int(chinese))
            continue
        for first, last in re.findall(r"(\d+)(?:\s*(?:-|–|—|to)\s*(\d+))?", several):
            end = int(last or first)
            pages.update(range(int(first), end + 1) if int(first) <= end < int(first) + 1000 else [int(first), end])
    if not pages:
        pages = {int(n) + 1 for n in _IMAGES.findall(text)}
    return tuple(sorted(pages))
