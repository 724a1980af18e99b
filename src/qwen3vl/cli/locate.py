"""`qwen3vl locate`: boxes around things in a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.settings import check_choice

if TYPE_CHECKING:
    from qwen3vl.tasks.grounding import Grounding

EXPORTS = ("coco", "yolo", "labelme")


@command
def locate(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture: file or URL.")],
    what: Annotated[str, Argument(metavar="WHAT", help='Categories, separated by commas: "red cars, people".')],
    attributes: Annotated[
        str | None, Option(help='What else to report of each thing, separated by commas: "type, color".')
    ] = None,
    draw: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the boxes on the picture.")] = None,
    export: Annotated[str | None, Option(help=f"Also write annotations: {', '.join(EXPORTS)}; needs --out.")] = None,
    out: Annotated[Path | None, Option(help="The file for --export; YOLO puts classes.txt beside it.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Find things in a picture, each with its box.

    \b
        qwen3vl locate street.jpg "cars, people" --attributes "color" --draw boxes.png
        car     12.0 301.5 420.8 566.1   color: red
        person  700.0 288.0 761.2 590.4  color: black
        2 boxes in street.jpg (1280 x 720)

    Boxes are left, top, right, bottom in pixels of the file, its EXIF orientation applied.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output
    from qwen3vl.errors import InvalidParams

    if export is not None:
        check_choice("--export", export, EXPORTS)
    if (export is None) != (out is None):
        raise InvalidParams("--export and --out need each other")
    output.check_out(out, "--out", [image], ("txt",) if export == "yolo" else ("json",))
    names = [name.strip() for name in attributes.split(",") if name.strip()] if attributes else None
    params, media = options.params(), look.media()
    output.check_picture_file(image)
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_grounding
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.grounding import locate as ask

    with asking(options) as asker:
        found = ask(asker.generator, image, what, attributes=names, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if canvas and draw:
        output.save_drawing(draw_grounding(canvas, found), draw, notes, written)
    if export and out:
        _export(found, image, export, out, written)
    if not options.as_json:
        say_boxes(found, image)
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)


def say_boxes(found: Grounding, image: str) -> None:
    """A line for each box, then how many there are."""
    from qwen3vl.cli.task_output import counted, say, say_table, show_attributes, show_box

    say_table([(b.label, show_box(b.box), show_attributes(b.attributes)) for b in found.boxes])
    say(f"{counted(len(found.boxes), 'box', 'boxes')} in {image} ({found.size[0]} x {found.size[1]})")


def _export(found: Grounding, image: str, export: str, out: Path, written: list[Path]) -> None:
    from qwen3vl.cli.task_output import save_text
    from qwen3vl.tasks.export import to_coco, to_labelme, to_yolo

    if export == "yolo":
        labels, names = to_yolo(found)
        save_text(labels, out, written)
        save_text("".join(name + "\n" for name in names), out.with_name("classes.txt"), written)
        return
    document = to_coco({Path(image).name: found}) if export == "coco" else to_labelme(found, image)
    save_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", out, written)
