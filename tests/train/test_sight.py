"""The tower's own run: what it learns, what it leaves alone, and that it goes on exactly."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen3vl.errors import CheckpointError, InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.train.distributed import Ranks
from qwen3vl.train.loop import StepWork
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sight import EMBEDDING_SIZE, WHAT, HeldOutSight, new_heads, sight_batch, sight_loss, sight_work
from qwen3vl.train.sight_run import SightRun, see
from qwen3vl.train.synthetic.places import IGNORED, draw_places
from tests.contract.cli_runner import Runner
from tests.train import tiny
from tests.train.in_threads import two
from tests.train.synthetic.fonts import base_fonts
from tests.train.test_run import Recorder

__all__ = ["base_fonts"]


def run_of(out: Path, steps: int = 6, **more: Any) -> SightRun:
    settings = TrainSettings(
        language_lr=None, mergers_lr=3e-3, vision_lr=3e-3, steps=steps, tokens_per_batch=24, schedule="constant",
        warmup=0.0, save_every=3, keep=0,
    )  # fmt: skip
    return SightRun(model=str(tiny.folder()), out=out, settings=settings, evaluate_on=8, device="cpu", **more)


def losses(recorder: Recorder) -> list[float]:
    return [report.loss for report in recorder.steps]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_model(folder, dtype=torch.float32).state_dict()


def test_it_learns_the_pictures_it_is_shown(tmp_path: Path) -> None:
    recorder = Recorder()
    see(run_of(tmp_path / "run", 40, limit=6), logs=[recorder])
    assert losses(recorder)[-1] < 0.6 * losses(recorder)[0], losses(recorder)
    assert set(recorder.values[-1][1]) == set(WHAT)


def test_tower_and_main_merger_move_and_nothing_else(tmp_path: Path) -> None:
    see(run_of(tmp_path / "run", 3))
    before, after = weights(tiny.folder()), weights(tmp_path / "run" / "model")
    assert list(before) == list(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trains = {n for n in before if n.startswith("visual.") and "deepstack" not in n}
    assert moved == trains


def test_what_the_tower_gives_is_as_large_as_text(tmp_path: Path) -> None:
    see(run_of(tmp_path / "run", 3))
    model, settings = load_model(tmp_path / "run" / "model"), tiny.processor().picture_settings
    batch = sight_batch([draw_places("train", 0, i) for i in range(32)], settings)
    assert batch.patches_PC is not None
    with torch.no_grad():
        size = model.visual(batch.patches_PC, batch.frames).embeddings_MD.square().mean().sqrt()
    assert float(size) == pytest.approx(EMBEDDING_SIZE, rel=1e-3)


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path: Path) -> None:
    whole, first, rest = Recorder(), Recorder(), Recorder()
    see(run_of(tmp_path / "whole", 6), logs=[whole])
    run = run_of(tmp_path / "parts", 6)
    state = tmp_path / "parts"
    stopper = Recorder(after=3, action=lambda: os.kill(os.getpid(), signal.SIGINT))
    _, finished = see(run, logs=[first, stopper])
    assert not finished and len(first.steps) == 3
    _, finished = see(SightRun.of_folder(state), go_on=True, logs=[rest])
    assert finished and losses(first) + losses(rest) == losses(whole)
    assert all(torch.equal(a, b) for a, b in zip(
        weights(tmp_path / "whole" / "model").values(), weights(state / "model").values(), strict=True))  # fmt: skip


@pytest.mark.parametrize("limit", [None, 5])
def test_work_from_a_place_on_is_the_work_behind_it(limit: int | None) -> None:
    settings = tiny.processor().picture_settings
    whole = sight_work(1, settings, 20, limit=limit)
    works = [next(whole) for _ in range(4)]
    later = sight_work(1, settings, 20, works[1].number, limit=limit)
    for work in works[2:]:
        again = next(later)
        assert again.number == work.number
        assert same(again.batches, work.batches)


@pytest.mark.parametrize("limit", [None, 6])
def test_processes_share_the_pictures(limit: int | None) -> None:
    """Two take every other one each, and begin the next step at the same place."""
    settings, alone = tiny.processor().picture_settings, sight_work(1, tiny.processor().picture_settings, 1)
    all_of_them = [next(alone).batches[0].frames[0] for _ in range(limit or 40)] * 7

    def work(ranks: Ranks) -> list[StepWork]:
        return list(itertools.islice(sight_work(1, settings, 24, limit=limit, ranks=ranks), 3))

    mine, theirs = two(work)
    at = 0
    for one, other in zip(mine, theirs, strict=True):
        for rank, each in enumerate((one, other)):
            (batch,) = each.batches
            assert batch.frames == tuple(all_of_them[at + rank :: 2][: len(batch.frames)])
            assert batch.num_tokens >= 24 > batch.num_tokens - batch.frames[-1][0] * batch.frames[-1][1] // 4
        assert one.number == other.number == at + 2 * max(len(each.batches[0].frames) for each in (one, other))
        at = one.number
    with pytest.raises(InvalidParams, match="limit=7 cannot be shared evenly by 2"):
        two(lambda ranks: next(sight_work(1, settings, 24, limit=7, ranks=ranks)))


def same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(torch.equal(x.patches_PC, y.patches_PC) and x.frames == y.frames for x, y in zip(a, b, strict=True))


def test_the_loss_is_the_sum_of_weighted_means() -> None:
    model = load_model(tiny.folder(), dtype=torch.float32)
    heads = new_heads(model.config.vision.out_hidden_size, 0, torch.device("cpu"), torch.float32)
    batch = sight_batch([draw_places("train", 0, i) for i in range(6)], tiny.processor().picture_settings)
    loss = sight_loss(heads, model, batch)
    expected = 0.0
    assert batch.patches_PC is not None
    for logits, truth, nothing in zip(
        heads(model.visual(batch.patches_PC, batch.frames).embeddings_MD),
        batch.truths,
        (0.05, 0.3, 0.3, 1.0, 1.0),
        strict=True,
    ):
        told = truth != IGNORED
        surprise = -logits.log_softmax(-1)[told].gather(1, truth[told][:, None])[:, 0]
        weight = torch.where(truth[told] == 0, nothing, 1.0)
        expected += float(((surprise * weight).sum() / weight.sum()).detach())
    assert float(loss.share_of(loss.num_labels)) == pytest.approx(expected, rel=1e-5)
    assert loss.num_labels == sum(int((truth != IGNORED).sum()) for truth in batch.truths)


def test_the_score_counts_what_is_there() -> None:
    """Heads that always say "e" name as many characters as there are e's, and of things nothing."""
    model = load_model(tiny.folder(), dtype=torch.float32)
    heads = new_heads(model.config.vision.out_hidden_size, 0, torch.device("cpu"), torch.float32)
    settings = tiny.processor().picture_settings
    with torch.no_grad():
        heads.heads[0].bias.view(16, -1)[:, 69] = 99.0  # type: ignore[operator]  # chr(33 + 68) is "e"
        heads.heads[1].bias.view(4, -1)[:, 0] = 99.0  # type: ignore[operator]
    truths = [draw_places("heldout", 0, index).characters_MS for index in range(40)]
    share = sum((t == 69).sum() for t in truths) / sum((t > 0).sum() for t in truths)
    values = HeldOutSight(model, heads, settings, 40)(None)  # type: ignore[arg-type]
    assert 0 < share < 0.3 and values["characters"] == pytest.approx(share) and values["kinds"] == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"language_lr": 1e-3}, "language_lr=None"), ({"vision_lr": None}, "vision_lr"), ({"accumulate": 2}, "one batch")],
)
def test_settings_that_mean_nothing_here_are_refused(changes: dict[str, Any], words: str) -> None:
    base: dict[str, Any] = {"language_lr": None, "mergers_lr": 1e-3, "vision_lr": 1e-3, "steps": 2}
    with pytest.raises(InvalidParams, match=words):
        SightRun(model="m", out=Path("o"), settings=TrainSettings(**{**base, **changes}))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


def test_the_command(cli: Runner, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    given = ("--model", tiny.folder(), "--steps", 2, "--tokens", 8, "--evaluate-on", 4, "--device", "cpu", "--json")
    done = cli("train", "see", out, *given)
    assert done.code == 0 and done.document["step"] == 2 and (out / "model" / "config.json").is_file()
    assert cli("train", "see", out, *given).code == 2  # not empty
    assert cli("train", "see", out, "--resume", "--steps", 3).code == 2
    assert cli("train", "see", tmp_path / "other").code == 2  # no model
    with pytest.raises(CheckpointError):
        SightRun.of_folder(tmp_path)
