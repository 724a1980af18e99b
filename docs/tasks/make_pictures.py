"""Makes the pictures of these pages: python docs/tasks/make_pictures.py

The scenes are drawn here; the answers are recorded ones where they fit, else written for the scene.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import av
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

from qwen3vl.tasks.clips import contact_sheet, overlay_video, sample_frames
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.documents import parse
from qwen3vl.tasks.draw import Drawing, draw_3d, draw_grounding, draw_page, draw_points, draw_reading
from qwen3vl.tasks.extraction import PLACES, extract
from qwen3vl.tasks.fonts import runs
from qwen3vl.tasks.grounding import Grounding, LocatedBox, locate, point
from qwen3vl.tasks.investigation import investigate
from qwen3vl.tasks.ocr import TextBox, read
from qwen3vl.tasks.spatial import Intrinsics, locate_3d
from qwen3vl.tasks.video import locate_in_video, watch
from qwen3vl.types import ToolCall

PICTURES = Path(__file__).parent / "pictures"
FACES = (
    (0, 1, 3, 2),
    (4, 5, 7, 6),
    (0, 1, 5, 4),
    (2, 3, 7, 6),
    (0, 2, 6, 4),
    (1, 3, 7, 5),
)  # of corners
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
    camera = Intrinsics(1266.417, 1266.417, 816.267, 491.507)
    cars = locate_3d(FakeGenerator(answer("3d_11_autonomous_driving")), picture, "cars", intrinsics=camera).boxes
    for car in sorted(cars, key=lambda car: -car.box.centre[2]):
        assert car.projected is not None
        far_to_near = sorted(FACES, key=lambda face: -sum(car.corners[i][2] for i in face))
        for shade, face in zip((70, 80, 90, 150, 170, 190), far_to_near, strict=True):
            corners = [(car.projected[i].x, car.projected[i].y) for i in face]
            draw.polygon(corners, fill=(shade, shade // 2, shade // 2), outline=(60, 30, 30))
    return picture, camera


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
        (line.box.x1, line.box.y2 - (line.box.height - 0.72 * size) / 2),
        line.text,
        font=runs(line.text, size)[0][0].font,
        fill=(40, 40, 50),
        anchor="ls",
    )


REPORT = (  # kind, box in 1/1000 of the page, text
    ("text", (80, 60, 620, 110), "Orchard report 2024"),
    ("text", (80, 130, 920, 162), "The harvest was early and large. Apples stayed below the plan, pears above it."),
    ("text", (80, 168, 700, 200), "Rain in May helped the plums, which were picked in August."),
    ("table", (80, 220, 560, 400), "Fruit|Tonnes|Plan;Apples|412|450;Pears|288|260;Plums|97|80"),
    ("image", (600, 220, 920, 400), ""),
    ("text", (600, 412, 920, 440), "Figure 1: the stall in September"),
    ("text", (80, 480, 920, 512), "Next year two more fields will carry fruit, so that the plan is raised by a tenth."),
    ("text", (80, 550, 200, 574), "Page 1 of 1"),
)


def report() -> tuple[Image.Image, str]:
    """A page drawn from REPORT, and the `qwenvl html` answer that describes it."""
    page = Image.new("RGB", (900, 1200), "white")
    draw, divs = ImageDraw.Draw(page), []
    for kind, (x1, y1, x2, y2), text in REPORT:
        box = Box(x1 * 0.9, y1 * 1.2, x2 * 0.9, y2 * 1.2)
        inside = text
        if kind == "table":
            rows = [row.split("|") for row in text.split(";")]
            _grid(draw, box, rows)
            inside = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
            inside = f"<table>{inside}</table>"
        elif kind == "image":
            page.paste(table()[0].resize((round(box.width), round(box.height))), (round(box.x1), round(box.y1)))
        else:
            _print(draw, TextBox(text, box))
        divs.append(f'<div class="{kind}" data-bbox="{x1} {y1} {x2} {y2}">{inside}</div>')
    return page, "<html><body>" + "\n".join(divs) + "</body></html>"


def _grid(draw: ImageDraw.ImageDraw, box: Box, rows: list[list[str]]) -> None:
    across, down = box.width / len(rows[0]), box.height / len(rows)
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            x, y = box.x1 + column * across, box.y1 + row * down
            draw.rectangle([x, y, x + across, y + down], outline=(150, 150, 150))
            font = runs(cell, 20)[0][0].font
            draw.text((x + 10, y + down * 0.65), cell, font=font, fill=(40, 40, 50), anchor="ls")


def film(path: Path) -> None:
    """Six seconds: an apple rolls from the left to the right, and rests from 2 s to 4 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 200, "yuv420p", 4_000_000
        for number in range(60):
            picture = Image.new("RGB", (320, 200), (222, 206, 180))
            draw = ImageDraw.Draw(picture)
            draw.rectangle([0, 140, 320, 200], fill=(168, 120, 80))
            x = apple_at(number / 10)
            draw.ellipse([x - 25, 95, x + 25, 145], fill=FRUIT[0][1], outline=(60, 40, 30), width=2)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def apple_at(time: float) -> float:
    """The middle of the apple, in pixels from the left: 40 at 0 s, 160 at 2 s and at 4 s, 280 at 6 s."""
    return 40 + 60 * (time if time < 2 else 2 if time < 4 else time - 2)


