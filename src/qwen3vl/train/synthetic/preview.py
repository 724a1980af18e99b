"""Contact sheets of the generator: samples of a task with their truth drawn in, to be looked at.

Each cell shows the picture with its marks (boxes and points in red, labels beside them), the question and the
exact answer. A clip is shown as its first, last and some frames between, each with its time.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from qwen3vl.tasks.fonts import runs
from qwen3vl.train.synthetic.registry import make_sample, tasks
from qwen3vl.train.synthetic.sample import Mark, Side, SyntheticSample
from qwen3vl.types import ImagePart, VideoPart

SHEET_WIDTH = 1600
FRAMES = 6  # of a clip
_GAP, _SIZE, _LINES = 10, 12, 14
_RED, _BLUE, _GREY = (225, 20, 40), (20, 60, 200), (90, 90, 90)


def write_previews(folder: Path, names: Sequence[str] | None, count: int, seed: int, side: Side) -> list[Path]:
    """Writes `folder`/TASK.png for each named task (None: all), with samples 0..count-1 of the side, and gives the
    files. Raises InvalidParams for an unknown task."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in list(tasks()) if names is None else names:
        path = folder / f"{name}.png"
        contact_sheet(make_sample(name, side, seed, index) for index in range(count)).save(path)
        written.append(path)
    return written


def contact_sheet(samples: Iterable[SyntheticSample]) -> Image.Image:
    """All samples on one picture, row by row."""
    cells = [cell(sample) for sample in samples]
    places, x, y, tall = [], _GAP, _GAP, 0
    for picture in cells:
        if x > _GAP and x + picture.width + _GAP > SHEET_WIDTH:
            x, y, tall = _GAP, y + tall + _GAP, 0
        places.append((x, y))
        x, tall = x + picture.width + _GAP, max(tall, picture.height)
    sheet = Image.new("RGB", (SHEET_WIDTH, y + tall + _GAP), (205, 208, 212))
    for picture, place in zip(cells, places, strict=True):
        sheet.paste(picture, place)
    return sheet


def cell(sample: SyntheticSample) -> Image.Image:
    """One sample: its pictures side by side, then question and answer."""
    shown = [frame for at, part in enumerate(sample.pictures) for frame in _shown(part, at, sample.marks)]
    wide = max(sum(p.width + 4 for p in shown), 300)
    room = max(wide // 7, 40)
    question = " ".join(m.text for m in sample.messages if m.role == "user")
    lines = [(text, _BLUE) for text in _folded(question, room, 5)]
    lines += [(text, (0, 0, 0)) for text in _folded(sample.answer, room, _LINES)]
    lines += [(f"{type(sample.truth).__name__}  {sample.key}", _GREY)]
    tall = max((p.height for p in shown), default=0)
    made = Image.new("RGB", (wide, tall + (_SIZE + 4) * len(lines) + 6), (255, 255, 255))
    x = 0
    for picture in shown:
        made.paste(picture, (x, 0))
        x += picture.width + 4
    for at, (text, colour) in enumerate(lines):
        write_label(ImageDraw.Draw(made), 3, tall + 3 + at * (_SIZE + 4), text, colour)
    return made


def _folded(text: str, room: int, most: int) -> list[str]:
    lines = [piece for line in text.expandtabs(2).split("\n") for piece in textwrap.wrap(line, room) or [""]]
    return lines if len(lines) <= most else [*lines[: most - 1], f"... ({len(lines) - most + 1} more lines)"]


def _shown(part: ImagePart | VideoPart, at: int, marks: Sequence[Mark]) -> list[Image.Image]:
    """The picture with its marks, or some frames of a clip with those that hold at their time."""
    mine = [m for m in marks if m.picture == at]
    if isinstance(part, ImagePart):
        return [_marked(_picture(part.image), mine)]
    assert not isinstance(part.video, (str, bytes)), "a synthetic clip is a list of frames"
    frames: list[Any] = list(part.video)  # type: ignore[arg-type]
    made = []
    for index in sorted({round(i * (len(frames) - 1) / (FRAMES - 1)) for i in range(FRAMES)}):
        time = part.frame_times[index] if part.frame_times else index / (part.frame_rate or 1.0)
        holding = [m for m in mine if m.time is None or m.time[0] <= time <= m.time[1]]
        picture = _marked(_picture(frames[index]), holding)
        write_label(ImageDraw.Draw(picture), 2, picture.height - _SIZE - 4, f"{time:.2f} s", _RED)
        made.append(picture)
    return made


def _picture(source: Any) -> Image.Image:
    picture = source if isinstance(source, Image.Image) else Image.fromarray(np.asarray(source))
    return picture.convert("RGB")


def _marked(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """A copy with a border for the labels, enlarged if it is small; box edges lie just outside what they hold."""
    zoom = 3 if picture.width <= 128 else 2 if picture.width <= 320 else 1
    grown = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
    made = ImageOps.expand(grown, (1, _SIZE + 2, 1, 2), (235, 235, 235))
    draw = ImageDraw.Draw(made)
    for mark in marks:
        at = [v * zoom for v in mark.place]
        if len(at) == 4:
            x1, y1, x2, y2 = at[0], at[1] + _SIZE + 1, at[2] + 1, at[3] + _SIZE + 2
            draw.rectangle((round(x1), round(y1), round(x2), round(y2)), None, _RED)
            at = [x1, y1]
        elif len(at) == 2:
            x, y = at[0] + 1, at[1] + _SIZE + 2
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), None, _RED, 2)
            draw.point((x, y), _RED)
            at = [x + 5, y]
        if mark.label and len(marks) <= 12:
            x, y = at[:2] or (2, 1 + _SIZE)
            write_label(draw, x, y, mark.label, _RED, above=True)
    return made


def write_label(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: tuple[int, int, int], above: bool = False
) -> None:
    """A line of text in fonts that have its letters, its top (or with `above` its bottom) at y."""
    pieces, _ = runs(text, _SIZE)
    for run in pieces:
        draw.text((x, y - _SIZE - 1 if above else y), run.text, fill=colour, font=run.font)
        x += run.font.getlength(run.text)
