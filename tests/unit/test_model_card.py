"""The numbers of the small model's card are those of the JSON beside it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from qwen3vl.model.hub import SMALL_FOLDER
from qwen3vl.train.small import make_small

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "model_card.py"))
CARD = "# Card\n" + "".join(
    f"<!-- {name} -->\nold\n<!-- end of {name} -->\n\nText.\n" for name in ("model", "results", "media")
)
ROWS = [
    {"name": "reading", "metric": "character_error", "value": 0.0312, "low": 0.02, "high": 0.041, "aim": 0.03,
     "number": 200, "seconds": 20.2},
    {"name": "counting", "metric": "exact", "value": None, "low": None, "high": None, "aim": None,
     "number": 0, "seconds": 0.0},
]  # fmt: skip
RESULTS = {"side": "heldout", "seed": 0, "rows": ROWS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    return tmp_path


def test_numbers_go_between_the_markers(folder: Path) -> None:
    check = ["--check", "--folder", str(folder)]
    assert SCRIPT["main"](check) == 1
    assert SCRIPT["main"](check[1:]) == 0 and SCRIPT["main"](check) == 0
    card = (folder / "README.md").read_text()
    assert "| reading | 3.1% | 2.0% - 4.1% | <= 3% | 200 |" in card
    assert "| counting | - | - - - |  | 0 |" in card
    assert "Greedy, heldout side, seed 0, 200 answers in 20 s." in card
    assert "old" not in card and card.startswith("# Card\n") and card.endswith("<!-- end of media -->\n\nText.\n")
    assert card.count("Not measured yet.") == 1  # no media.json
    assert "weights are not here" in card
    make_small(folder / "new", "tiny", vocab_size=310, texts=["a text"])
    for name in ("config.json", "model.safetensors"):
        (folder / "new" / name).rename(folder / name)
    assert SCRIPT["main"](check) == 1 and SCRIPT["main"](check[1:]) == 0
    card = (folder / "README.md").read_text()
    assert "| 2.1 M | 4 blocks of 96 | 4 layers of 128 | 282 | F32, 8.2 MiB |" in card
    (folder / "results.json").write_text(json.dumps(RESULTS | {"seed": 1}))
    assert SCRIPT["main"](check) == 1


def test_a_card_without_markers_is_refused(folder: Path) -> None:
    (folder / "README.md").write_text("# Card\n")
    with pytest.raises(SystemExit, match="no place for model"):
        SCRIPT["main"](["--folder", str(folder)])


def test_the_card_says_what_was_measured() -> None:
    assert SCRIPT["main"](["--check"]) == 0
    assert (SMALL_FOLDER / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0")
