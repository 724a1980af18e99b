"""`qwen3vl train` from the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli.train import RateOptions, StepOptions, _settings
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import MediaOptions
from qwen3vl.train.loop import Trainer
from qwen3vl.train.settings import LoraSettings
from tests.contract.cli_runner import Runner
from tests.train import tiny


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def write(path: Path, count: int = 6) -> Path:
    tiny.picture(64, 64).save(path.parent / "a.png")
    lines = []
    for i in range(count):
        turns = [{"from": "human", "value": f"<image>assistant? {i}"}, {"from": "gpt", "value": f"It is {i}."}]
        lines.append(json.dumps({"image": "a.png", "max_pixels": 4096, "min_pixels": 1024, "conversations": turns}))
    path.write_text("\n".join(lines) + "\n")
    return path


def options(tmp_path: Path, *more: object) -> list[object]:
    data = write(tmp_path / "data.jsonl")
    model = tiny.folder("4b/4")
    return ["train", "run", data, "--model", model, "--out", tmp_path / "out", "--device", "cpu", *more]


def test_run_and_resume(cli: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step: Callable[..., Any] = Trainer.step

    def interrupted(trainer: Trainer, *arguments: Any) -> Any:
        report = step(trainer, *arguments)
        if report.progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return report

    monkeypatch.setattr(Trainer, "step", interrupted)
    ran = cli(*options(tmp_path, "--epochs", 2, "--tokens-per-batch", 120, "--lr", "1e-3", "--tensorboard"))
    assert ran.code == 130 and "saved behind step 2; go on with: qwen3vl train resume" in ran.out
    monkeypatch.undo()
    ran = cli("train", "resume", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.document["finished"] and ran.document["number"] == 12
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    assert "goes on behind step 2" in ran.err and "trains" in ran.err
    ran = cli(*options(tmp_path, "--epochs", 2))
    assert ran.code == 2 and "is not empty" in ran.err


def test_check(cli: Runner, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", 2)
    model = ("--model", tiny.folder("4b/4"))
    ran = cli("train", "check", data, *model)
    assert ran.code == 0
    assert "[[It is 0.<|im_end|>\n]]" in ran.out and "assistant? 0<|im_end|>" in ran.out
    assert "<|vision_start|><|image_pad|> x 4<|vision_end|>" in ran.out
    assert "2 good conversations, 0 bad lines" in ran.out and "2 pictures" in ran.out
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with data.open("a") as file:
        file.write("{}\n[\n")
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]
        file.write(json.dumps({"image": "broken.png", "conversations": turns}) + "\n")
    for ran in (cli("train", "check", data, *model), cli("train", "check", data, *model, "--json")):
        assert ran.code == 1
        assert all(f"data.jsonl:{line}: " in ran.out for line in (3, 4, 5))
    assert ran.document["bad"] == 3 and ran.document["conversations"] == 2
    assert ran.document["longest"]["where"].endswith("data.jsonl:1")
    ran = cli("train", "check", write(data, 2), *model, "--tokens-per-batch", 10, "--quick", "--json")
    assert ran.code == 1 and "tokens, more than 10" in ran.document["errors"][0]["error"]


def test_options_become_settings(tmp_path: Path) -> None:
    def made(rates: RateOptions, steps: StepOptions, path: Path | None = None, scratch: bool = False) -> Any:
        return _settings(path, rates.settings(scratch), steps.settings(), MediaOptions(max_pixels=4096))

    plain = made(RateOptions(), StepOptions(steps=3))
    assert (plain.language_lr, plain.mergers_lr, plain.vision_lr) == (1e-5, 1e-5, None)
    assert plain.media == MediaOptions(max_pixels=4096)
    scratch = made(RateOptions(vision_lr=0), StepOptions(steps=3), scratch=True)
    assert (scratch.language_lr, scratch.mergers_lr, scratch.vision_lr) == (1e-3, 1e-3, None)
    rates = made(RateOptions(lr=1e-4, language_lr=0), StepOptions(epochs=1, clip_norm=0, ignore_key=["a"]))
    assert (rates.language_lr, rates.vision_lr, rates.clip_norm, rates.ignored_keys) == (None, 1e-4, None, ("a",))
    lora = made(RateOptions(lora=True, lora_rank=4, lora_targets="mlp, q_proj"), StepOptions(steps=3))
    assert lora.lora == LoraSettings(rank=4, targets=("mlp", "q_proj"))
    for name, text in (("a.json", '{"steps": 7, "seed": 3, "lora": {"rank": 2}}'), ("a.yaml", "steps: 7\nseed: 3")):
        path = tmp_path / name
        path.write_text(text)
        from_file = made(RateOptions(), StepOptions(epochs=2, seed=4), path)
        assert (from_file.steps, from_file.epochs, from_file.seed) == (None, 2, 4)
        assert (from_file.lora is not None) == (name == "a.json")


@pytest.mark.parametrize(
    ("rates", "steps", "reason"),
    [
        (RateOptions(), StepOptions(), "give --steps or --epochs"),
        (RateOptions(lora_rank=3), StepOptions(steps=1), "--lora-rank needs --lora"),
        (RateOptions(), StepOptions(steps=1, schedule="x"), "schedule='x' is not one of"),
    ],
)
def test_options_that_cannot_be(rates: RateOptions, steps: StepOptions, reason: str) -> None:
    with pytest.raises(InvalidParams, match=reason):
        _settings(None, rates.settings(False), steps.settings(), MediaOptions())


def test_preview(cli: Runner, tmp_path: Path) -> None:
    ran = cli("train", "preview", "count", "--out", tmp_path, "--count", 2, "--json")
    assert ran.code == 0 and Path(ran.document["files"][0]).stat().st_size > 1000
    ran = cli("train", "preview", "nothing", "--out", tmp_path)
    assert ran.code == 2 and "no synthetic task" in ran.err


def test_shards(cli: Runner, tmp_path: Path) -> None:
    ran = cli("train", "shards", "count", "--out", tmp_path / "s", "--count", 3, "--per-shard", 2, "--json")
    assert ran.code == 0 and ran.document["samples"] == 3
    assert sorted(path.name for path in (tmp_path / "s").glob("*.tar")) == ["00000.tar", "00001.tar"]
    assert cli("train", "shards", "count", "--out", tmp_path / "s", "--count", 0).code == 2
