"""Makes the pictures of these pages: python docs/tasks/make_pictures.py

The scenes are drawn here; the answers are recorded ones where they fit, else written for the scene.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

from qwen3vl.tasks.documents import parse
from qwen3vl.tasks.draw import Drawing, draw_3d, draw_grounding, draw_page, draw_points, draw_reading
from qwen3vl.tasks.fonts import runs
from qwen3vl.tasks.grounding import locate, point
from qwen3vl.tasks.investigation import investigate
from qwen3vl.tasks.ocr import TextBox, read
from qwen3vl.tasks.spatial import Intrinsics, locate_3d
from qwen3vl.types import ToolCall

PICTURES = Path(__file__).parent / "pictures"
FRUIT = (("apple", (196, 60, 60)), ("pear", (150, 180, 60)), ("plum", (110, 60, 130)), ("orange", (226, 140, 40)))


def save(name: str, drawing: Drawing) -> None:
    assert not drawing.notes, drawing.notes
    drawing.image.quantize(64, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


def table() -> tuple[Image.Image, str, str]:
    """Fruit on a table, and the answers with boxes and with points that a model would give."""
    picture = Image.new("RGB", (800, 500), (222, 206, 180))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 330, 800, 500], fill=(168, 120, 80))
    boxes, points = [], []
    for number in range(9):
        name, colour = FRUIT[number % 4]
        x, y, r = 90 + (number % 5) * 155, 300 + (number // 5) * 110 - 30 * (number % 2), 42 + 5 * (number % 3)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=(60, 40, 30), width=2)
        draw.line([x, y - r, x + 8, y - r - 16], fill=(70, 50, 30), width=4)
        scale = [1000 / 800, 1000 / 500] * 2
        box = [round(v * s) for v, s in zip((x - r, y - r - 16, x + r, y + r), scale, strict=True)]
        boxes.append({"bbox_2d": box, "label": name})
        points.append({"point_2d": [round(x * 1.25), round(y * 2)], "label": name})
    return picture, json.dumps(boxes), json.dumps(points)


def street() -> tuple[Image.Image, Intrinsics]:
    """A road with two solid boxes where the recorded answer has its cars."""
    picture = Image.new("RGB", (1600, 900), (150, 180, 210))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, 900), (820, 470), (900, 470), (1600, 900)], fill=(110, 110, 115))
    return picture, Intrinsics(1266.417, 1266.417, 816.267, 491.507)


def receipt() -> Image.Image:
    """The recorded lines, printed where they were read."""
    picture = Image.new("RGB", (870, 1398), "white")
    draw = ImageDraw.Draw(picture)
    for line in read(FakeGenerator(answer("ocr_line_spotting")), picture, level="line").boxes:
        _print(draw, line)
    return picture


def _print(draw: ImageDraw.ImageDraw, line: TextBox) -> None:
    size = max(8, round(line.box.height * 0.8))
    piece = runs(line.text, size)[0][0]
    size = max(8, round(size * min(1.0, line.box.width / float(piece.font.getlength(line.text)))))
    draw.text(
        (line.box.x1, line.box.y2 - size * 0.25),
        line.text,
        font=runs(line.text, size)[0][0].font,
        fill=(40, 40, 50),
        anchor="ls",
    )


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    picture, boxes, points = table()
    save("boxes", draw_grounding(picture, locate(FakeGenerator(boxes), picture, "fruit")))
    save("points", draw_points(picture, point(FakeGenerator(points), picture, "fruit")))
    road, camera = street()
    save(
        "wireframes",
        draw_3d(road, locate_3d(FakeGenerator(answer("3d_11_autonomous_driving")), road, "cars", intrinsics=camera)),
    )
    paper = receipt()
    drawing = draw_reading(paper, read(FakeGenerator(answer("ocr_line_spotting")), paper, level="line"))
    save("lines", Drawing(drawing.image.resize((870, 699), Image.Resampling.LANCZOS), drawing.notes))
    page = Image.new("RGB", (1376, 1920), "white")
    drawing = draw_page(page, parse(FakeGenerator(answer("docparse_html")), page, format="html").pages[0])
    save("page", Drawing(drawing.image.resize((688, 960), Image.Resampling.LANCZOS), drawing.notes))
    call = ToolCall("image_zoom_in_tool", {"bbox_2d": [30, 440, 210, 720], "label": "left apple", "img_idx": 0})
    look = investigate(FakeGenerator([call, "An apple."]), picture, "What is on the left?").looks[0]
    both = Image.new("RGB", (800 + look.image.width + 20, max(500, look.image.height)), "white")
    shown = picture.copy()
    ImageDraw.Draw(shown).rectangle(look.box.corners, outline="black", width=3)
    both.paste(shown, (0, 0))
    both.paste(look.image, (820, 0))
    save("zoom", Drawing(both, ()))


if __name__ == "__main__":
    main()
