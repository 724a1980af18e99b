"""Where parsed pages go, one at a time: stdout, a file, or a folder; and drawings of their blocks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from qwen3vl.cli import task_output as output
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import Qwen3VLError
from qwen3vl.tasks.blocks import ParsedPage
from qwen3vl.tasks.documents import Document, Format
from qwen3vl.tasks.export import as_json
from qwen3vl.tasks.pages import pages_of

_ENDINGS = {"markdown": "md", "html": "html"}


class PageWriter(AbstractContextManager["PageWriter"]):
    """Takes pages in order. Nothing but --json keeps them.

    Attributes:
        count, failed: pages so far.
        notes, written: for the end of the command.
    """

    def __init__(
        self, format: Format, files: Sequence[str], out: Path | None, draw: Path | None, *, silent: bool
    ) -> None:
        """`silent` keeps the pages for `document` instead of printing them. Raises InvalidParams."""
        self.format, self.files, self.out, self.draw, self.silent = format, files, out, draw, silent
        self.count = self.failed = 0
        self.notes: list[str] = []
        self.written: list[Path] = []
        self._kept: list[ParsedPage] = []
        self._file: IO[str] | None = None
        # A name without an ending is a folder: "out", "out/".
        self._folder = out if out is not None and (out.is_dir() or not out.suffix) else None
        output.check_folder(self._folder, "--out")
        if self._folder is None:
            output.check_out(out, "--out", files)
        # Document puts what a whole HTML file needs around its pages.
        self._head, self._tail = Document(()).to_html().split("<body>\n\n") if format == "html" else ("", "")
        self._head += "<body>\n" if format == "html" else ""

    def __enter__(self) -> PageWriter:
        if self.out is not None and self._folder is None:
            self._file = self.out.open("w", encoding="utf-8")
            self.written.append(self.out)
        elif self._folder is None and not self.silent:
            self._file = sys.stdout
        self._write(self._head)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(self._tail)
        if self._file is not None and self._file is not sys.stdout:
            self._file.close()

    def take(self, page: ParsedPage, waiting: Waiting) -> None:
        self.count += 1
        page = self._relinked(page)
        where = f"page {page.number} ({page.name})"
        if page.error is not None:
            self.failed += 1
            self.notes.append(f"{where} failed: {page.error}")
        elif not page.complete:
            self.notes.append(f"{where} is not complete")
        self.notes += [f"{where}: {note}" for note in page.notes]
        if self.silent:
            self._kept.append(page)
        elif self._file is not None and self._file is sys.stdout and sys.stdout.isatty():
            waiting.close()  # the bar and the text would write over each other
        self._put(page)
        if self.draw is not None and page.error is None:
            self._draw(page, self.draw)

    def document(self) -> dict[str, Any]:
        return as_json(Document(tuple(self._kept)))

    def _put(self, page: ParsedPage) -> None:
        text = page.to_html() if self.format == "html" else page.to_markdown()
        if self._folder is not None:
            path = self._folder / f"page-{page.number:04d}.{_ENDINGS[self.format]}"
            whole = Document((page,)).to_html() if self.format == "html" else text + "\n"
            output.save_text(whole, path, self.written)
        elif text:
            apart = "\n" if self.format == "markdown" and self.count > 1 else ""
            self._write(apart + text + "\n")

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.write(text)
            self._file.flush()

    def _relinked(self, page: ParsedPage) -> ParsedPage:
        """Links to pictures as seen from the file they stand in."""
        home = self._folder or (self.out.parent if self.out else None)
        if home is None:
            return page

        def seen(link: str) -> str:
            return Path(os.path.relpath(link, home)).as_posix()

        return replace(page, blocks=tuple(replace(b, picture=seen(b.picture)) if b.picture else b for b in page.blocks))

    def _draw(self, page: ParsedPage, folder: Path) -> None:
        from qwen3vl.tasks.draw import draw_page

        source = next(iter(pages_of(self.files, pages=[page.number])))
        path = folder / f"page-{page.number:04d}.png"
        try:
            output.save_drawing(draw_page(source.draw(), page), path, self.notes, self.written)
        except Qwen3VLError as error:
            self.notes.append(f"page {page.number} could not be drawn: {error}")
