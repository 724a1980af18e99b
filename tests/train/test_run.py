"""Whole runs: what moves, what is saved, and that a run that stops goes on as if it had not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3vl.errors import CheckpointNotFound, DataError, InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.processor.processor import Processor
from qwen3vl.train.loop import TrainingDiverged
from qwen3vl.train.optimizer import Optimizer
from qwen3vl.train.parameters import freeze, parameter_groups, part_of
from qwen3vl.train.reports import Log, Progress, RunReport, StepReport
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.state import last_state, saved_states
from tests import models
from tests.train import tiny


def small() -> Path:
    return tiny.folder("4b/4")  # a tap behind the last layer would reach no token that answers


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven conversations: pictures, a clip of two pictures, text."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(4):
        tiny.picture(64, 64 + 32 * (i % 2), seed=i).save(folder / f"{i}.png")
    lines: list[dict[str, Any]] = [
        {"image": f"{i}.png", "conversations": said("<image>Which?", f"Number {i}.")} for i in range(4)
    ]
    lines += [
        {"conversations": said("Say it.", "It."), "max_pixels": 4096},
        {"conversations": said("a", "b", "c", "d")},
    ]
    clip = {"type": "video", "video": ["0.png", "2.png"], "sample_fps": 1}
    lines.append({"messages": [{"role": "user", "content": [clip]}, {"role": "assistant", "content": "Two."}]})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "train.jsonl"


def said(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]


def make(data: Path, out: Path, changes: Mapping[str, Any] | None = None, **more: Any) -> TrainRun:
    settings = {"steps": 6, "language_lr": 1e-3, "mergers_lr": 1e-3, "vision_lr": 1e-3, "tokens_per_batch": 100}
    settings |= {"accumulate": 2, "media": tiny.SMALL, "weight_decay": 0.1, "save_every": 0, **(changes or {})}
    return TrainRun(
        data=(str(data),), model=str(small()), out=out, settings=TrainSettings(**settings), device="cpu", **more
    )


class Recorder(Log):
    """Remembers reports; does something after one of the steps."""

    def __init__(self, after: int = 0, action: Callable[[], None] = lambda: None) -> None:
        self.steps: list[StepReport] = []
        self.values: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []
        self._after, self._action = after, action

    def begin(self, run: RunReport) -> None:
        self.run = run

    def step(self, report: StepReport) -> None:
        self.steps.append(report)
        if report.progress.step == self._after:
            self._action()

    def evaluated(self, progress: Progress, values: Mapping[str, float]) -> None:
        self.values.append((progress.step, dict(values)))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        pass


def weights(folder: Path) -> dict[str, Tensor]:
    return load_model(folder).state_dict()


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16", "steps": None, "epochs": 2, "schedule": "wsd"}])
def test_three_steps_and_the_rest_are_all_steps(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Bit by bit: weights, and what is reported."""
    whole = Recorder()
    progress, finished = train(make(data, tmp_path / "whole", changes), logs=[whole])
    assert finished and progress.step == len(whole.steps) > 3
    stopped = Recorder(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    progress, finished = train(make(data, tmp_path / "parts", changes), logs=[stopped])
    assert not finished and progress.step == 3 and "stopping" in stopped.notes[0]
    assert not (tmp_path / "parts" / "model").exists()
    rest = Recorder()
    progress, finished = train(TrainRun.of_folder(tmp_path / "parts"), go_on=True, logs=[rest])
    assert finished and rest.run.start.step == 3
    told = [[(s.loss, s.gradient_norm, s.rates, s.progress.number, s.tokens) for s in log] for log in
            (whole.steps, stopped.steps + rest.steps)]  # fmt: skip
    assert told[0] == told[1]
    one, other = weights(tmp_path / "whole" / "model"), weights(tmp_path / "parts" / "model")
    assert all(torch.equal(one[name], other[name]) for name in one)
    started = weights(small())
    assert any(not torch.equal(one[name], started[name]) for name in one)


@pytest.mark.parametrize("part", ["vision", "mergers", "language"])
def test_frozen_weights_do_not_move_and_all_others_do(data: Path, tmp_path: Path, part: str) -> None:
    rates = {"language_lr": None, "mergers_lr": None, "vision_lr": None, f"{part}_lr": 1e-3}
    train(make(data, tmp_path / "out", {"steps": 2, "weight_decay": 0.0, **rates}))
    before, after = weights(small()), weights(tmp_path / "out" / "model")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if part_of(name) == part}
    if part == "mergers":
        assert any("deepstack_merger_list.2" in name for name in moved)


def test_nothing_to_train(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="nothing trains"):
        train(make(data, tmp_path / "out", {"language_lr": None, "mergers_lr": None, "vision_lr": None}))


def test_vectors_do_not_decay() -> None:
    model = load_model(small())
    settings = TrainSettings(steps=1, weight_decay=0.1, vision_lr=1e-6)
    freeze(model, settings)
    groups = parameter_groups(model, settings)
    assert sorted({(g.part, g.learning_rate) for g in groups}) == [
        ("language", 1e-5), ("mergers", 1e-5), ("vision", 1e-6)]  # fmt: skip
    names = {name for group in groups for name in group.names}
    assert names == {name for name, _ in model.named_parameters()}  # a tied head is one weight
    for group in groups:
        for name, parameter in zip(group.names, group.parameters, strict=True):
            assert (group.weight_decay == 0) == (parameter.ndim < 2), name
            assert parameter.ndim >= 2 or "norm" in name or name.endswith("bias")


