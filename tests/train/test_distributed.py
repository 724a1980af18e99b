"""Two processes of torchrun against one: the same losses, a checkpoint that loads, and a run that goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen3vl.errors import DataError
from qwen3vl.model.checkpoint import load_model
from qwen3vl.train.distributed import WINDOW, Ranks, fill_together, window_start
from qwen3vl.train.examples import Encoded, Encoder
from qwen3vl.train.lora import load_adapter
from qwen3vl.train.packing import Filled
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TooLong, TrainSettings
from qwen3vl.train.sources import DataFile
from tests import models
from tests.train import tiny
from tests.train.in_threads import two
from tests.train.test_packing import encoded

CPU = torch.device("cpu")


def filled(lengths: Sequence[int], max_tokens: int, longer: TooLong = "skip") -> tuple[list[Filled], list[Filled]]:
    """Each rank's batches of conversations 0, 1, 2, ... of these lengths."""
    examples = [encoded(length, first=i) for i, length in enumerate(lengths)]
    return two(lambda ranks: list(fill_together(ranks.share(examples), max_tokens, longer, ranks)))


def lengths_of(batches: Sequence[Filled]) -> list[list[int]]:
    return [[example.num_tokens for example in batch.examples] for batch in batches]


def test_the_example_of_fill_together() -> None:
    mine, theirs = filled([300, 600, 500, 200, 400, 300], 1000)
    assert lengths_of(mine) == [[300, 500], [400]]
    assert lengths_of(theirs) == [[600, 200], [300]]
    assert [batch.num_taken for batch in mine] == [batch.num_taken for batch in theirs] == [4, 2]


@pytest.mark.parametrize("count", [1, 2, 7, 2 * WINDOW, 2 * WINDOW + 1, 5 * WINDOW])
def test_nothing_is_lost_or_taken_twice(count: int) -> None:
    lengths = [10 + (i * 37) % 91 for i in range(count)]
    mine, theirs = filled(lengths, 100)
    assert len(mine) == len(theirs) and [b.num_taken for b in mine] == [b.num_taken for b in theirs]
    skipped = [name for batch in (*mine, *theirs) for name in batch.skipped]
    seen = [int(e.inputs.input_ids_T[0]) for batch in (*mine, *theirs) for e in batch.examples]
    assert sorted(seen) == [i for i, length in enumerate(lengths) if length <= 100]
    assert len(skipped) == sum(length > 100 for length in lengths)
    assert all(sum(lengths_of([batch])[0]) <= 100 for batch in (*mine, *theirs))
    if count == 1:
        assert lengths_of(theirs) == [[]]  # a batch all the same: the other must not wait


def test_what_is_longer_than_a_batch_may_be_one_alone() -> None:
    mine, theirs = filled([300, 600, 500, 200, 100, 1400, 400, 300], 1000, "alone")
    assert lengths_of(mine) == [[300, 500], [100], [400]]
    assert lengths_of(theirs) == [[600, 200], [1400], [300]]
    assert [batch.num_taken for batch in mine] == [4, 2, 2]


def length(example: Encoded) -> float:
    return example.num_tokens


def balanced(lengths: Sequence[int], start: int = 0) -> tuple[list[Filled], list[Filled]]:
    """Each rank's batches of 300 tokens from conversation `start` on; a conversation costs what it is long."""
    examples = [encoded(n, first=i) for i, n in enumerate(lengths)]

    def work(ranks: Ranks) -> list[Filled]:
        share = ranks.share(examples[window_start(start, ranks) :])
        return list(fill_together(share, 300, "skip", ranks, cost=length, start=start))

    return two(work)


LENGTHS = [10 + (i * 37) % 91 for i in range(5 * WINDOW)]  # two whole windows of two processes, and half a one


def numbers(batches: Sequence[Filled]) -> list[list[int]]:
    return [[int(example.inputs.input_ids_T[0]) for example in batch.examples] for batch in batches]


def test_what_is_done_at_the_same_time_costs_about_the_same() -> None:
    def waiting(batches: tuple[list[Filled], list[Filled]]) -> float:
        mine, theirs = ([sum(each) for each in lengths_of(rank)] for rank in batches)
        number = min(len(mine), len(theirs)) * 2 // 3  # those of whole windows
        return sum(abs(a - b) for a, b in zip(mine[:number], theirs[:number], strict=True)) / number

    assert waiting(balanced(LENGTHS)) < 0.25 * waiting(filled(LENGTHS, 300))


