"""Samples written ahead: tar files of PNG pictures and JSON, read again in order or by number.

    folder/mix.json        what was written: the mix, samples to a shard, schema version
    folder/00000.tar       000000000.json, 000000000.0.png, ... one JSON and its pictures for each sample

A shard gets its name when it is whole, so a run that was stopped goes on with the first shard that is missing, and
a reader never sees half of one. Pictures come back pixel for pixel.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from qwen3vl.errors import DataError
from qwen3vl.train.synthetic.sample import Mark, SyntheticSample, truth_from_json, truth_to_json
from qwen3vl.train.synthetic.stream import Mix, stream
from qwen3vl.types import ImagePart, MediaOptions, Message, Part, TextPart, VideoPart

VERSION = 1
Progress = Callable[[int, int], None]
"""Told (samples written, samples wanted)."""


def write_shards(
    folder: Path, mix: Mix, count: int, *, per_shard: int = 1000, workers: int = 0, progress: Progress | None = None
) -> None:
    """Samples 0..count-1 of a mix; shards that are there already are kept.

    Raises DataError if the folder holds another mix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_meta(folder, {"version": VERSION, "per_shard": per_shard, **dataclasses.asdict(mix)})
    first = 0
    while first < count and (folder / _name(first // per_shard)).exists():
        first += per_shard
    made = stream(mix, first, max(0, count - first), workers)
    try:
        for start in range(first, count, per_shard):
            numbers = range(start, min(start + per_shard, count))
            _write_shard(folder / _name(start // per_shard), ((n, next(made)) for n in numbers))
            if progress:
                progress(numbers.stop, count)
    finally:
        made.close()


def _name(shard: int) -> str:
    return f"{shard:05d}.tar"


def _check_meta(folder: Path, meta: dict[str, Any]) -> None:
    path = folder / "mix.json"
    meta = json.loads(json.dumps(meta))
    if not path.exists():
        path.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != meta:
        raise DataError(f"{path} describes other samples: choose another folder, or remove it")


def _write_shard(path: Path, samples: Iterator[tuple[int, SyntheticSample]]) -> None:
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for number, sample in samples:
            written, pictures = sample_to_json(sample)
            _add(tar, f"{number:09d}.json", json.dumps(written, ensure_ascii=False).encode())
            for at, picture in enumerate(pictures):
                file = io.BytesIO()
                picture.save(file, "PNG", compress_level=1)
                _add(tar, f"{number:09d}.{at}.png", file.getvalue())
    part.replace(path)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # without times and owners: the same samples are the same file
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


class Shards:
    """A folder of shards: `len`, `sample(number)`, `stream(start)`. Raises DataError if it is no such folder."""

    def __init__(self, folder: Path) -> None:
        meta = folder / "mix.json"
        if not meta.is_file():
            raise DataError(f"{folder} holds no shards: mix.json is missing")
        self.folder = folder
        self.per_shard: int = json.loads(meta.read_text(encoding="utf-8"))["per_shard"]
        self.files = sorted(folder.glob("[0-9]*.tar"))
        if [f.name for f in self.files] != [_name(i) for i in range(len(self.files))] or not self.files:
            raise DataError(
                f"{folder}: shards are missing: there are {', '.join(f.name for f in self.files) or 'none'}"
            )

    def __len__(self) -> int:
        last = sum(name.endswith(".json") for name in _open(self.files[-1]).getnames())
        return (len(self.files) - 1) * self.per_shard + last

    def sample(self, number: int) -> SyntheticSample:
        """By its number, from 0. Raises DataError if it was not written."""
        shard = number // self.per_shard
        name = f"{number:09d}"
        if not 0 <= shard < len(self.files) or f"{name}.json" not in _open(self.files[shard]).getnames():
            raise DataError(f"{self.folder} has no sample {number}: it has {len(self)}")
        tar = _open(self.files[shard])
        return sample_from_json(
            json.loads(_read(tar, f"{name}.json")), lambda at: Image.open(io.BytesIO(_read(tar, f"{name}.{at}.png")))
        )

    def stream(self, start: int = 0) -> Iterator[SyntheticSample]:
        """From a number on to the last."""
        for number in range(start, len(self)):
            yield self.sample(number)


@lru_cache(maxsize=4)
def _open(path: Path) -> tarfile.TarFile:
    return tarfile.open(path, "r:")


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file, name
    return file.read()


# -------------------------------------------------------------------------------------------- JSON


def sample_to_json(sample: SyntheticSample) -> tuple[dict[str, Any], list[Image.Image]]:
    """Plain JSON in which pictures and frames are numbers, and the pictures by these numbers."""
    pictures: list[Image.Image] = []
    messages = [
        {"role": m.role, "content": [_part_to_json(part, pictures) for part in m.content]} for m in sample.messages
    ]
    return {
        "task": sample.task,
        "key": sample.key,
        "messages": messages,
        "answer": sample.answer,
        "truth": truth_to_json(sample.truth),
        "marks": [dataclasses.asdict(mark) for mark in sample.marks],
        "media": _options_to_json(sample.media),
        "tools": list(sample.tools),
    }, pictures


def _part_to_json(part: Part, pictures: list[Image.Image]) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    frames: list[Any] = [part.image] if isinstance(part, ImagePart) else list(part.video)  # type: ignore[arg-type]
    first = len(pictures)
    for frame in frames:
        pictures.append(frame if isinstance(frame, Image.Image) else Image.fromarray(frame))
    media = _options_to_json(part.media)
    if isinstance(part, ImagePart):
        return {"image": first, "media": media}
    numbers = list(range(first, len(pictures)))
    return {"video": numbers, "media": media, "frame_rate": part.frame_rate, "frame_times": part.frame_times}


def _options_to_json(options: MediaOptions | None) -> dict[str, Any] | None:
    if options is None:
        return None
    return {name: value for name, value in dataclasses.asdict(options).items() if value is not None}


def sample_from_json(written: dict[str, Any], picture: Callable[[int], Image.Image]) -> SyntheticSample:
    """The sample that `sample_to_json` wrote; `picture` gives a picture by its number."""
    messages = tuple(
        Message(m["role"], tuple(_part_from_json(part, picture) for part in m["content"])) for m in written["messages"]
    )
    marks = tuple(
        Mark(tuple(m["place"]), m["label"], m["picture"], None if m["time"] is None else tuple(m["time"]))
        for m in written["marks"]
    )
    truth, media = truth_from_json(written["truth"]), _options_from_json(written["media"])
    tools = tuple(written["tools"])
    return SyntheticSample(written["task"], messages, written["answer"], truth, marks, media, written["key"], tools)


def _part_from_json(part: dict[str, Any], picture: Callable[[int], Image.Image]) -> Part:
    if "text" in part:
        return TextPart(part["text"])
    media = _options_from_json(part["media"])
    if "image" in part:
        return ImagePart(picture(part["image"]), media)
    times = None if part["frame_times"] is None else tuple(part["frame_times"])
    return VideoPart([picture(at) for at in part["video"]], media, part["frame_rate"], times)


def _options_from_json(written: dict[str, Any] | None) -> MediaOptions | None:
    return None if written is None else MediaOptions(**written)
