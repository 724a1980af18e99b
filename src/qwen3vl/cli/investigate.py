"""`qwen3vl investigate`: the model zooms into a picture before it answers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from qwen3vl.cli.failures import FAILED
from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import Asker, asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.settings import check_integer

if TYPE_CHECKING:
    from qwen3vl.tasks.investigation import Investigation


@command
def investigate(
    image: Annotated[str, Argument(metavar="IMAGE", help="A picture file.")],
    question: Annotated[str, Argument(metavar="QUESTION", help="What to find out.")],
    draw: Annotated[Path | None, Option(metavar="OUT.png", help="Draw the places that were looked at.")] = None,
    crops: Annotated[Path | None, Option(metavar="DIR", help="Write what was looked at, as the model saw it.")] = None,
    max_steps: Annotated[int, Option(help="Most answers before the model has to decide.")] = 8,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Let the model zoom into a picture, as often as it needs, and answer.

    \b
        qwen3vl investigate street.jpg "What does the small sign say?" --draw looks.png
        looked at 1412.0 487.0 1624.0 756.0: the hanging sign
        It says "Hop Inn".

    Places are left, top, right, bottom in pixels of the file. What the answer claims beyond the places listed is
    not backed by a look. Exit codes: 0 done, 1 the work failed or no answer came, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    check_integer("--max-steps", max_steps, minimum=1)
    params, media = options.params(), look.media()
    output.check_picture_file(image)
    output.check_folder(crops, "--crops")
    canvas = output.picture_to_draw_on(image, draw)
    from qwen3vl.tasks.draw import draw_grounding
    from qwen3vl.tasks.grounding import Grounding, LocatedBox
    from qwen3vl.tasks.investigation import investigate as ask

    with asking(options) as asker:
        found = ask(asker.generator, image, question, max_steps=max_steps, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if found.answer is None:
        notes.append("no answer within the steps: unresolved")
    if canvas and draw:
        boxes = tuple(LocatedBox(f"{i} {seen.label}", seen.box, {}) for i, seen in enumerate(found.looks, start=1))
        drawing = draw_grounding(canvas, Grounding(boxes, canvas.size, "", (), True))
        output.save_drawing(drawing, draw, notes, written)
    for number, seen in enumerate(found.looks if crops else (), start=1):
        assert crops is not None
        output.save_picture(seen.image, crops / f"look-{number:02d}.png", written)
    if not options.as_json:
        for seen in found.looks:
            output.say(f"looked at {output.show_box(seen.box)}: {seen.label}")
        output.say(found.answer or "unresolved")
    output.finish(asker, _document(found, asker), notes, written, as_json=options.as_json)
    if found.answer is None:
        raise Exit(FAILED)


def _document(found: Investigation, asker: Asker) -> dict[str, Any]:
    """As JSON, with all raw answers, and the size instead of the pixels of what was shown."""
    from qwen3vl.tasks.export import as_json

    document = as_json(found)
    document["raw_answers"] = [completion.first.raw_text or completion.text for completion in asker.answers]
    document["receipts"] = [asdict(receipt) for receipt in asker.answers[-1].receipts]
    for look, seen in zip(document["looks"], found.looks, strict=True):
        del look["image"]
        look["shown_size"] = list(seen.image.size)
    return document
