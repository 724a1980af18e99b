"""Streams, shards and previews: the same samples whoever makes them, in whatever number of processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.errors import DataError, InvalidParams
from qwen3vl.train.synthetic import shards
from qwen3vl.train.synthetic.preview import write_previews
from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.train.synthetic.shards import Shards, sample_to_json, write_shards
from qwen3vl.train.synthetic.stream import Mix, stream

MIX = Mix.of({"count": 2.0, "question_color": 1.0}, seed=3)  # tasks that need no fonts


def content(sample: SyntheticSample) -> tuple[str, list[bytes]]:
    written, pictures = sample_to_json(sample)
    return json.dumps(written), [p.tobytes() for p in pictures]


def test_a_mix_draws_by_its_weights() -> None:
    drawn = [MIX.at(number) for number in range(600)]
    assert [index for _, index in drawn] == list(range(600))
    assert 350 < sum(task == "count" for task, _ in drawn) < 450
    assert drawn == [MIX.at(number) for number in range(600)]
    assert Mix.of({"count": 1.0}).at(5) == ("count", 5)
    with pytest.raises(InvalidParams, match="no synthetic task 'x'"):
        Mix.of({"x": 1.0})
    with pytest.raises(InvalidParams, match="weight of count must be above 0"):
        Mix.of({"count": 0.0})


def test_processes_change_nothing_and_end() -> None:
    endless = stream(MIX, start=7, workers=2)
    assert [content(s) for s in itertools.islice(endless, 40)] == [content(s) for s in stream(MIX, start=7, count=40)]
    assert multiprocessing.active_children()
    endless.close()
    assert not multiprocessing.active_children()


def test_shards_give_back_what_was_written(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_shards(tmp_path, MIX, 10, per_shard=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.tar", "00001.tar", "00002.tar", "mix.json"]
    read = Shards(tmp_path)
    assert len(read) == 10
    assert [content(s) for s in read.stream(start=3)] == [content(MIX.sample(n)) for n in range(3, 10)]
    assert read.sample(9) != read.sample(8)
    with pytest.raises(DataError, match="no sample 10: it has 10"):
        read.sample(10)


def test_writing_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path, MIX, 4, per_shard=2)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.tar")}
    (tmp_path / "00001.tar").unlink()
    made: list[int] = []
    monkeypatch.setattr(shards, "stream", lambda mix, start, count, workers: _noted(made, start, count))
    write_shards(tmp_path, MIX, 6, per_shard=2)
    assert made == [2, 3, 4, 5] and len(Shards(tmp_path)) == 6
    assert (tmp_path / "00000.tar").stat().st_mtime_ns == before["00000.tar"]
    with pytest.raises(DataError, match="describes other samples"):
        write_shards(tmp_path, Mix.of({"count": 1.0}), 6, per_shard=2)


def _noted(made: list[int], start: int, count: int):
    for number in range(start, start + count):
        made.append(number)
        yield MIX.sample(number)


def test_a_folder_without_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mix.json is missing"):
        Shards(tmp_path)
    (tmp_path / "mix.json").write_text('{"per_shard": 2}')
    (tmp_path / "00001.tar").touch()
    with pytest.raises(DataError, match="shards are missing"):
        Shards(tmp_path)


def test_previews(tmp_path: Path) -> None:
    (path,) = write_previews(tmp_path / "sheets", ["count"], 3, 0, "train")
    assert path.name == "count.png"
    sheet = Image.open(path)
    assert sheet.width == 1600 and sheet.height > 100
    reds = sum(n for n, (r, g, b) in sheet.getcolors(1 << 22) or () if (r, g, b) == (225, 20, 40))
    assert reds > 50  # the marks are drawn
    with pytest.raises(InvalidParams, match="no synthetic task"):
        write_previews(tmp_path, ["nothing"], 1, 0, "train")
