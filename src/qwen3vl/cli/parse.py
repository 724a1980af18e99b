"""`qwen3vl parse`: documents as Markdown or HTML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from qwen3vl.cli.failures import FAILED
from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import check_choice

FORMATS = ("markdown", "html")


@command
def parse(
    files: Annotated[list[str], Argument(metavar="FILES...", help="PDFs and pictures, in order.")],
    format: Annotated[str, Option(help=f"Asked for and written: {' or '.join(FORMATS)}.")] = "markdown",
    pages: Annotated[str | None, Option(metavar="1-5,8", help="Only these pages, from 1 over all files.")] = None,
    out: Annotated[
        Path | None,
        Option(metavar="FILE|DIR", help="Write here, not to stdout; a folder gets a file a page."),
    ] = None,
    resume: Annotated[
        Path | None, Option(metavar="FILE", help="Remembers finished pages; run again to go on where it stopped.")
    ] = None,
    pictures: Annotated[Path | None, Option(metavar="DIR", help="Cut out the pages' pictures, and link them.")] = None,
    draw: Annotated[Path | None, Option(metavar="DIR", help="Draw the blocks on each page.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Turn PDFs and pictures of pages into Markdown or HTML.

    \b
        qwen3vl parse book.pdf --out book.md --resume book.pages --pictures book-pictures
        qwen3vl parse scan1.jpg scan2.jpg --format html --draw drawn > scans.html

    Pages come in order as they are finished. A page that fails is reported, the others go on; then the exit code
    is 1. --json prints all blocks with type, box in pixels of the page, and reading order.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output
    from qwen3vl.cli.parse_output import PageWriter
    from qwen3vl.tasks.documents import MAX_TOKENS, parse_pages

    check_choice("--format", format, FORMATS)
    params, media = options.params(MAX_TOKENS), look.media()
    wanted = read_pages(pages, output.check_documents(files))
    output.check_out(resume, "--resume", files)
    output.check_folder(pictures, "--pictures")
    output.check_folder(draw, "--draw")
    writer = PageWriter(format, files, out, draw, silent=options.as_json)  # type: ignore[arg-type]
    with asking(options) as asker, writer:
        asker.waiting.stage("Parsing", 0, len(wanted))
        for page in parse_pages(
            asker.generator,
            files,
            format=format,  # type: ignore[arg-type]
            pages=wanted,
            pictures_to=pictures,
            resume=resume,
            params=params,
            media=media,
        ):
            writer.take(page, asker.waiting)
            asker.waiting.stage("Parsing", writer.count, len(wanted))
    output.finish(asker, writer.document(), writer.notes, writer.written, as_json=options.as_json)
    if writer.failed:
        raise Exit(FAILED)


def read_pages(text: str | None, count: int) -> list[int]:
    """ "2-4,7" of 9 pages -> [2, 3, 4, 7]; None is all of them. Raises InvalidParams."""
    if text is None:
        return list(range(1, count + 1))
    wanted: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d*)\s*)?", piece)
        if match is None:
            raise InvalidParams(f"--pages {text}: {piece.strip()!r} is no page and no range such as 2-4")
        first = int(match[1])
        last = first if match[2] is None else int(match[2] or count)
        if not 1 <= first <= last <= count:
            raise InvalidParams(f"--pages {text}: {piece.strip()!r} is not within pages 1 to {count}")
        wanted.update(range(first, last + 1))
    return sorted(wanted)
