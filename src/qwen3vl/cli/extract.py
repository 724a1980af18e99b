"""`qwen3vl extract`: a form filled in from pictures and documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidParams

if TYPE_CHECKING:
    from qwen3vl.tasks.extraction import Extraction

MAX_TOKENS = 4096


@command
def extract(
    files: Annotated[list[str], Argument(metavar="FILES...", help="PDFs and pictures, all seen together.")],
    fields: Annotated[str | None, Option(help='Names of the values: "company, date, total".')] = None,
    schema: Annotated[Path | None, Option(metavar="FILE.json", help="A JSON Schema that the object must fit.")] = None,
    places: Annotated[bool, Option("--places", help="Also ask where each value stands.")] = False,
    draw: Annotated[
        Path | None, Option(metavar="DIR", help="Draw the places on their pages; takes --places with it.")
    ] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Fill in a form: values by name, or any object that a JSON Schema describes. Prints the object as JSON.

    \b
        qwen3vl extract receipt.jpg --fields "company, date, total"
        {"company": "UNIHAKKA INTERNATIONAL SDN BHD", "date": "01 Jun 2018", "total": "RM8.75"}
        qwen3vl extract invoice.pdf --schema invoice.schema.json --draw places

    An answer that does not fit is sent back once with what is wrong; if it still does not fit, that is an error.
    --json prints the object under "value", with places, raw answer and receipts.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    form = _form(fields, schema)
    params, media = options.params(MAX_TOKENS), look.media()
    output.check_folder(draw, "--draw")
    output.check_documents(files)
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.extraction import extract as ask
    from qwen3vl.tasks.extraction import schema_of

    schema_of(form)  # a schema that cannot be checked is found before the model is
    with asking(options) as asker:
        found = ask(asker.generator, files, form, places=places or draw is not None, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if draw is not None:
        _draw(found, files, draw, notes, written)
    if not options.as_json:
        output.say(json.dumps(found.value, ensure_ascii=False, indent=2))
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)


def _form(fields: str | None, schema: Path | None) -> dict[str, Any]:
    if (fields is None) == (schema is None):
        raise InvalidParams("give either --fields or --schema")
    if fields is not None:
        names = [name.strip() for name in fields.split(",") if name.strip()]
        if not names:
            raise InvalidParams("--fields is empty")
        return dict.fromkeys(names, "")
    assert schema is not None
    try:
        form = json.loads(schema.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidParams(f"--schema {schema}: cannot be read ({error})") from error
    if not isinstance(form, dict) or not form:
        raise InvalidParams(f"--schema {schema}: is no JSON Schema of an object")
    return form


def _draw(found: Extraction, files: list[str], folder: Path, notes: list[str], written: list[Path]) -> None:
    from qwen3vl.cli.task_output import save_drawing
    from qwen3vl.tasks.draw import draw_grounding
    from qwen3vl.tasks.grounding import Grounding, LocatedBox
    from qwen3vl.tasks.pages import pages_of

    if not found.places:
        notes.append("the model gave no places: nothing was drawn")
    for page in pages_of(files, pages=sorted({place.page for place in found.places.values()})):
        picture = page.draw()
        on_page = [(name, place) for name, place in found.places.items() if place.page == page.number]
        boxes = tuple(LocatedBox(name, place.box, {}) for name, place in on_page)
        drawing = draw_grounding(picture, Grounding(boxes, picture.size, found.raw, (), True))
        save_drawing(drawing, folder / f"page-{page.number:04d}.png", notes, written)
