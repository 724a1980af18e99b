"""The README shows the demo as it prints, between its markers and nowhere else."""

from __future__ import annotations

import runpy
from pathlib import Path

from PIL import Image

from tests.contract.test_examples import true_answers
from tests.fixtures.fake_generator import FakeGenerator

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "readme_demo.py"))


def test_what_is_written(tmp_path: Path) -> None:
    text = SCRIPT["printed"](FakeGenerator(true_answers()), tmp_path)
    assert text.startswith("1  Read a receipt") and "5  Tell when" in text and "drawn in" not in text
    before, _, after = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- end of demo -->")
    written = SCRIPT["shown"](text, before + "<!-- end of demo -->" + after)
    assert written.endswith(after) and written.startswith(before.split("<!-- demo -->")[0])
    assert text in written and written.count("docs/pictures/demo.png") == 1
    assert SCRIPT["shown"](text, written) == written


def test_drawings_stand_side_by_side(tmp_path: Path) -> None:
    sheet = SCRIPT["side_by_side"]([Image.new("RGB", (30, 20)), Image.new("RGB", (10, 40), (9, 9, 9))])
    assert sheet.size == (52, 40)
    assert [sheet.getpixel(at) for at in ((0, 0), (0, 30), (35, 0), (45, 39))] == [
        (0, 0, 0), (255, 255, 255), (255, 255, 255), (9, 9, 9),
    ]  # fmt: skip


def test_the_readme_shows_all_steps_once_there_is_a_picture() -> None:
    """Before that, its place is empty."""
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- demo -->")[1].split("<!-- end of demo -->")[0]
    if (ROOT / "docs" / "pictures" / "demo.png").is_file():
        titles = [step.title for step in runpy.run_path(str(ROOT / "examples" / "demo.py"))["STEPS"]]
        assert [title for title in titles if title not in shown] == []
    else:
        assert not shown.strip()
