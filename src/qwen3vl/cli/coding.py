"""`qwen3vl code`: pictures into web pages, diagrams, charts and drawings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.settings import check_choice, check_integer

if TYPE_CHECKING:
    from qwen3vl.tasks.coding import Code

ENDINGS = {"html": "html", "drawio": "drawio", "matplotlib": "py", "svg": "svg"}
MAX_TOKENS = 16384  # cookbooks/mmcode.ipynb


@command
def code(
    media_file: Annotated[str, Argument(metavar="IMAGE|VIDEO", help="A picture, or a video of a page in use.")],
    target: Annotated[str, Option(help=f"One of {', '.join(ENDINGS)}.")] = "html",
    out: Annotated[Path | None, Option(metavar="FILE", help="Write the code here instead of printing it.")] = None,
    render: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the code, and write the picture.")] = None,
    rounds: Annotated[int, Option(help="How often the model sees its drawing and mends it; pictures only.")] = 0,
    run: Annotated[bool, Option("--run", help="Allow Python code to run, in a subprocess with limits.")] = False,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Turn a picture into code: a web page, a Draw.io diagram, a matplotlib chart, an SVG.

    \b
        qwen3vl code page.png --out page.html --render drawn.png --rounds 2
        qwen3vl code chart.png --target matplotlib --run --render chart-again.png > chart.py

    HTML, Draw.io and SVG are drawn by Chromium with the network blocked. Python is never run without --run: it
    runs as you, with limits on time and memory, and is no sandbox against someone who means harm.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output
    from qwen3vl.cli.media import MediaPart, check_headers, part_of
    from qwen3vl.errors import InvalidParams

    check_choice("--target", target, tuple(ENDINGS))
    check_integer("--rounds", rounds, minimum=0)
    if run and target != "matplotlib":
        raise InvalidParams("--run is for --target matplotlib: nothing else is run")
    if target == "matplotlib" and (render or rounds) and not run:
        raise InvalidParams("--render and --rounds need --run for matplotlib: its picture comes from running the code")
    params, media = options.params(MAX_TOKENS), look.media()
    output.check_out(out, "--out", [media_file])
    output.check_drawing(render, "--render", [media_file])
    part: MediaPart = part_of(media_file)
    check_headers([part])
    from qwen3vl.tasks.coding import code as ask

    draw = render is not None or rounds > 0 or run
    with asking(options) as asker:
        found = ask(
            asker.generator,
            part,
            target,  # type: ignore[arg-type]
            rounds=rounds,
            run=run,
            draw=draw,
            params=params,
            media=media,
        )
    notes, written = [*found.notes, *found.problems], list[Path]()
    if out:
        output.save_text(found.source.rstrip("\n") + "\n", out, written)
    elif not options.as_json:
        output.say(found.source)
    if render and found.rendering is not None:
        output.save_picture(found.rendering, render, written)
    elif render:
        notes.append("the code could not be drawn")
    if found.similarity is not None:
        notes.append(f"likeness with the picture: {found.similarity:.3f} of 1")
    output.finish(asker, _document(found), notes, written, as_json=options.as_json)


def _document(found: Code) -> dict[str, Any]:
    """As JSON, with sizes instead of the pixels of renderings."""
    from qwen3vl.tasks.export import as_json

    document = as_json(found)
    pictures = [found.rendering, *(attempt.rendering for attempt in found.rounds)]
    for entry, picture in zip([document, *document["rounds"]], pictures, strict=True):
        entry["rendering"] = list(picture.size) if picture is not None else None
    return document