def test_master_weights_gather_what_bfloat16_would_lose() -> None:
    """A thousand steps of 1e-5 each from 1.0, where bfloat16 has no number between 1 and 1.0078."""
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    settings = TrainSettings(steps=1, clip_norm=None)
    from qwen3vl.train.parameters import ParameterGroup

    optimizer = Optimizer([ParameterGroup("language", 1e-5, 0.0, ("w",), (weight,))], settings)
    for _ in range(1000):
        for _ in range(2):
            (-weight.sum()).backward()
        assert weight.grad is None
        norm = optimizer.step(1.0)
    assert float(norm) == 8.0  # two backward passes of ones in 16 places
    (master,) = [m for _, m in optimizer.named_masters()]
    assert torch.allclose(master, torch.full((4, 4), 1.01), atol=1e-5)
    assert torch.equal(weight, master.bfloat16()) and (weight > 1).all()


def test_bfloat16_follows_float32(data: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        log = Recorder()
        train(make(data, tmp_path / precision, {"precision": precision, "steps": 3, "accumulate": 1}), logs=[log])
        losses.append([step.loss for step in log.steps])
    assert losses[0] == pytest.approx(losses[1], rel=0.03) and losses[0][-1] < 0.9 * losses[0][0]


def test_the_result_loads_everywhere(data: Path, tmp_path: Path) -> None:
    """In transformers with the same values; with its processor files; as do the saved states."""
    out = tmp_path / "out"
    train(make(data, out, {"steps": 3, "save_every": 1, "keep": 2}))
    assert [path.name for path in saved_states(out)] == ["step-000002", "step-000003"]
    ours = weights(out / "model")
    theirs = models.load_theirs(out / "model").state_dict()
    name = "language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(ours[name], theirs[f"model.{name}"])
    assert Processor.from_folder(out / "model").tokenizer.vocab_size == tiny.processor("4b/4").tokenizer.vocab_size
    assert torch.equal(weights(last_state(out))[name], ours[name])
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "step", "step", "step"]
    assert lines[-1]["step"] == 3 and lines[-1]["share_of_peak"] > 0


def test_evaluation_during_the_run(data: Path, tmp_path: Path) -> None:
    log = Recorder()
    run = make(data, tmp_path / "out", {"evaluate_every": 4}, eval_data=(str(data),), evaluate_on=5)
    train(run, logs=[log])
    assert [step for step, _ in log.values] == [4, 6]
    assert log.values[1][1]["loss"] < log.values[0][1]["loss"]


def test_evaluation_leaves_out_what_is_too_long_where_that_is_skipped(data: Path, tmp_path: Path) -> None:
    given = {"steps": 1, "tokens_per_batch": 40}
    with pytest.raises(DataError, match=r"has .* tokens, but a batch holds 40"):
        train(make(data, tmp_path / "a", {**given, "too_long": "error"}, eval_data=(str(data),)))
    recorder = Recorder()
    train(make(data, tmp_path / "b", {**given, "too_long": "skip"}, eval_data=(str(data),)), logs=[recorder])
    assert recorder.values[-1][1]["loss"] > 0
    with pytest.raises(DataError, match=r"none of .* has at most 5 tokens"):
        train(make(data, tmp_path / "c", {**given, "tokens_per_batch": 5, "too_long": "skip"}, eval_data=(str(data),)))


def test_from_scratch(data: Path, tmp_path: Path) -> None:
    log = Recorder()
    train(make(data, tmp_path / "out", {"steps": 2}, from_scratch=True, limit=4), logs=[log])
    assert log.steps[0].loss == pytest.approx(5.7, abs=0.4)  # ln 288: it knows nothing
    again = Recorder()
    train(make(data, tmp_path / "again", {"steps": 2}, from_scratch=True, limit=4), logs=[again])
    assert [s.loss for s in again.steps] == [s.loss for s in log.steps]


def test_runs_that_cannot_be(data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InvalidParams, match="is not empty"):
        train(make(data, tmp_path / "full"))
    endless = make(data, tmp_path / "endless", {"steps": None, "epochs": 1.0})
    with pytest.raises(InvalidParams, match="never end"):
        train(TrainRun.of_folder(_written(endless, data=["synthetic:count"])))
    with pytest.raises(CheckpointNotFound, match="no saved state"):
        train(make(data, tmp_path / "new"), go_on=True)


def _written(run: TrainRun, **changes: Any) -> Path:
    run.out.mkdir()
    (run.out / "run.json").write_text(json.dumps({**run.to_json(), **changes}))
    return run.out


def test_other_data_are_noticed(data: Path, tmp_path: Path) -> None:
    copied = tmp_path / "data.jsonl"
    copied.write_text('{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n' * 2)
    run = make(copied, tmp_path / "out", {"steps": 1})
    train(run)
    copied.write_text(copied.read_text() * 2)
    with pytest.raises(DataError, match=r"was on data.jsonl \(2 conv.*now data.jsonl \(4 conv"):
        train(run, go_on=True)


def test_a_loss_that_is_no_number_stops_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"step \d+: loss .*train.jsonl"):
        train(make(data, tmp_path / "out", {"language_lr": 1e30, "clip_norm": None}))
