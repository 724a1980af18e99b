"""Where conversations come from: numbered without end, so that a run can go on from any number.

    Source.example(n) -> Example      the same for the same n, in every process

Of files, n counts through one epoch after the other, each in an order of its own that follows from (seed, epoch):
5 conversations, n = 12: epoch 2, third place of that epoch's order. Of generated data, n is the sample's number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qwen3vl.errors import DataError, InvalidParams
from qwen3vl.train.data import Example, media_files, read_line, read_value

_SHOWN = 5  # bad lines that an error lists
_BLOCK = 1000  # numbers after which the pattern of a mixture repeats
_SHARE = re.compile(r"(.+)%(\d+(?:\.\d+)?)")


class Source(Protocol):
    """Numbered conversations.

    Attributes:
        size: conversations to an epoch; None: they never repeat.
        identity: what these data are, in words; a run that goes on checks that it is the same.
    """

    @property
    def size(self) -> int | None: ...

    @property
    def identity(self) -> str: ...

    def example(self, number: int) -> Example: ...

    def key(self, number: int) -> object | None:
        """Equal for numbers that are the same conversation; None where that cannot be."""
        ...


@dataclass(frozen=True, slots=True)
class Checked:
    """One line of a file: its place, and its conversations or what is wrong with it."""

    where: str
    offset: int
    length: int
    examples: tuple[Example, ...] = ()
    error: str | None = None


def scan(path: Path, root: Path | None = None, ignored_keys: Sequence[str] = ()) -> Iterator[Checked]:
    """Every line of a .jsonl file, or every item of a .json list: read, and its media files looked for.

    Empty lines are left out. Raises DataError only where the file itself cannot be read.
    """
    root = path.parent if root is None else root
    for where, offset, raw in _raw_items(path):
        try:
            read = read_value if isinstance(raw, _Parsed) else read_line
            examples = read(raw.value if isinstance(raw, _Parsed) else raw, where, root, ignored_keys)
            for example in examples:
                missing = next((f for f in media_files(example) if not f.is_file()), None)
                if missing is not None:
                    raise DataError(f"{example.where}: {missing}: no such file")
        except DataError as error:
            yield Checked(where, offset, 0, error=str(error))
        else:
            yield Checked(where, offset, 0 if isinstance(raw, _Parsed) else len(raw), examples)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """An item of a .json list."""

    value: Any


def _raw_items(path: Path) -> Iterator[tuple[str, int, bytes | _Parsed]]:
    try:
        if path.suffix == ".json":
            items = json.loads(path.read_bytes())
            if not isinstance(items, list):
                raise DataError(f"{path}: holds {type(items).__name__}, not a list")
            yield from ((f"{path}[{i}]", i, _Parsed(item)) for i, item in enumerate(items))
            return
        with path.open("rb") as file:
            offset = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", offset, line
                offset += len(line)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error})") from error


@dataclass(frozen=True, slots=True)
class DataFile:
    """A training file whose lines have been checked; they are read again when they are needed.

    Attributes:
        index: per conversation (offset of its line, length, number of the line, number in the line).
        items: of a .json file, its items.
    """

    path: Path
    root: Path
    ignored_keys: tuple[str, ...]
    index: np.ndarray
    items: tuple[Any, ...] = ()

    @classmethod
    def open(
        cls, name: str | Path, root: Path | None = None, ignored_keys: Sequence[str] = (), seed: int = 0
    ) -> DataFile:
        """`name` may end in %50: half of the conversations, drawn at random (by the seed).

        Raises DataError that counts the bad lines and shows the first ones.
        """
        path, share = _share_of(str(name))
        rows, errors = [], []
        for line in scan(path, root, ignored_keys):
            if line.error is not None:
                errors.append(line.error)
            number = int(re.split(r"[:\[]", line.where.rstrip("]"))[-1])
            rows += [(line.offset, line.length, number, i) for i in range(len(line.examples))]
        if errors:
            shown = "; ".join(errors[:_SHOWN])
            raise DataError(f"{path}: {len(errors)} bad lines: {shown}{' ...' if len(errors) > _SHOWN else ''}")
        if not rows:
            raise DataError(f"{path}: holds no conversation")
        index = np.array(rows, np.int64)
        if share < 100:
            drawn = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
            index = index[np.sort(drawn[: max(1, round(len(rows) * share / 100))])]
        items = tuple(json.loads(path.read_bytes())) if path.suffix == ".json" else ()
        return cls(path, path.parent if root is None else root, tuple(ignored_keys), index, items)

    def __len__(self) -> int:
        return len(self.index)

    def example(self, i: int) -> Example:
        offset, length, number, item = map(int, self.index[i])
        if self.items:
            return read_value(self.items[offset], f"{self.path}[{number}]", self.root, self.ignored_keys)[item]
        with self.path.open("rb") as file:
            file.seek(offset)
            line = file.read(length)
        return read_line(line, f"{self.path}:{number}", self.root, self.ignored_keys)[item]


def _share_of(name: str) -> tuple[Path, float]:
    match = _SHARE.fullmatch(name)
    if match is None or Path(name).exists():
        return Path(name), 100.0
    share = float(match[2])
    if not 0 < share <= 100:
        raise InvalidParams(f"{name}: the share must be above 0 and at most 100")
    return Path(match[1]), share


class FileSource:
    """The conversations of several files together, each epoch in an order of its own."""

    def __init__(self, files: Sequence[DataFile], seed: int = 0) -> None:
        assert files
        self._files, self._seed = tuple(files), seed
        self._ends = np.cumsum([len(file) for file in files])
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def size(self) -> int:
        return int(self._ends[-1])

    @property
    def identity(self) -> str:
        return ", ".join(f"{file.path.name} ({len(file)} conversations)" for file in self._files)

    def example(self, number: int) -> Example:
        place = self.key(number)
        file = int(np.searchsorted(self._ends, place, side="right"))
        return self._files[file].example(place - int(self._ends[file - 1] if file else 0))

    def key(self, number: int) -> int:
        epoch, place = divmod(number, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _order_of(epoch, self.size, self._seed)
        return int(self._order[place])


def _order_of(epoch: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


class FirstOf:
    """The first `count` conversations of another source again and again, each epoch in an order of its own."""

    def __init__(self, source: Source, count: int, seed: int = 0) -> None:
        self._source, self._seed = source, seed
        self.size = count if source.size is None else min(count, source.size)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    @property
    def identity(self) -> str:
        return f"the first {self.size} of {self._source.identity}"

    def example(self, number: int) -> Example:
        return self._source.example(self.key(number))

    def key(self, number: int) -> int:
        epoch, place = divmod(number, self.size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, _order_of(epoch, self.size, self._seed)
        return int(self._order[place])


class MixedSource:
    """Endless data from several sources in turns, as often as their weights say.

    Weights 2 and 1: numbers 0, 1, 2, 3, 4, 5 are a0, b0, a1, a2, b1, a3: whatever has fallen furthest behind its
    share comes next. The pattern repeats after _BLOCK numbers, of which each source has at least one.
    """

    size = None

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        assert len(sources) == len(weights) and all(weight > 0 for weight in weights), weights
        self._sources, self._weights = tuple(sources), tuple(weights)
        counts = [0] * len(sources)
        self._plan: list[tuple[int, int]] = []
        for n in range(1, _BLOCK + 1):
            source = max(range(len(counts)), key=lambda i: (weights[i] * n / sum(weights) - counts[i], -i))
            self._plan.append((source, counts[source]))
            counts[source] += 1
        if not all(counts):
            raise InvalidParams(f"weights {', '.join(map(str, weights))}: the smallest is below 1/{_BLOCK} of all")
        self._counts = counts

    @property
    def identity(self) -> str:
        return " + ".join(f"{w:g} x {s.identity}" for s, w in zip(self._sources, self._weights, strict=True))

    def example(self, number: int) -> Example:
        source, own = self._of(number)
        return self._sources[source].example(own)

    def key(self, number: int) -> object | None:
        source, own = self._of(number)
        key = self._sources[source].key(own)
        return None if key is None else (source, key)

    def _of(self, number: int) -> tuple[int, int]:
        """-> which source, and its own number."""
        block, place = divmod(number, _BLOCK)
        source, own = self._plan[place]
        return source, block * self._counts[source] + own
