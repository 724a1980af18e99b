"""Real pictures are asked about in the capabilities' words, and a perfect model is perfect on them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.types import Completion, Request
from tests.fixtures.fake_generator import FakeGenerator

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "eval_media.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One receipt, a page with two targets of which one has a name, two drawings."""
    places = [tmp_path / name for name in ("documents/sroie", "pictures/webpages", "pictures/nlvr")]
    for place in places:
        place.mkdir(parents=True)
    receipts, pages, drawings = places
    Image.new("RGB", (120, 200)).save(receipts / "030.jpg")
    (receipts / "030.key.json").write_text(json.dumps({"company": "TAN, LTD", "total": "8.20"}))
    (receipts / "030.box.csv").write_text("1,2,3,4,5,6,7,8,TAN, LTD\n1,2,3,4,5,6,7,8,TOTAL 8.20\n")
    Image.new("RGB", (200, 100)).save(pages / "p.png")
    elements = [
        {"box": [10, 20, 60, 40], "name": "PEOPLE", "unique": True},
        {"box": [10, 50, 60, 70], "name": "", "unique": True},
        {"box": [10, 50, 60, 170], "name": "below", "unique": True},
        {"box": [70, 50, 90, 70], "name": "MORE", "unique": False},
    ]
    (pages / "grounding.json").write_text(json.dumps([{"image": "images/p.png", "page": "p", "elements": elements}]))
    lines = [{"image": "d.png", "sentence": f"There is {n} tower", "label": label} for n, label in
             ((1, "true"), (2, "false"))]  # fmt: skip
    Image.new("RGB", (400, 100)).save(drawings / "d.png")
    (drawings / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


class Knowing(FakeGenerator):
    """Answers each sample of a set with its own answer."""

    def __init__(self, folder: Path, wrong: bool = False) -> None:
        samples: Iterator[SyntheticSample] = (s for make, _ in SCRIPT["SETS"].values() for s in make(folder))
        super().__init__(["nothing"] * 99 if wrong else [sample.answer for sample in samples])

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        return super().generate_many(requests)


def test_a_perfect_and_a_mute_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = SCRIPT["measure"](Knowing(folder), folder, None, False)
    assert [(row["name"].split(":")[0], row["number"], row["value"]) for row in rows] == [
        ("receipts", 1, 1.0), ("receipts", 1, 0.0), ("web pages", 1, 1.0), ("drawings", 2, 1.0),
    ]  # fmt: skip
    rows = SCRIPT["measure"](Knowing(folder, wrong=True), folder, None, True)
    assert [row["value"] for row in rows] == [0.0, 1.0, 0.0, 0.0]
    assert "nothing" in capsys.readouterr().err
    (drawn,) = (row for row in SCRIPT["measure"](Knowing(folder), folder, 1, False) if row["metric"] == "accuracy")
    assert drawn["number"] == 1


def test_questions_are_the_capabilities_own(folder: Path) -> None:
    asked = {name: next(make(folder)) for name, (make, _) in SCRIPT["SETS"].items()}
    texts = [sample.messages[-1].text for sample in asked.values()]
    assert texts[0] == 'Extract the key-value information in the format:{"company": "", "total": ""}'
    assert texts[1] == "Read all the text in the image."
    assert 'Click "PEOPLE".' in texts[2] and asked["web pages: click on what is named"].tools
    assert texts[3] == "There is 1 tower. Is this true or false?"


def test_the_real_ones(media: Path) -> None:
    numbers = [sum(1 for _ in make(media)) for make, _ in SCRIPT["SETS"].values()]
    assert numbers[0] == numbers[1] >= 10 and numbers[2] >= 60 and numbers[3] >= 100
