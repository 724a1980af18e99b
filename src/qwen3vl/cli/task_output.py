"""What the task commands print and write: lines for people or one JSON document, drawings, files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3vl.cli.output import Screen, tell
from qwen3vl.cli.task_model import Asker
from qwen3vl.errors import InvalidParams, MediaNotFound, Qwen3VLError
from qwen3vl.types import Delta

if TYPE_CHECKING:
    from PIL import Image

    from qwen3vl.tasks.coordinates import Box
    from qwen3vl.tasks.draw import Drawing


def say(line: str) -> None:
    """A line of the answer, on stdout."""
    Screen(show_reasoning=False).show(Delta(text=line + "\n"))


def say_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells in columns; all but the last column are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_box(box: Box) -> str:
    """x1 y1 x2 y2 in pixels, to a tenth."""
    return " ".join(f"{value:.1f}" for value in box.corners)


def counted(number: int, one: str, many: str) -> str:
    """ "1 box", "2 boxes"."""
    return f"{number} {one if number == 1 else many}"


def show_attributes(attributes: Any) -> str:
    return ", ".join(f"{name}: {value}" for name, value in attributes.items())


def finish(
    asker: Asker, document: dict[str, Any], notes: Iterable[str], written: Iterable[Path], *, as_json: bool
) -> None:
    """The end of a command: the one JSON document, or notes and written files on stderr.

    `document` is `tasks.export.as_json` of the result; the command has printed its lines for people already.
    """
    said, files = list(dict.fromkeys(notes)), [str(path) for path in written]
    if as_json:
        used: dict[str, Any] = {"model": asker.name, "usage": asdict(asker.usage)}
        if asker.answers:
            last = asker.answers[-1]
            used |= {"reasoning": last.reasoning, "raw": document.get("raw", last.text)}
        whole = {**document, "notes": said, "written": files, **used}
        print(json.dumps(whole, ensure_ascii=False, indent=2), flush=True)
        return
    for note in said:
        tell(f"note: {note}")
    for name in files:
        tell(f"written: {name}")


# ------------------------------------------------------------- before the model: files to read and to write


def check_picture_file(source: str) -> None:
    """Look at the header, so that a file that cannot be read is found before a checkpoint is. Raises MediaError."""
    from qwen3vl.cli.media import check_headers
    from qwen3vl.types import ImagePart

    check_headers([ImagePart(source)])


def check_video_file(source: str, *, local: bool) -> None:
    """The same for a video; `local` refuses a URL, since frames will be taken out of the file."""
    from qwen3vl.cli.media import check_headers
    from qwen3vl.types import VideoPart

    if local and not os.path.isfile(source):
        raise MediaNotFound(f"{source}: no such file (frames and clips are taken from local files only)")
    check_headers([VideoPart(source)])


def check_documents(sources: Sequence[str]) -> int:
    """How many pages there are. Raises a MediaError naming the file."""
    from qwen3vl.tasks.pages import count_pages, is_pdf

    for source in sources:
        if not is_pdf(source):
            check_picture_file(source)
    return count_pages(sources)


def check_out(path: Path | None, option: str, inputs: Sequence[str], endings: Sequence[str] = ()) -> None:
    """A file that can be written and is none of the `inputs`; `endings` ("png") are the allowed ones.

    Raises InvalidParams naming the option.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        raise InvalidParams(f"{option} {path}: " + ("is a folder" if path.is_dir() else "its folder does not exist"))
    if any(os.path.exists(source) and path.exists() and path.samefile(source) for source in inputs):
        raise InvalidParams(f"{option} {path}: is the input")
    if endings and path.suffix.lower().removeprefix(".") not in endings:
        raise InvalidParams(f"{option} {path}: the name must end in .{' or .'.join(endings)}")


def check_drawing(path: Path | None, option: str, inputs: Sequence[str]) -> None:
    """`check_out` for a picture. Raises InvalidParams."""
    check_out(path, option, inputs, ("png", "jpg", "jpeg", "webp"))


def check_folder(path: Path | None, option: str) -> None:
    """A folder to write into, made if it is not there. Raises InvalidParams."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise InvalidParams(f"{option} {path}: is no folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidParams(f"{option} {path}: cannot be made ({error})") from error


def picture_to_draw_on(source: str, path: Path | None, option: str = "--draw") -> Image.Image | None:
    """The picture upright, where a drawing is wanted; decoded before the model has worked. Raises MediaError."""
    if path is None:
        return None
    check_drawing(path, option, [source])
    from qwen3vl.tasks.pictures import open_picture

    return open_picture(source)


def save_drawing(drawing: Drawing, path: Path, notes: list[str], written: list[Path]) -> None:
    save_picture(drawing.image, path, written)
    notes += drawing.notes


def save_picture(picture: Image.Image, path: Path, written: list[Path]) -> None:
    """Raises Qwen3VLError naming the file."""
    try:
        picture.save(path)
    except (OSError, ValueError) as error:
        raise Qwen3VLError(f"{path}: cannot be written ({error})") from error
    written.append(path)


def save_text(text: str, path: Path, written: list[Path]) -> None:
    path.write_text(text, encoding="utf-8")
    written.append(path)
