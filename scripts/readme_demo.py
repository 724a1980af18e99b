"""Runs the demo with the small model and shows it in the README: what it printed, and a picture of what it drew.

python scripts/readme_demo.py
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import tempfile
from pathlib import Path

from PIL import Image

import qwen3vl

ROOT = Path(__file__).parents[1]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "pictures" / "demo.png"
BEGIN, END = "<!-- demo -->", "<!-- end of demo -->"
GAP = 12


def printed(model: qwen3vl.Generator, out: Path) -> str:
    """What the demo's steps print; where their drawings lie is left out."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(str(ROOT / "examples" / "demo.py"))["tour"](model, out)
    return re.sub(r"; drawn in .*", "", said.getvalue()).strip("\n")


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """On white, their tops level."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet, x = Image.new("RGB", (width, max(picture.height for picture in pictures)), (255, 255, 255)), 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP
    return sheet


def shown(text: str, readme: str) -> str:
    """The README with this between its markers."""
    before, rest = readme.split(BEGIN)
    link = "![What the small model found on a screenshot, and what it counted](docs/pictures/demo.png)"
    return f"{before}{BEGIN}\n\n```\n{text}\n```\n\n{link}\n\n{END}{rest.split(END)[1]}"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        text = printed(qwen3vl.load("small"), Path(folder))
        drawn = [Path(folder) / name for name in ("demo-button.png", "demo-count.png")]
        if missing := [path.name for path in drawn if not path.is_file()]:
            print(f"a step failed: {missing} were not drawn\n{text}", file=sys.stderr)
            return 1
        side_by_side([Image.open(path).convert("RGB") for path in drawn]).save(PICTURE, optimize=True)
    README.write_text(shown(text, README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
