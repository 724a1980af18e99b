"""The whole way in a few seconds: a new model, a run, the evaluation of what it learnt by heart.

(tests/slow/test_overfit.py does it with every task.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.cli_runner import Runner

TASKS = ("read_glyphs", "question_color", "locate_small")  # with seed 4: small pictures


def test_a_few_samples_are_learnt_by_heart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero errors on what was trained on, through generate; and not on what was not."""
    texts = ["What is the color of the picture? How many are there?", '```json\n[\n\t{"point_2d": [1, 2], "label": "']
    monkeypatch.setattr("qwen3vl.train.small.synthetic_texts", lambda *_: texts * 9)
    run = Runner(capsys, monkeypatch)
    new, out, names = tmp_path / "new", tmp_path / "run", ",".join(TASKS)
    assert run("train", "new", new, "--size", "tiny").code == 0
    trained = run("train", "run", f"synthetic:{names}", "--model", new, "--out", out, "--limit", len(TASKS), "--lr",
                  5e-3, "--steps", 50, "--tokens-per-batch", 360, "--save-every", 0, "--seed", 4, "--json")  # fmt: skip
    assert trained.code == 0, trained.err
    options = ("eval", "synthetic", "--model", out / "model", "--tasks", names, "--count", 1, "--seed", 4, "--json")
    seen, unseen = run(*options, "--side", "train"), run(*options, "--max-tokens", 40)
    assert [t["perfect"] for t in seen.document["tasks"]] == [1] * len(TASKS), seen.out
    assert sum(t["perfect"] for t in unseen.document["tasks"]) < len(TASKS)