EVENTS = json.dumps(
    {
        "00:00.00 - 00:02.00": "An apple rolls in from the left.",
        "00:02.00 - 00:04.00": "The apple rests in the middle of the table.",
        "00:04.00 - 00:06.00": "It rolls on to the right.",
    }
)


def video_pictures() -> None:
    """sheet.png, and tracked.png: frames of the overlay video side by side."""
    with tempfile.TemporaryDirectory() as folder:
        path, drawn = Path(folder) / "apple.mp4", Path(folder) / "drawn.mp4"
        film(path)
        sheet = contact_sheet(path, watch(FakeGenerator(EVENTS), path, duration=6.0).moments, columns=3)
        save("sheet", Drawing(sheet, ()))
        frames, times = sample_frames(path, fps=2)
        entries = []
        for time in times:
            x1, x2 = (round((apple_at(time) + side) / 320 * 1000) for side in (-25, 25))
            entries.append({"time": round(time, 1), "bbox_2d": [x1, 475, x2, 725], "label": "apple"})
        found = locate_in_video(FakeGenerator(json.dumps(entries)), frames, times, "the apple")
        assert len(found.boxes) == len(times) == 12
        overlay_video(path, found, drawn)
        seconds = sample_frames(drawn, fps=1)[0]
        strip = Image.new("RGB", (3 * 320 + 20, 200), "white")
        for number, frame in enumerate((seconds[0], seconds[2], seconds[5])):
            strip.paste(frame, (number * 330, 0))
        save("tracked", Drawing(strip, ()))


def places(paper: Image.Image) -> Drawing:
    """Where the values of the recorded form stand, by the recorded lines."""
    lines = json.loads(answer("ocr_line_spotting").strip("`json\n"))
    form = json.loads(answer("ocr_kie_receipt"))
    where = {
        name: {"page": 1, "bbox_2d": line["bbox_2d"]}
        for name, value in form.items()
        for line in lines
        if value == line["text_content"] or (name == "date" and line["text_content"].startswith(value))
    }
    script = FakeGenerator(json.dumps({**form, PLACES: where}))
    found = extract(script, paper, dict.fromkeys(form, ""), places=True)
    assert {"company", "date", "total"} <= found.places.keys(), found.places
    boxes = tuple(LocatedBox(f"{name}: {found.value[name]}", place.box, {}) for name, place in found.places.items())
    return draw_grounding(paper, Grounding(boxes, paper.size, found.raw, (), True))


def zoom(picture: Image.Image) -> Image.Image:
    """A picture with the place that was looked at, and beside it what the model was shown of it."""
    call = ToolCall("image_zoom_in_tool", {"bbox_2d": [30, 440, 210, 720], "label": "left apple", "img_idx": 0})
    look = investigate(FakeGenerator([call, "An apple."]), picture, "What is on the left?").looks[0]
    both = Image.new("RGB", (800 + look.image.width + 20, max(500, look.image.height)), "white")
    shown = picture.copy()
    ImageDraw.Draw(shown).rectangle(look.box.corners, outline="black", width=3)
    both.paste(shown, (0, 0))
    both.paste(look.image, (820, 0))
    return both


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    picture, boxes, points = table()
    save("boxes", draw_grounding(picture, locate(FakeGenerator(boxes), picture, "fruit")))
    save("points", draw_points(picture, point(FakeGenerator(points), picture, "fruit")))
    save("zoom", Drawing(zoom(picture), ()))
    road, camera = street()
    cars = locate_3d(FakeGenerator(answer("3d_11_autonomous_driving")), road, "cars", intrinsics=camera)
    drawing = draw_3d(road, cars)
    save("wireframes", Drawing(drawing.image.resize((800, 450), Image.Resampling.LANCZOS), drawing.notes))
    paper = receipt()
    drawing = draw_reading(paper, read(FakeGenerator(answer("ocr_line_spotting")), paper, level="line"))
    save("lines", Drawing(drawing.image.resize((870, 699), Image.Resampling.LANCZOS), drawing.notes))
    drawing = places(paper)
    save("places", Drawing(drawing.image.crop((0, 0, 870, 1020)).resize((580, 680), Image.Resampling.LANCZOS), ()))
    page, said = report()
    save("cited", Drawing(page.crop((0, 0, 900, 720)).resize((600, 480), Image.Resampling.LANCZOS), ()))
    drawing = draw_page(page, parse(FakeGenerator(said), page, format="html").pages[0])
    save("page", Drawing(drawing.image.crop((0, 0, 900, 720)), drawing.notes))
    video_pictures()


if __name__ == "__main__":
    main()
