"""`qwen3vl point`: points on things in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions


@command
def point(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture: file or URL.")],
    what: Annotated[str, Argument(metavar="WHAT", help='What to point at: "the free space on the table".')],
    attributes: Annotated[
        str | None, Option(help='What else to report of each thing, separated by commas: "role, shirt color".')
    ] = None,
    draw: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the points on the picture.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Point at things in a picture, or at a place where something can be done.

    \b
        qwen3vl point kitchen.jpg "the handle of the drawer" --draw points.png
        handle  512.4 388.0
        1 point in kitchen.jpg (1024 x 768)

    Points are x, y in pixels of the file, its EXIF orientation applied. Exit codes: 0 done, 1 the work failed,
    2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    names = [name.strip() for name in attributes.split(",") if name.strip()] if attributes else None
    params, media = options.params(), look.media()
    output.check_picture_file(image)
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_points
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.grounding import point as ask

    with asking(options) as asker:
        found = ask(asker.generator, image, what, attributes=names, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if canvas and draw:
        output.save_drawing(draw_points(canvas, found), draw, notes, written)
    if not options.as_json:
        rows = [
            (p.label, f"{p.point.x:.1f} {p.point.y:.1f}", output.show_attributes(p.attributes)) for p in found.points
        ]
        output.say_table(rows)
        number = output.counted(len(rows), "point", "points")
        output.say(f"{number} in {image} ({found.size[0]} x {found.size[1]})")
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)
