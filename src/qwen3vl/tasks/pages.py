"""The pages of documents: pictures, and PDFs drawn page by page, one at a time.

The pixel frame of a PDF page is the page drawn upright (its /Rotate applied) at `dpi`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import pypdfium2
from PIL import Image

from qwen3vl.errors import MediaDecodeError, MediaNotFound, MediaTooLarge, Qwen3VLError
from qwen3vl.tasks.pictures import name_of, open_picture
from qwen3vl.types import PictureSource

DPI = 144  # cookbooks/long_document_understanding.ipynb
MAX_SIDE = 8192  # a drawn page; larger pages are drawn at fewer dots per inch
PAGES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Page:
    """One page, not drawn yet.

    Attributes:
        source: the file or picture it belongs to; `name` is that for people.
        index: which page of it, from 0.
        number: which page of all, from 1.
        dpi: for PDFs.
    """

    source: PictureSource
    name: str
    index: int
    number: int
    dpi: float | None = None

    def draw(self) -> Image.Image:
        """The page upright in RGB; a PDF's page white where nothing is printed."""
        if self.dpi is None:
            return open_picture(self.source)
        with _Pdf(self.source) as pdf:
            return _draw(pdf, self)


Documents: TypeAlias = "PictureSource | Sequence[PictureSource]"
"""A PDF or a picture, or a list of such files in order."""


def pages_of(files: Documents, *, dpi: float = DPI, pages: Sequence[int] | None = None) -> Iterator[Page]:
    """The pages of one or several files in order; `pages` picks by number (from 1) over all of them.

    Raises MediaNotFound and MediaDecodeError, naming the file, before the first of its pages.
    """
    number = 0
    for source in _sources(files):
        for index, page_dpi in _pages_in(source, dpi):
            number += 1
            if pages is None or number in pages:
                yield Page(source, name_of(source), index, number, page_dpi)


def count_pages(files: Documents) -> int:
    """How many pages the files have; opens each PDF, draws nothing."""
    return sum(1 for source in _sources(files) for _ in _pages_in(source, DPI))


def _sources(files: Documents) -> list[PictureSource]:
    if isinstance(files, (list, tuple)):
        return list(files)
    return [cast(PictureSource, files)]


def drawn(pages: Iterable[Page]) -> Iterator[tuple[Page, Image.Image | Qwen3VLError]]:
    """Each page with its picture, or why it has none, drawn when it is asked for.

    pdfium keeps what it has read of a document until it is closed: it is opened anew after
    PAGES_AT_ONCE pages, so that a long scan does not gather in memory.
    """
    pdf: _Pdf | None = None
    try:
        for page in pages:
            try:
                if page.dpi is not None and (
                    pdf is None or pdf.source is not page.source or pdf.drawn >= PAGES_AT_ONCE
                ):
                    if pdf:
                        pdf.close()
                    pdf = _Pdf(page.source)
                picture = page.draw() if page.dpi is None or pdf is None else _draw(pdf, page)
            except Qwen3VLError as error:
                yield page, error
            else:
                yield page, picture
    finally:
        if pdf:
            pdf.close()


def is_pdf(source: PictureSource) -> bool:
    """By its first kilobyte, where readers look for "%PDF-"."""
    if isinstance(source, bytes):
        return b"%PDF-" in source[:1024]
    if not isinstance(source, (str, os.PathLike)) or str(source)[:5].lower() in ("data:", "http:", "https"):
        return False
    path = Path(source)
    try:
        with path.open("rb") as file:
            return b"%PDF-" in file.read(1024)
    except OSError:
        return path.suffix.lower() == ".pdf"


def _pages_in(source: PictureSource, dpi: float) -> Iterator[tuple[int, float | None]]:
    if not is_pdf(source):
        yield 0, None
        return
    with _Pdf(source) as pdf:
        count = len(pdf.document)
    for index in range(count):
        yield index, dpi


class _Pdf:
    def __init__(self, source: PictureSource) -> None:
        assert isinstance(source, (str, os.PathLike, bytes)), source
        self.source = source
        self.drawn = 0
        name = name_of(source)
        if not isinstance(source, bytes) and not Path(source).is_file():
            raise MediaNotFound(f"{name}: no such file")
        try:
            self.document = pypdfium2.PdfDocument(source if isinstance(source, bytes) else Path(source))
        except pypdfium2.PdfiumError as error:
            raise MediaDecodeError(f"{name} is no PDF that can be read: {error}") from error

    def __enter__(self) -> _Pdf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.document.close()


def _draw(pdf: _Pdf, page: Page) -> Image.Image:
    assert page.dpi is not None
    pdf.drawn += 1
    try:
        opened = pdf.document[page.index]
        try:
            width, height = opened.get_size()
            if not (width > 0 and height > 0):
                raise MediaDecodeError(f"{page.name}, page {page.index + 1}: its size is {width} x {height} points")
            scale = min(page.dpi / 72, MAX_SIDE / max(width, height))
            if min(width, height) * scale < 1:
                raise MediaTooLarge(f"{page.name}, page {page.index + 1}: {width:g} x {height:g} points is too narrow")
            bitmap = opened.render(scale=scale)
            picture = bitmap.to_pil().convert("RGB")
            bitmap.close()
            return picture
        finally:
            opened.close()
    except pypdfium2.PdfiumError as error:
        raise MediaDecodeError(f"{page.name}, page {page.index + 1} cannot be drawn: {error}") from error
