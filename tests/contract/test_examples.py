"""The examples run as they stand, on a shrunken checkpoint and a generated picture."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.types import SamplingParams
from tests import models
from tests.fixtures.fake_generator import FakeGenerator
from tests.fixtures.pictures import scene

EXAMPLES = Path(__file__).parents[2] / "examples"
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    scene(320, 256).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Printed, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


def test_quick_start(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    arguments = ("--model", models.folder("4b"), "--image", picture, "--max-new-tokens", 8)
    out = run("quick_start.py", monkeypatch, capsys, *arguments)
    assert re.fullmatch(r"\[(['\"]).+\1\]\n", out)  # a list of one answer


def test_ask_about_pictures(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    out = run("ask_about_pictures.py", monkeypatch, capsys, picture, "--model", models.folder("4b"), "--max-tokens", 8)
    assert f"{picture}: (320, 256) resized to (320, 256), 80 tokens\n" in out
    first = re.search(r"^(\d+) tokens read in ", out, re.MULTILINE)
    again = re.search(r"^(\d+) of (\d+) tokens were known already\n\Z", out, re.MULTILINE)
    assert first is not None
    assert again is not None
    assert int(first[1]) <= int(again[1]) < int(again[2])
    assert out.index(str(picture)) > 0  # an answer stands before it


def test_demo_of_one_picture(picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    demo["main"].__globals__["ENOUGH"] = SamplingParams(max_tokens=8)
    monkeypatch.setattr(sys, "argv", ["demo.py", str(picture), "What is this?", "--model", str(models.folder("4b"))])
    demo["main"]()
    out = capsys.readouterr().out
    assert f"{picture}\n> What is this?" in out and f"{picture}: 320 x 256 pixels" in out
    assert "make demo MODEL=Qwen/Qwen3-VL-4B-Instruct" in out


TRUTH = json.loads((EXAMPLES / "media" / "demo.json").read_text(encoding="utf-8"))


def true_answers() -> list[str]:
    """What a perfect model says in the demo's five steps."""
    with Image.open(EXAMPLES / "media" / TRUTH["screen"]["file"]) as screen:
        box = [v / side * 1000 for v, side in zip(TRUTH["screen"]["box"], screen.size * 2, strict=True)]
    things = [{"bbox_2d": [10 * n, 0, 10 * n + 9, 9], "label": "x"} for n in range(TRUTH["things"]["number"])]
    events = [
        {"start": f"00:{start:05.2f}", "end": f"00:{end:05.2f}", "description": text}
        for start, end, text in TRUTH["clip"]["moments"]
    ]
    return [
        TRUTH["receipt"]["text"],
        *map(json.dumps, (TRUTH["receipt"]["fields"], [{"bbox_2d": box, "label": "x"}], things, events)),
    ]


def test_demo_of_a_perfect_model(tmp_path: Path, capsys: Printed) -> None:
    runpy.run_path(str(EXAMPLES / "demo.py"))["tour"](FakeGenerator(true_answers()), tmp_path)
    out = capsys.readouterr().out
    verdicts = ("100% of the characters", "3 of 3 fields", "overlap by 100%", "-> right;", "more than 0.00 s")
    assert [verdict for verdict in verdicts if verdict not in out] == []
    for name in ("demo-button.png", "demo-count.png"):
        with Image.open(tmp_path / name) as drawn:
            assert (230, 159, 0) in {colour for _, colour in drawn.getcolors(1 << 24)}


def test_demo_goes_on_behind_a_step_that_fails(tmp_path: Path, capsys: Printed) -> None:
    """Of an endless answer only the beginning is shown, of terminal codes nothing."""
    nonsense = "\x1bxyz\n" * 300
    runpy.run_path(str(EXAMPLES / "demo.py"))["tour"](FakeGenerator([nonsense], repeat=True), tmp_path)
    out = capsys.readouterr().out
    assert out.count("(ParseError)") >= 3 and "5  Tell when" in out and "more lines" in out
    assert "\x1b" not in out and len(out.splitlines()) < 150


def test_what_the_demo_shows_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures differ where fonts do; what they are about does not."""
    made = runpy.run_path(str(EXAMPLES / "media" / "make_demo_media.py"))
    for name in ("receipt", "screen", "things", "clip"):
        monkeypatch.setitem(made[name].__globals__, "HERE", tmp_path)
        again = made[name]()
        assert again["file"] == TRUTH[name]["file"] and (tmp_path / again["file"]).is_file()
        assert set(again) == set(TRUTH[name])
    files = {path.name for path in (EXAMPLES / "media").glob("demo-*")}
    assert files == {truth["file"] for truth in TRUTH.values()}
    assert sum((EXAMPLES / "media" / name).stat().st_size for name in files) < 200_000


def test_every_example_is_run_in_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    names = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("tasks_")}  # they have their own
    assert not {name for name in names if name not in tests}
