"""`qwen3vl count`: how many there are, with the boxes as evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions


@command
def count(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture: file or URL.")],
    what: Annotated[str, Argument(metavar="WHAT", help='What to count: "people"; kinds behind commas are added.')],
    draw: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the boxes that were counted.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Count things in a picture; the boxes that were counted are the evidence.

    \b
        qwen3vl count shelf.jpg "bottles" --draw counted.png
        17

    Above about 40 things the model may merge clusters or stop early; an answer that was cut says so.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    params, media = options.params(), look.media()
    output.check_picture_file(image)
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_grounding
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.grounding import count as ask

    with asking(options) as asker:
        counted = ask(asker.generator, image, what, params=params, media=media)
    found = counted.grounding
    notes, written = list(found.notes), list[Path]()
    if not found.complete:
        notes.append("the answer was cut off: there may be more")
    if canvas and draw:
        output.save_drawing(draw_grounding(canvas, found), draw, notes, written)
    if not options.as_json:
        output.say(str(counted.number))
    output.finish(asker, as_json(counted), notes, written, as_json=options.as_json)
