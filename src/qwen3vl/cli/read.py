"""`qwen3vl read`: the text of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import check_choice

LEVELS = ("page", "line", "word")
MAX_TOKENS = 4096  # a dense page


@command
def read(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture: file or URL.")],
    level: Annotated[
        str | None,
        Option(help="page (text alone), or line, word (with boxes) [default: page; line to draw]."),
    ] = None,
    draw: Annotated[
        Path | None, Option(metavar="OUT.png", help="Draw the boxes, and beside the picture what was read.")
    ] = None,
    pdf: Annotated[Path | None, Option(metavar="OUT.pdf", help="Write a PDF whose text can be searched.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Read the text in a picture.

    \b
        qwen3vl read letter.jpg > letter.txt
        qwen3vl read receipt.jpg --level line --draw lines.png --pdf receipt.pdf

    With lines or words, each is printed behind its box: left, top, right, bottom in pixels of the file.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    placed = "line" if draw or pdf else "page"
    check_choice("--level", level := level or placed, LEVELS)
    if level == "page" and (draw or pdf):
        raise InvalidParams("--draw and --pdf need places: --level line or word")
    params, media = options.params(MAX_TOKENS), look.media()
    output.check_out(pdf, "--pdf", [image], ("pdf",))
    output.check_picture_file(image)
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_reading
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.ocr import read as ask
    from qwen3vl.tasks.searchable import write_searchable_pdf

    with asking(options) as asker:
        found = ask(asker.generator, image, level=level, params=params, media=media)  # type: ignore[arg-type]
    notes, written = list(found.notes), list[Path]()
    if canvas and draw:
        output.save_drawing(draw_reading(canvas, found), draw, notes, written)
    if pdf:
        write_searchable_pdf([(image, found)], pdf)
        written.append(pdf)
    if not options.as_json and level == "page":
        output.say(found.text)
    elif not options.as_json:
        output.say_table([(output.show_box(b.box), b.text) for b in found.boxes])
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)
