"""Documents as blocks, Markdown and HTML (cookbooks/document_parsing.ipynb), and questions about them.

    files --pages--> pictures --`qwenvl html` or `qwenvl markdown`, generate_many--> answers --> ParsedPage ...

Pages are drawn when the generator asks for the next one and forgotten when it is answered: a book of
500 pages needs the memory of the few pages in flight. A page that fails is a ParsedPage with its
`error`; the others go on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image

from qwen3vl.errors import InvalidParams, Qwen3VLError, UnsupportedOption
from qwen3vl.tasks.asking import PIXELS_PER_TOKEN, Answer, answer_of, within
from qwen3vl.tasks.blocks import Block, ParsedPage, place_blocks
from qwen3vl.tasks.pages import DPI, Documents, Page, drawn, pages_of
from qwen3vl.tasks.parsing_markdown import read_markdown
from qwen3vl.tasks.parsing_markup import read_html
from qwen3vl.types import Completion, Generator, ImagePart, MediaOptions, Message, Request, SamplingParams, TextPart

Format = Literal["markdown", "html"]
PROMPTS: dict[str, str] = {"html": "qwenvl html", "markdown": "qwenvl markdown"}
USUAL = {
    "html": MediaOptions(min_pixels=512 * PIXELS_PER_TOKEN, max_pixels=2048 * PIXELS_PER_TOKEN),
    "markdown": MediaOptions(min_pixels=512 * PIXELS_PER_TOKEN, max_pixels=4608 * PIXELS_PER_TOKEN),
}
MAX_TOKENS = 16384  # a page that loops must end
Progress = Callable[[ParsedPage], None]


@dataclass(frozen=True, slots=True)
class Document:
    """All pages of what was parsed."""

    pages: tuple[ParsedPage, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(block for page in self.pages for block in page.blocks)

    def to_markdown(self) -> str:
        return "\n\n".join(filter(None, (page.to_markdown() for page in self.pages))) + "\n"

    def to_html(self) -> str:
        body = "\n".join(page.to_html() for page in self.pages)
        return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body>\n{body}\n</body></html>\n'


def parse(
    model: Generator,
    files: Documents,
    *,
    format: Format = "markdown",
    pages: Sequence[int] | None = None,
    dpi: float = DPI,
    pictures_to: Path | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Document:
    """Pictures or PDFs as blocks with type, box, page and reading order.

    `pictures_to`: a folder for the pictures of each page, cut out and linked. `resume`: a file that
    remembers finished pages, so that a run that was stopped goes on where it was. See `parse_pages`.
    """
    done = []
    for page in parse_pages(
        model, files, format=format, pages=pages, dpi=dpi, pictures_to=pictures_to, resume=resume,
        params=params, media=media,
    ):  # fmt: skip
        if progress:
            progress(page)
        done.append(page)
    return Document(tuple(done))


def parse_pages(
    model: Generator,
    files: Documents,
    *,
    format: Format = "markdown",
    pages: Sequence[int] | None = None,
    dpi: float = DPI,
    pictures_to: Path | None = None,
    resume: Path | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Iterator[ParsedPage]:
    """`parse`, page by page in order, as they are answered: the way to go through a long book."""
    if format not in get_args(Format):
        raise InvalidParams(f"format={format!r} is not one of {', '.join(get_args(Format))}")
    params = params or SamplingParams(max_tokens=MAX_TOKENS)
    known = _remembered(resume)
    asked: deque[tuple[int, tuple[int, int]]] = deque()
    broken: dict[int, Qwen3VLError] = {}

    def requests() -> Iterator[Request]:
        for page, picture in drawn(p for p in pages_of(files, dpi=dpi, pages=pages) if _key(p, format) not in known):
            if isinstance(picture, Qwen3VLError):
                broken[page.number] = picture
                continue
            asked.append((page.number, picture.size))
            yield _request(picture, format, params, media or within(model, USUAL[format]))

    answers = model.generate_many(requests())
    ahead: Completion | None = None
    for page in pages_of(files, dpi=dpi, pages=pages):
        stored = known.get(_key(page, format))
        if stored:
            parsed = _parsed(page, stored.size, Answer(stored.raw, stored.notes, ()), None, format)
        else:
            # Asking for the next answer draws pages up to the next sound one: then it is known what is broken.
            ahead = ahead or next(answers, None)
            if page.number in broken:
                parsed = _parsed(page, (1, 1), Answer("", (), ()), broken.pop(page.number), format)
            else:
                number, size = asked.popleft()
                assert ahead is not None and number == page.number, (number, page)
                parsed = _parsed(page, size, *_answer(model, page, ahead, format, params, media), format)
                ahead = None
        if pictures_to:
            parsed = parsed.with_pictures(page.draw, pictures_to)
        if resume and not stored and parsed.error is None:
            _remember(resume, page, format, parsed)
        yield parsed


def _request(picture: Image.Image, format: str, params: SamplingParams, media: MediaOptions | None) -> Request:
    return Request([Message("user", (ImagePart(picture), TextPart(PROMPTS[format])))], params, media)


def _answer(
    model: Generator,
    page: Page,
    completion: Completion,
    format: str,
    params: SamplingParams,
    media: MediaOptions | None,
) -> tuple[Answer, Qwen3VLError | None]:
    """The answer, or the error of this page alone; a generator without pixel limits is asked again without."""
    try:
        if isinstance(completion.error, UnsupportedOption) and media is None:
            request = _request(page.draw(), format, params, None)
            again = model.generate(request.messages, params)
            return answer_of(again, (f"the task's pixel limits were not used: {completion.error}",)), None
        return answer_of(completion), None
    except Qwen3VLError as error:
        return Answer("", (), ()), error


def _parsed(page: Page, size: tuple[int, int], answer: Answer, error: Exception | None, format: str) -> ParsedPage:
    raw = read_html(answer.text) if format == "html" else read_markdown(answer.text)
    blocks, notes = place_blocks(raw.blocks, size, page.number)
    complete = raw.complete and error is None and not any("max_tokens" in n for n in answer.notes)
    return ParsedPage(
        page.number, page.name, page.index, size, blocks, answer.text, (*answer.notes, *raw.notes, *notes), complete,
        str(error) if error else None, answer.receipts,
    )  # fmt: skip


# ----------------------------------------------------------------------------- going on after a stop


@dataclass(frozen=True, slots=True)
class _Stored:
    raw: str
    size: tuple[int, int]
    notes: tuple[str, ...]


def _key(page: Page, format: str) -> str:
    """What an answer belongs to: the page, how it was drawn and asked for, and the file as it was."""
    stamp: list[int] = []
    if isinstance(page.source, (str, os.PathLike)) and os.path.isfile(page.source):
        stat = os.stat(page.source)
        stamp = [stat.st_size, stat.st_mtime_ns]
    return json.dumps([page.name, page.index, page.number, page.dpi, format, *stamp])


def _remembered(resume: Path | None) -> dict[str, _Stored]:
    """Finished pages, one JSON line each; a line that a crash cut off is not finished."""
    known = {}
    if resume is not None and resume.exists():
        for line in resume.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
                entry = json.loads(line)
                width, height = entry["size"]
                known[entry["key"]] = _Stored(entry["raw"], (width, height), tuple(entry["notes"]))
    return known


def _remember(resume: Path, page: Page, format: str, parsed: ParsedPage) -> None:
    said = [note for note in parsed.notes if "max_tokens" in note]  # the rest is found again when it is read again
    entry = {"key": _key(page, format), "size": parsed.size, "notes": said, "raw": parsed.raw}
    with resume.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
