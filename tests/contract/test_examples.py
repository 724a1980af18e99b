"""The examples run as they stand, on a shrunken checkpoint and a generated picture."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests import models
from tests.fixtures.pictures import scene

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    scene(320, 256).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_quick_start(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--model", models.folder("4b"), "--image", picture, "--max-new-tokens", 8)
    out = run("quick_start.py", monkeypatch, capsys, *arguments)
    assert re.fullmatch(r"\[(['\"]).+\1\]\n", out)  # a list of one answer


def test_ask_about_pictures(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = run("ask_about_pictures.py", monkeypatch, capsys, picture, "--model", models.folder("4b"), "--max-tokens", 8)
    assert f"{picture}: (320, 256) resized to (320, 256), 80 tokens\n" in out
    first = re.search(r"^(\d+) tokens read in ", out, re.MULTILINE)
    again = re.search(r"^(\d+) of (\d+) tokens were known already\n\Z", out, re.MULTILINE)
    assert first is not None
    assert again is not None
    assert int(first[1]) <= int(again[1]) < int(again[2])
    assert out.index(str(picture)) > 0  # an answer stands before it


def test_demo(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    demo["main"].__globals__["CHECKPOINT"] = models.folder("4b")
    demo["main"](str(picture), "What is this?")
    out = capsys.readouterr().out
    assert "these words are noise" in out
    assert f"{picture}: 320 x 256 pixels" in out


def test_every_example_is_run_in_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    names = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("tasks_")}  # they have their own
    assert not {name for name in names if name not in tests}
