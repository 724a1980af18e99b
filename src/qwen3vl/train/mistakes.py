"""A sheet of mistakes to look at: each picture with the truth in green and the answer's places in orange."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from qwen3vl.errors import ParseError
from qwen3vl.tasks.fonts import runs
from qwen3vl.tasks.grounding import locate, point
from qwen3vl.tasks.ocr import read
from qwen3vl.train.evaluation import Mistake
from qwen3vl.train.replay import Replay
from qwen3vl.train.scoring_asked import Asked
from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.types import ImagePart, VideoPart

TRUTH, SAID = (0, 158, 115), (230, 120, 0)
TILE = 360
_LETTER = 12
_LINES = 7  # of text under a picture, for each of question, truth and answer


def draw_mistakes(mistakes: Sequence[Mistake], columns: int = 4) -> Image.Image:
    """Tiles side by side: picture, question, truth, answer. Long texts are cut, and say so."""
    assert mistakes
    tiles = [_tile(mistake) for mistake in mistakes]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (TILE * max(map(len, rows)), sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * TILE, top))
        top += height
    return sheet


def _tile(mistake: Mistake) -> Image.Image:
    shown = _drawn(mistake.sample, mistake.said)
    said = f"[{mistake.failure}] {mistake.said}" if mistake.failure else mistake.said
    texts: list[tuple[str, str | tuple[int, int, int]]] = [
        (mistake.sample.messages[-1].text, "black"),
        (mistake.sample.answer, TRUTH),
        (said or "[empty]", SAID),
    ]
    lines = [(line, colour) for text, colour in texts for line in _wrapped(text, TILE - 16)]
    step = _LETTER + 4
    tile = Image.new("RGB", (TILE, shown.height + len(lines) * step + 24), "white")
    tile.paste(shown, (8, 8))
    draw, y = ImageDraw.Draw(tile), shown.height + 8 + step
    for line, colour in lines:
        x = 8.0
        for run in runs(line, _LETTER)[0]:
            draw.text((x, y), run.text, font=run.font, fill=colour, anchor="ls")
            x += float(run.font.getlength(run.text))
        y += step
    draw.rectangle([0, 0, TILE - 1, tile.height - 1], outline=(200, 200, 200))
    return tile


def _drawn(sample: SyntheticSample, said: str) -> Image.Image:
    """The first picture, or the frame in the middle of the first clip, as large as the tile allows, with truth and
    answer drawn in. Lines are thin: what they lie on must stay to be seen."""
    part = sample.pictures[0] if sample.pictures else None
    picture = _picture(part)
    scale = min((TILE - 16) / picture.width, 300 / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = picture.convert("RGB").resize(size)
    draw = ImageDraw.Draw(shown)
    places = [] if isinstance(part, VideoPart) else [m.place for m in sample.marks if m.place and m.picture == 0]
    for place in places:
        _outline(draw, [v * scale for v in place], TRUTH, 2)
    for place in _places(sample, said) if isinstance(part, ImagePart) else ():
        _outline(draw, [v * scale for v in place], SAID, 1)
    return shown


def _outline(draw: ImageDraw.ImageDraw, place: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
    if len(place) == 4:
        draw.rectangle(list(place), outline=colour, width=width)
    else:
        x, y = place
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour, outline="white")


def _picture(part: ImagePart | VideoPart | None) -> Image.Image:
    source = None if part is None else part.image if isinstance(part, ImagePart) else part.video
    if isinstance(source, (list, tuple)) and source:
        source = source[len(source) // 2]
    return source if isinstance(source, Image.Image) else Image.new("RGB", (64, 64), "lightgrey")


def _places(sample: SyntheticSample, said: str) -> list[tuple[float, ...]]:
    """Boxes and points of the answer in pixels, as far as it has any."""
    asked, model = Asked(sample), Replay(said).generator
    try:
        if level := asked.spotting:
            return [b.box.corners for b in read(model, asked.picture, level=level).boxes]
        boxes: list[tuple[float, ...]] = [b.box.corners for b in locate(model, asked.picture, "anything").boxes]
        return boxes or [(p.point.x, p.point.y) for p in point(model, asked.picture, "anything").points]
    except ParseError:
        return []


def _wrapped(text: str, width: float) -> list[str]:
    """At most _LINES lines; a word wider than the tile is cut where it must be."""
    lines = [""]
    for word in " ".join(text.split()).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if _length(longer) <= width:
            lines[-1] = longer
            continue
        lines.append(word)
        while _length(lines[-1]) > width:
            cut = len(lines[-1])
            while _length(lines[-1][:cut]) > width:
                cut = cut * 3 // 4
            lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    lines = [line for line in lines if line]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], lines[_LINES - 1][:40] + " ..."]


def _length(text: str) -> float:
    return sum(float(run.font.getlength(run.text)) for run in runs(text, _LETTER)[0])
