"""`qwen3vl locate-3d`: boxes in space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidParams

if TYPE_CHECKING:
    from qwen3vl.tasks.spatial import Intrinsics

DEFAULT_FOV = 60.0


@command
def locate_3d(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture: file or URL.")],
    what: Annotated[str, Argument(metavar="WHAT", help='What to find: "cars".')],
    fov: Annotated[
        float | None,
        Option(help=f"Horizontal angle of the camera in degrees [default: {DEFAULT_FOV:g}]."),
    ] = None,
    intrinsics: Annotated[
        str | None, Option(metavar="FX,FY,CX,CY", help="The camera, in pixels of the file; instead of --fov.")
    ] = None,
    draw: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the boxes as wires on the picture.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Find things in space: centre and size in metres, angles in degrees.

    \b
        qwen3vl locate-3d street.jpg "cars" --intrinsics 1266.4,1266.4,816.3,491.5 --draw wires.png
        car  at 2.88 0.56 6.28 m  size 4.45 1.70 1.84 m  turned by 135 88 135 degrees

    x points right, y down, z away from the camera; the angles turn about x, then y, then z. The camera changes
    only where the boxes are drawn, not what the model says. Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    if intrinsics is not None and fov is not None:
        raise InvalidParams("--fov and --intrinsics exclude each other: give one of them")
    if fov is not None and not 0 < fov < 180:
        raise InvalidParams(f"--fov {fov:g} is outside (0, 180) degrees")
    camera = _camera(intrinsics) if intrinsics is not None else None
    params, media = options.params(), look.media()
    output.check_picture_file(image)
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_3d
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.spatial import locate_3d as ask

    with asking(options) as asker:
        found = ask(asker.generator, image, what, intrinsics=camera, fov=fov or DEFAULT_FOV, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if canvas and draw:
        output.save_drawing(draw_3d(canvas, found), draw, notes, written)
    if not options.as_json:
        for item in found.boxes:
            at, size = (" ".join(f"{v:.2f}" for v in triple) for triple in (item.box.centre, item.box.size))
            turned = " ".join(f"{angle:g}" for angle in item.box.angles)
            output.say(f"{item.label}  at {at} m  size {size} m  turned by {turned} degrees")
        number = output.counted(len(found.boxes), "box", "boxes")
        output.say(f"{number} in {image} ({found.size[0]} x {found.size[1]})")
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)


def _camera(text: str) -> Intrinsics:
    from qwen3vl.tasks.spatial import Intrinsics

    try:
        fx, fy, cx, cy = (float(number) for number in text.split(","))
    except ValueError:
        raise InvalidParams(f"--intrinsics {text}: four numbers are needed, fx,fy,cx,cy") from None
    if not (fx > 0 and fy > 0):
        raise InvalidParams(f"--intrinsics {text}: fx and fy must be above 0")
    return Intrinsics(fx, fy, cx, cy)
