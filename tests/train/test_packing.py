"""Worked examples of packing, schedules and the head in pieces."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from qwen3vl.errors import DataError, InvalidParams
from qwen3vl.inputs import ModelInputs
from qwen3vl.settings import MediaOptions
from qwen3vl.train.examples import IGNORED, Encoded
from qwen3vl.train.loss import cross_entropy_sum
from qwen3vl.train.packing import fill, pack
from qwen3vl.train.schedule import middle, rate_factor
from qwen3vl.train.settings import LoraSettings, TrainSettings


def encoded(length: int, learnt: int = 1, first: int = 0) -> Encoded:
    ids = np.arange(first, first + length)
    labels = np.where(np.arange(length) >= length - learnt, ids, IGNORED)
    return Encoded(ModelInputs(ids), labels, f"of {length}")


def test_the_example_on_top_of_the_file() -> None:
    batch = pack([encoded(3, 1, first=10), encoded(4, 2, first=20)], merge_size=2)
    assert batch.input_ids_T.tolist() == [10, 11, 12, 20, 21, 22, 23]
    assert batch.positions_3T.tolist() == [[0, 1, 2, 0, 1, 2, 3]] * 3
    assert batch.labels_T.tolist() == [-100, -100, 12, -100, -100, 22, 23]
    assert batch.rows_R.tolist() == [1, 4, 5]
    assert batch.targets_R.tolist() == [12, 22, 23]
    assert batch.lengths == (3, 4) and batch.num_labels == 3 and batch.num_tokens == 7


def test_the_first_token_is_never_learnt() -> None:
    with pytest.raises(AssertionError, match="nothing stands before"):
        encoded(3, 3)


def test_batches_are_filled_in_order() -> None:
    sizes = [[e.num_tokens for e in f.examples] for f in fill(map(encoded, [300, 500, 400, 1000, 10]), 1000)]
    assert sizes == [[300, 500], [400], [1000], [10]]


def test_what_is_too_long() -> None:
    lengths = [300, 500, 1200, 400, 1300]
    with pytest.raises(DataError, match="of 1200: has 1200 tokens, but a batch holds 1000"):
        list(fill(map(encoded, lengths), 1000))
    filled = list(fill(map(encoded, lengths), 1000, "skip"))
    assert [f.num_taken for f in filled] == [2, 2]
    assert [f.skipped for f in filled] == [(), ("of 1200",)]
    alone = [[e.num_tokens for e in f.examples] for f in fill(map(encoded, lengths), 1000, "alone")]
    assert alone == [[300, 500], [1200], [400], [1300]]


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**{"steps": 5, **changes})  # type: ignore[arg-type]


def factors(given: TrainSettings, steps: int) -> list[float]:
    return [round(rate_factor(given, middle(step, step + 1, steps)), 2) for step in range(steps)]


def test_schedules() -> None:
    assert factors(settings(warmup=0.4), 5) == [0.25, 0.75, 0.93, 0.5, 0.07]
    assert factors(settings(warmup=0.4, final_share=0.5), 5) == [0.25, 0.75, 0.97, 0.75, 0.53]
    assert factors(settings(warmup=0.2, schedule="wsd", decay=0.4), 5) == [0.5, 1, 1, 0.75, 0.25]
    assert factors(settings(warmup=0.0, schedule="constant"), 2) == [1, 1]
    assert middle(90, 120, 100) == 1.0  # the last batch may hold more than was left


BAD = [
    ({"steps": None}, "either steps or epochs"),
    ({"epochs": 1.0}, "either steps or epochs"),
    ({"steps": 0}, "steps=0 is below 1"),
    ({"language_lr": -1.0}, "language_lr=-1.0 is outside"),
    ({"warmup": 1.5}, "warmup=1.5 is outside"),
    ({"schedule": "linear"}, "schedule='linear' is not one of"),
    ({"schedule": "wsd", "warmup": 0.9}, "more than the whole run"),
    ({"lora": LoraSettings(), "language_lr": None}, "lora needs language_lr"),
    ({"too_long": "cut"}, "too_long='cut'"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_settings_check_themselves(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidParams, match=reason):
        settings(**changes)


def test_settings_as_json(tmp_path: object) -> None:
    given = settings(lora=LoraSettings(rank=4), media=MediaOptions(max_pixels=4096), ignored_keys=("a",))
    assert TrainSettings.from_json(given.to_json()) == given
    assert set(given.to_json()) == {f.name for f in dataclasses.fields(TrainSettings)}
    for values, reason in [({"steps": 1, "lr": 3}, "unknown key 'lr'"), ([], "must be an object")]:
        with pytest.raises(InvalidParams, match=reason):
            TrainSettings.from_json(values)
    with pytest.raises(InvalidParams, match="lora: unknown key 'r'"):
        TrainSettings.from_json({"steps": 1, "lora": {"r": 3}})


def test_the_head_in_pieces() -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False)
    targets = torch.randint(0, 50, (7,))
    losses, gradients = [], []
    for logits_at_once in (1 << 20, 150, 1):  # all at once, 3 rows, 1 row
        hidden = torch.randn(7, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        loss = cross_entropy_sum(head, hidden, targets, logits_at_once)
        gradients.append(torch.autograd.grad(loss, [hidden, head.weight]))
        losses.append(loss.item())
    assert losses == pytest.approx([losses[0]] * 3)
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b)