def test_balanced_batches_hold_everything_once_and_in_no_fixed_order() -> None:
    mine, theirs = balanced(LENGTHS)
    taken = [number for batch in (*numbers(mine), *numbers(theirs)) for number in batch]
    assert sorted(taken) == list(range(len(LENGTHS)))
    assert sum(batch.num_taken for batch in mine) == len(LENGTHS)
    first, second = ([[LENGTHS[i] for i in batch] for batch in numbers(mine)[at : at + 8]] for at in (0, 12))
    assert first != second


@pytest.mark.parametrize("batches", [1, 7, 20, 36])
def test_balanced_batches_go_on_where_they_stopped(batches: int) -> None:
    whole = balanced(LENGTHS)
    start = sum(batch.num_taken for batch in whole[0][:batches])
    rest = balanced(LENGTHS, start)
    for mine, all_of_it in zip(rest, whole, strict=True):
        assert numbers(mine) == numbers(all_of_it[batches:])


def test_too_long() -> None:
    with pytest.raises(DataError, match="has 101 tokens, but a batch holds 100"):
        list(fill_together([encoded(101)], 100, "error", Ranks(0, 1, CPU)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 conversations of equal length, every third with a picture; so two processes' batches hold what one's do."""
    folder = tmp_path_factory.mktemp("data")
    tiny.picture(32, 64).save(folder / "a.png")
    lines = []
    for i in range(24):
        question, image = (f"<image>{i:04}", {"image": "a.png"}) if i % 3 == 0 else (f"{i:08}", {})
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"answer {i:02}"}]
        lines.append(json.dumps({"conversations": turns, **image}))
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder / "data.jsonl"


def description(data: Path, out: Path, **settings: Any) -> dict[str, Any]:
    rates = {"language_lr": 1e-3, "mergers_lr": 1e-3, "vision_lr": 1e-3}
    media = {"min_pixels": tiny.SMALL.min_pixels, "max_pixels": tiny.SMALL.max_pixels}
    numbers = {"epochs": 1, "save_every": 3, "keep": 0, "clip_norm": 0.5, "epsilon": 1e-4}
    own = {**rates, **numbers, "media": media, **settings}
    return {"data": [str(data)], "model": str(tiny.folder()), "out": str(out), "device": "cpu", "settings": own}


def losses(out: Path) -> list[float]:
    events = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


def run_here(asked: dict[str, Any]) -> None:
    settings = TrainSettings.from_json(asked["settings"])
    train(TrainRun(**{**asked, "data": tuple(asked["data"]), "out": Path(asked["out"]), "settings": settings}))


def torchrun(folder: Path, *asked: dict[str, Any]) -> None:
    names = []
    for i, each in enumerate(asked):
        names.append(str(folder / f"asked-{i}.json"))
        Path(names[-1]).write_text(json.dumps(each))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "tests.train.two_ranks"]
    done = subprocess.run(
        [sys.executable, *command, *names], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_are_one(data: Path, tmp_path: Path) -> None:
    """On data that end within a window, so that both take them in their order."""
    source, encoder = DataFile.open(data), Encoder(tiny.processor(), tiny.SMALL)
    (length,) = {encoder.measure(source.example(i))[0] for i in range(24)}
    alone = description(data, tmp_path / "alone", tokens_per_batch=2 * length, accumulate=2)
    together = description(data, tmp_path / "together", tokens_per_batch=2 * length)
    states = tmp_path / "together" / "checkpoints"
    again = {**together, "go_on": True, "forget": [str(states / "step-000006")]}
    adapter = description(
        data, tmp_path / "adapter", tokens_per_batch=3 * length, lora={"rank": 2}, precision="bfloat16"
    )
    muon = {"optimizer": "muon", "save_every": 0}  # whole weights in each process
    turned = description(data, tmp_path / "turned", tokens_per_batch=2 * length, accumulate=2, **muon)
    turned_together = description(data, tmp_path / "turned_together", tokens_per_batch=2 * length, **muon)
    run_here(alone)
    run_here(turned)
    torchrun(tmp_path, together, again, adapter, turned_together)
    expected, seen = losses(tmp_path / "alone"), losses(tmp_path / "together")
    assert len(expected) == 6 and expected[-1] < expected[0]
    torch.testing.assert_close(seen[:6], expected, atol=1e-5, rtol=1e-5)
    assert seen[6:] == seen[3:6]  # from the state behind step 3 once more: to the last bit
    load_adapter(load_model(tiny.folder()), tmp_path / "adapter" / "model")
    mine, theirs = (load_model(tmp_path / name / "model").state_dict() for name in ("together", "alone"))
    for name, tensor in theirs.items():
        assert models.difference(mine[name], tensor) < 1e-3, name
    expected = losses(tmp_path / "turned")
    assert len(expected) == 6 and expected[-1] < expected[0]
    torch.testing.assert_close(losses(tmp_path / "turned_together"), expected, atol=1e-5, rtol=1e-5)
