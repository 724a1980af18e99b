"""examples/finetune_lora.py as it stands, on a tiny model and a few pictures."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.train import tiny

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune_lora.py"
VOC = """<annotation><object><name>WBC</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax><ymax>70</ymax>
</bndbox></object><object><name>RBC</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>7</ymax></bndbox>
</object></annotation>"""


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    return capsys.readouterr().out


def test_drawn_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--drawn", 5, "--steps", 6, "--rate", 1e-2, "--rank", 4, "--max-pixels", 64 * 64, "--max-tokens", 8)
    out = run(monkeypatch, capsys, "--model", tiny.folder(), "--out", tmp_path, *given)
    assert out.startswith("3 pictures to learn from, 2 held out, ")
    before, after = re.findall(r"^(?:before|after) +(\S+) +\S+$", out, re.MULTILINE)
    assert float(after) < float(before) - 0.5
    assert {path.name for path in (tmp_path / "run" / "model").glob("adapter*")} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_pascal_voc(tmp_path: Path) -> None:
    tiny.picture(96, 80).save(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(VOC)
    tiny.picture(96, 80).save(tmp_path / "b.jpg")
    (tmp_path / "b.xml").write_text("<annotation></annotation>")
    (found,) = runpy.run_path(str(EXAMPLE))["read_voc"](tmp_path, "WBC")
    assert found.path.name == "a.jpg" and found.size == (96, 80) and found.boxes == ((10, 20, 60, 70),)


def test_drawn_boxes_hold_the_nuclei(tmp_path: Path) -> None:
    """Every box has violet in its middle, and nothing violet is outside of all boxes."""
    from PIL import Image

    for drawn in runpy.run_path(str(EXAMPLE))["draw"](tmp_path, 3):
        with Image.open(drawn.path) as image:
            violet = {(x, y) for x in range(320) for y in range(240) if image.getpixel((x, y)) == (90, 40, 140)}
        covered = set()
        for x1, y1, x2, y2 in drawn.boxes:
            inside = {(x, y) for x, y in violet if x1 <= x <= x2 and y1 <= y <= y2}
            assert ((x1 + x2) // 2, (y1 + y2) // 2) in inside
            covered |= inside
        assert covered == violet
