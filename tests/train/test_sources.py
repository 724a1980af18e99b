"""Numbered conversations: the same for the same number, whoever asks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from qwen3vl.errors import DataError, InvalidParams
from qwen3vl.train.data import Example
from qwen3vl.train.data_specs import open_source, parse_mix
from qwen3vl.train.loader import EncoderRecipe, prepare, prepare_in_processes
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sources import DataFile, FileSource, FirstOf, MixedSource, scan
from qwen3vl.train.synthetic.shards import write_shards
from qwen3vl.train.synthetic.stream import Mix
from tests.train import tiny

SETTINGS = TrainSettings(steps=1)


def item(answer: str, **more: object) -> dict[str, object]:
    return {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": answer}], **more}


def write(path: Path, items: list[object]) -> Path:
    path.write_text("".join(json.dumps(i) + "\n" for i in items) if path.suffix == ".jsonl" else json.dumps(items))
    return path


def answer(example: Example) -> str:
    return example.messages[-1].text


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_epochs(tmp_path: Path, ending: str) -> None:
    file = DataFile.open(write(tmp_path / f"a.{ending}", [item("a"), [item("b"), item("c")], item("d"), item("ä")]))
    source = FileSource([file], seed=3)
    epochs = [[answer(source.example(5 * epoch + i)) for i in range(5)] for epoch in range(3)]
    assert all(sorted(epoch) == ["a", "b", "c", "d", "ä"] for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[1] != epochs[2]
    assert answer(FileSource([file], seed=3).example(12)) == epochs[2][2]
    where = {answer(file.example(i)): file.example(i).where for i in range(5)}
    assert where["c"] == (f"{tmp_path}/a.jsonl:2, item 1" if ending == "jsonl" else f"{tmp_path}/a.json[1], item 1")


def test_several_files_and_shares(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [item(f"a{i}") for i in range(10)])
    b = write(tmp_path / "b.jsonl", [item(f"b{i}") for i in range(3)])
    source = open_source([f"{a}%30", str(b)], None, SETTINGS, "train")
    assert source.size == 6
    answers = [answer(source.example(n)) for n in range(6)]
    assert sum(x.startswith("a") for x in answers) == 3 and len(set(answers)) == 6
    again = open_source([f"{a}%30", str(b)], None, SETTINGS, "train")
    assert [answer(again.example(n)) for n in range(6)] == answers
    with pytest.raises(InvalidParams, match="share must be above 0"):
        open_source([f"{a}%0"], None, SETTINGS, "train")


def test_every_bad_line_is_found(tmp_path: Path) -> None:
    tiny.picture().save(tmp_path / "there.png")
    tagged = {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(item("ok")), "{", "", json.dumps({**tagged, "image": "no.png"}), json.dumps(item("x", y=1))]
    path.write_text("\n".join([*lines, json.dumps({**tagged, "image": "there.png"})]) + "\n")
    errors = [line.error for line in scan(path)]
    assert [error is None for error in errors] == [True, False, False, False, True]
    assert f"{path}:2: is not valid JSON" in str(errors[1])
    assert f"{path}:4: {tmp_path}/no.png: no such file" in str(errors[2])
    assert f"{path}:5: unknown key 'y'" in str(errors[3])
    with pytest.raises(DataError, match=r"a.jsonl: 3 bad lines: .*a.jsonl:2: .*a.jsonl:4: .*a.jsonl:5: "):
        DataFile.open(path)
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read"):
        DataFile.open(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="holds no conversation"):
        DataFile.open(write(tmp_path / "empty.jsonl", []))


def test_mixtures(tmp_path: Path) -> None:
    a, b = (FileSource([DataFile.open(write(tmp_path / f"{n}.jsonl", [item(n)]))]) for n in "ab")
    mixed = MixedSource([a, b], [2, 1])
    assert "".join(answer(mixed.example(n)) for n in range(6)) == "abaaba"
    drawn = MixedSource([a, b], [1, 3])
    assert sum(answer(drawn.example(n)) == "b" for n in range(2000)) == 1500
    owns = [drawn._of(n) for n in range(3000)]  # each source's own numbers count up without gaps
    for source in (0, 1):
        assert [own for s, own in owns if s == source] == list(range(sum(s == source for s, _ in owns)))
    with pytest.raises(InvalidParams, match="below 1/1000"):
        MixedSource([a, b], [1, 5000])


def test_generated_samples() -> None:
    assert parse_mix("count, locate=3") == {"count": 1.0, "locate": 3.0}
    for text, reason in [("nothing", "no synthetic task"), ("count=x", "not a number"), ("count=0", "above 0")]:
        with pytest.raises(InvalidParams, match=reason):
            parse_mix(text)
    source = open_source(["synthetic:count,locate_small=3"], None, SETTINGS, "train")
    examples = [source.example(n) for n in range(8)]
    wheres = [example.where for example in examples]
    assert sorted(wheres) == [
        *(f"train/count/0/{i}" for i in range(2)),
        *(f"train/locate_small/0/{i}" for i in range(6)),
    ]
    assert all(example.messages[-1].role == "assistant" for example in examples)
    assert source.example(5) == open_source(["synthetic:count,locate_small=3"], None, SETTINGS, "train").example(5)
    assert open_source(["synthetic:count"], None, SETTINGS, "heldout").example(0).where.startswith("heldout/count")
    few = FirstOf(source, 3, seed=1)
    assert {few.example(n).where for n in range(9)} == {example.where for example in examples[:3]}


def test_shards_are_the_same_samples(tmp_path: Path) -> None:
    write_shards(tmp_path, Mix.of({"count": 1.0}), 3, per_shard=2)
    made, read = (open_source([name], None, SETTINGS, "train") for name in ("synthetic:count", f"shards:{tmp_path}"))
    assert read.size == 3 and made.size is None
    for n in range(4):
        one, other = made.example(n % 3), read.example(n)
        assert (one.where, one.messages[-1], one.media) == (other.where, other.messages[-1], other.media)
    both = open_source(["synthetic:count", f"shards:{tmp_path}"], None, SETTINGS, "train")
    assert both.size is None and [both.example(n).where[-1] for n in range(4)] == ["0", "0", "1", "1"]


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [item(f"answer {i}") for i in range(21)])
    source, recipe = FileSource([DataFile.open(path)], 1), EncoderRecipe(tiny.folder(), tiny.SMALL)
    here = list(prepare(source, range(3, 40), recipe.make()))
    there = list(prepare_in_processes(source, range(3, 40), recipe, 1))
    assert len(here) == len(there) == 37
    for a, b in zip(here, there, strict=True):
        assert a.where == b.where and np.array_equal(a.labels_T, b.labels_T)
    endless = prepare_in_processes(source, itertools.count(), recipe, 1)
    assert next(endless).where
    endless.close()
