"""`qwen3vl ask`: questions about documents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidRequest

MAX_TOKENS = 4096  # cookbooks/long_document_understanding.ipynb


@command
def ask(
    inputs: Annotated[list[str], Argument(metavar="FILES... QUESTION", help="PDFs and pictures, then the question.")],
    draw: Annotated[Path | None, Option(metavar="DIR", help="Write the cited pages as pictures.")] = None,
    cite: Annotated[bool, Option("--cite/--no-cite", help="Ask for the pages that the answer rests on.")] = True,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Ask about documents; the answer names the pages it rests on.

    \b
        qwen3vl ask report.pdf "How large was the revenue in 2023?"
        It was 12.4 million (page 7).
        pages cited: 7 of 30

    All pages are shown at once: a long document needs a long context (about 700 tokens a page).
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    if len(inputs) < 2 or os.path.exists(inputs[-1]) or not inputs[-1].strip():
        raise InvalidRequest('the question is missing: qwen3vl ask FILES... "QUESTION"')
    *files, question = inputs
    params, media = options.params(MAX_TOKENS), look.media()
    output.check_folder(draw, "--draw")
    output.check_documents(files)
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.pages import pages_of
    from qwen3vl.tasks.questions import ask as ask_pages

    with asking(options) as asker:
        found = ask_pages(asker.generator, files, question, cite=cite, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if draw is not None and not found.pages:
        notes.append("the answer cites no page: nothing was drawn")
    for page in pages_of(files, pages=found.pages) if draw is not None else ():
        assert draw is not None
        output.save_picture(page.draw(), draw / f"page-{page.number:04d}.png", written)
    if not options.as_json:
        output.say(found.text)
        if found.pages:
            output.say(f"pages cited: {', '.join(map(str, found.pages))} of {found.num_pages}")
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)
