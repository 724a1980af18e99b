"""Makes pictures/coding.png with a real Chromium: python docs/tasks/make_coding_picture.py

The user's picture is the recorded page as Chromium draws it; the first scripted answer is that page without its
style sheet, the second is the recorded one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

from qwen3vl.tasks.coding import code
from qwen3vl.tasks.coding_render import render

ROOT = Path(__file__).parents[2]
HEIGHT, GAP, TITLE = 480, 16, 26


def main() -> None:
    page = answer("mmcode_5_html")
    screenshot = render(page, "html", viewport=(1000, 900)).image
    plain = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    script = [f"```html\n{source}\n```" for source in (plain, page)]
    made = code(FakeGenerator(script), screenshot, "html", rounds=3, viewport=(1000, 900))
    diagram = render((ROOT / "tests/fixtures/diagram.drawio").read_text(encoding="utf-8"), "drawio").image
    shown = [("the picture", screenshot)]
    shown += [(f"round {r.number}: likeness {r.similarity:.2f}", r.rendering) for r in made.rounds if r.rendering]
    shown += [("a diagram, drawn by maxGraph", diagram)]
    print(made.notes)
    strip([(title, fitted(picture)) for title, picture in shown]).save(
        Path(__file__).parent / "pictures" / "coding.png"
    )


def fitted(picture: Image.Image) -> Image.Image:
    scale = HEIGHT / picture.height
    return picture.resize((round(picture.width * scale), HEIGHT), Image.Resampling.LANCZOS)


def strip(shown: list[tuple[str, Image.Image]]) -> Image.Image:
    width = sum(picture.width + GAP for _, picture in shown) + GAP
    sheet = Image.new("RGB", (width, HEIGHT + TITLE + GAP), (230, 230, 235))
    draw, font, at = ImageDraw.Draw(sheet), ImageFont.load_default(15), GAP
    for title, picture in shown:
        draw.text((at, 5), title, font=font, fill="black")
        sheet.paste(picture, (at, TITLE))
        at += picture.width + GAP
    return sheet.quantize(64, dither=Image.Dither.NONE).convert("P")


if __name__ == "__main__":
    main()
