"""Files made to hurt: each must end in a picture or in an error of ours."""

from __future__ import annotations

import random
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import MediaDecodeError, MediaError, MediaTooLarge
from qwen3vl.processor.fetch import Media, MediaPolicy
from qwen3vl.processor.images import load_picture
from qwen3vl.processor.isolation import DecodingPool
from qwen3vl.processor.probe import probe_picture
from tests.fixtures.pictures import all_pictures, png_bomb

POLICY = replace(MediaPolicy.library(), max_pixels=20_000_000)


@pytest.fixture(scope="module")
def hostile(media: Path) -> dict[str, list[Media]]:
    """The files of each hostile set."""
    sets: dict[str, list[Media]] = {}
    for archive in sorted((media / "hostile").glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            files = [Media(m.name, data=tar.extractfile(m).read()) for m in tar if m.isfile()]  # type: ignore[union-attr]
        sets[archive.name.partition("_")[0]] = files
    return sets


def outcome(media: Media) -> str:
    """What loading came to; anything but a picture or a MediaError fails the test by itself."""
    try:
        picture = load_picture(media, POLICY)
    except MediaError as error:
        return type(error).__name__ if media.name in str(error) else f"unnamed: {error}"
    header = probe_picture(media, POLICY)
    assert header.upright_size == picture.pixels.shape[1::-1], media.name
    return "ok"


@pytest.mark.filterwarnings("ignore")
def test_pillows_hostile_pictures(hostile: dict[str, list[Media]]) -> None:
    counts = Counter(outcome(file) for file in hostile["pillow"])
    assert counts["ok"] > 600
    assert counts["MediaTooLarge"] >= 2
    assert set(counts) == {"ok", "MediaTooLarge", "MediaDecodeError"}


@pytest.mark.filterwarnings("ignore")
def test_documents_are_told_from_pictures(hostile: dict[str, list[Media]]) -> None:
    for file in hostile["pdfjs"]:
        with pytest.raises(MediaDecodeError, match=r"is a PDF|not a picture|empty"):
            load_picture(file, POLICY)


def decode_all(files: list[Media], policy: MediaPolicy) -> list[str]:
    """In a worker: loading by itself must not end the process."""
    results = []
    for file in files:
        try:
            load_picture(file, policy)
            results.append("ok")
        except (MediaError, MemoryError) as error:
            results.append(type(error).__name__)
    return results


def test_a_sample_within_a_workers_memory(hostile: dict[str, list[Media]]) -> None:
    names = ("crash", "oom", "timeout", "ossfuzz", "decompression")
    sample = [file for file in hostile["pillow"] if Path(file.name).name.startswith(names)]
    assert len(sample) > 30
    with DecodingPool(workers=1, memory=1 << 30) as pool:
        results = Counter(pool.run(decode_all, sample, POLICY, timeout=120))
    assert results.total() == len(sample)
    assert results["MemoryError"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_hostile_file_alone_in_the_pool(hostile: dict[str, list[Media]]) -> None:
    policy = replace(POLICY, isolate=True, decode_timeout=30.0)
    counts = Counter()
    for file in [*hostile["pillow"], *hostile["pdfjs"]]:
        try:
            load_picture(file, policy)
            counts["ok"] += 1
        except MediaError as error:
            counts["crash" if "crashed" in str(error) else type(error).__name__] += 1
    assert set(counts) == {"ok", "MediaDecodeError", "MediaTooLarge"}


def test_bombs_are_refused_by_their_headers() -> None:
    for size in ((50_000, 50_000), (100_000, 600), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(MediaTooLarge):
            load_picture(png_bomb(*size), POLICY)


@pytest.fixture(scope="module")
def originals() -> list[bytes]:
    return [path.read_bytes() for path in all_pictures().values() if path.stat().st_size < 30_000]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_bytes(originals: list[bytes], seed: int) -> None:
    """Bytes changed, cut out, doubled: in each format."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(1 + (len(data) if rng.random() < 0.5 else min(len(data), 200)))
        kind = rng.randrange(4)
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif kind == 2:
            del data[place : place + rng.randint(1, 50)]
        else:
            data[place:place] = data[place : place + rng.randint(1, 50)]
    try:
        picture = load_picture(bytes(data), POLICY)
    except MediaError:
        return
    assert picture.pixels.size <= 3 * POLICY.max_pixels
