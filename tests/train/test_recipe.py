"""The recipe of the small model, with stages of a few steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qwen3vl.errors import CheckpointNotFound
from qwen3vl.model.checkpoint import load_model
from qwen3vl.train import recipe
from qwen3vl.train.data_specs import parse_mix
from qwen3vl.train.recipe import STAGES, Answering, Means, Seeing, export, newest, through
from tests.train import tiny
from tests.train.synthetic.fonts import base_fonts
from tests.train.test_run import Recorder

__all__ = ["base_fonts"]

SHORT = (Seeing("see", 2, 24, 1e-3, kept=40), Answering("begin", "first_count,first_color=2", 3, 256, 1e-3, 0.5))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder whose model is already made: drawing texts for a tokenizer takes a minute."""
    (tmp_path / "new").symlink_to(tiny.folder())
    return tmp_path


def test_stages_begin_with_the_result_of_the_one_before_and_are_done_once(out: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no stage"):
        newest(out, SHORT)
    assert through(out, SHORT[0], Means(), SHORT) and newest(out, SHORT) == out / "see" / "model"
    recorder = Recorder()
    assert through(out, SHORT[1], Means(scale=2.0, logs=[recorder]), SHORT)
    assert len(recorder.steps) == 6, "scaled"
    again = Recorder()
    assert through(out, SHORT[1], Means(logs=[again]), SHORT) and not again.steps
    seen, answered = (load_model(out / name / "model").state_dict() for name in ("see", "begin"))
    moved = {name for name in seen if not torch.equal(seen[name], answered[name])}
    assert len(moved) > 0.9 * len(seen)


def test_the_newest_weights_are_written_in_bfloat16(out: Path) -> None:
    through(out, SHORT[0], Means(), SHORT)
    assert export(out, SHORT) == out / "see" / "model"
    written, seen = load_model(out / "model"), load_model(out / "see" / "model")
    assert written.dtype == torch.bfloat16
    for name, weight in seen.state_dict().items():
        assert torch.equal(written.state_dict()[name], weight.bfloat16()), name
    assert (out / "model" / "vocab.json").is_file()


def test_two_processes_share_every_step(out: Path) -> None:
    command = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "tests.train.two_in_recipe",
    ]
    done = subprocess.run([sys.executable, *command, str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in SHORT:
        events = [json.loads(line) for line in (out / stage.name / "log.jsonl").read_text().splitlines()]
        steps = [event for event in events if event["event"] == "step"]
        assert [step["step"] for step in steps] == list(range(1, stage.steps + 1))
        assert (
            json.loads((out / stage.name / "run.json").read_text())["settings"]["tokens_per_batch"] == stage.tokens // 2
        )
        assert all(0.6 * stage.tokens < step["tokens"] for step in steps), "of both"
    assert newest(out, SHORT) == out / "begin" / "model" and load_model(newest(out, SHORT))


def test_a_stage_that_died_before_its_first_state_begins_anew(out: Path) -> None:
    (out / "see").mkdir()
    (out / "see" / "run.json").write_text("{}")
    assert through(out, SHORT[0], Means(), SHORT)


def test_the_true_stages_are_well_formed() -> None:
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    for stage in STAGES:
        if isinstance(stage, Answering):
            assert parse_mix(stage.tasks)
    assert recipe.SIZE == "small"
