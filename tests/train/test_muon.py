"""Muon against the singular value decomposition, and as one of the optimizers of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qwen3vl.errors import InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.train.muon import Muon, orthogonal_factor, parts
from qwen3vl.train.optimizer import is_inner_matrix
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TrainSettings
from tests.train import tiny
from tests.train.test_run import Recorder


@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (96, 256)])
def test_the_factor_is_that_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, *shape)
    x[1] *= 1e-6
    left, values, right = torch.linalg.svd(x, full_matrices=False)
    assert (values / values[:, :1]).min() > 1e-3
    factor = orthogonal_factor(x)
    own = torch.linalg.svdvals(factor)
    assert own.min() > 0.3 and own.max() < 1.7
    cosine = (factor * (left @ right)).flatten(1).sum(1) / (factor.flatten(1).norm(dim=1) * shape[0] ** 0.5)
    assert (cosine > 0.85).all(), cosine


def test_zeros_stay_zeros() -> None:
    assert not orthogonal_factor(torch.zeros(1, 4, 6)).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((384, 128), [(128, 128)] * 3),
        ((512, 300), [(150, 512)] * 2),
        ((160, 416), [(160, 416)]),
        ((6, 2), [(2, 2)] * 3),
    ],
)
def test_parts(shape: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    matrix = torch.zeros(shape)
    found = parts(matrix)
    assert [tuple(part.shape) for part in found] == expected
    for part in found:
        part += 1
    assert (matrix == 1).all(), "parts are views and cover the matrix once"


def test_a_step_has_the_size_of_the_rate_and_decays() -> None:
    weight = nn.Parameter(torch.ones(64, 128))
    muon = Muon([{"params": [weight], "weight_decay": 0.5, "lr": 0.1}], momentum=0.9)
    torch.manual_seed(0)
    weight.grad = torch.randn(64, 128) * 1e-4
    muon.step()
    moved = weight.detach() - 0.95
    assert moved.square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.15)
    still = nn.Parameter(torch.ones(2, 2))
    Muon([{"params": [still]}], momentum=0.9).step()
    assert (still == 1).all(), "what has no gradient stays"


def test_tables_heads_and_vectors_are_not_turned() -> None:
    model = load_model(tiny.folder(), dtype=torch.float32)
    turned = {name for name, weight in model.named_parameters() if is_inner_matrix(name, weight)}
    assert {"visual.patch_embed.proj.weight", "visual.merger.linear_fc1.weight"} <= turned
    assert "language_model.layers.0.self_attn.q_proj.weight" in turned
    assert not [name for name in turned if "embed_tokens" in name or "pos_embed" in name or "norm" in name]


def run_of(out: Path, steps: int, **more: object) -> TrainRun:
    settings = TrainSettings.from_json({
        "language_lr": 3e-3, "mergers_lr": 3e-3, "vision_lr": 3e-3, "steps": steps, "tokens_per_batch": 256,
        "schedule": "constant", "warmup": 0.0, "optimizer": "muon", "save_every": 4, **more,
    })  # fmt: skip
    data = ("synthetic:first_count",)
    return TrainRun(data=data, model=str(tiny.folder()), out=out, settings=settings, limit=8, device="cpu")


def test_a_run_learns_with_it_and_goes_on_exactly(tmp_path: Path) -> None:
    whole, first, rest = Recorder(), Recorder(), Recorder()
    train(run_of(tmp_path / "whole", 12), logs=[whole])
    losses = [report.loss for report in whole.steps]
    assert losses[-1] < 0.7 * losses[0], losses
    run = run_of(tmp_path / "parts", 12)
    stopper = Recorder(after=5, action=lambda: __import__("os").kill(__import__("os").getpid(), 2))
    train(run, logs=[first, stopper])
    train(run, go_on=True, logs=[rest])
    assert [r.loss for r in (*first.steps, *rest.steps)] == losses


def test_wrong_names_are_refused() -> None:
    with pytest.raises(InvalidParams, match="optimizer"):
        TrainSettings.from_json({"steps": 1, "optimizer": "sgd"})
