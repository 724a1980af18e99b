"""A tiny model learns one sample of every task by heart, from the command line: data, masks, positions, packing
and generation agree. Some minutes on two cores; see docs/training.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3vl.train.synthetic.registry import tasks
from tests.contract.cli_runner import Runner

pytestmark = pytest.mark.slow


def test_every_task_is_learnt_to_zero_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = Runner(capsys, monkeypatch), len(tasks())
    assert number >= 32
    new, out = tmp_path / "new", tmp_path / "run"
    assert run("train", "new", new, "--size", "tiny").code == 0
    trained = run("train", "run", "synthetic:all", "--model", new, "--out", out, "--limit", number, "--lr", 3e-3,
                  "--tokens-per-batch", 2048, "--steps", 900, "--beta2", 0.98, "--save-every", 0, "--json")  # fmt: skip
    assert trained.code == 0, trained.err
    ran = run("eval", "synthetic", "--model", out / "model", "--side", "train", "--count", 1, "--show-mistakes", 1,
              "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    wrong = [entry for entry in ran.document["tasks"] if entry["perfect"] != entry["number"]]
    assert len(ran.document["tasks"]) == number and not wrong, wrong
