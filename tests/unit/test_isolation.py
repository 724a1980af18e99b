"""Workers that crash, hang or run out of memory, seen from the parent that must not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3vl.errors import MediaDecodeError, MediaForbidden, MediaTimeout, MediaTooLarge
from qwen3vl.processor import isolation
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.images import load_picture, prepare_picture
from qwen3vl.processor.isolation import DecodingPool
from qwen3vl.processor.probe import probe_picture
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.types import ImagePart
from tests.fixtures.pictures import make_broken, scene

POLICY = replace(MediaPolicy.library(), isolate=True)


def double(array: np.ndarray) -> np.ndarray:
    return array * 2


def fail_with_ours(words: str) -> None:
    raise MediaForbidden(words)


def fail_with_another() -> None:
    raise RuntimeError("deep inside")


def exhaust_memory() -> int:
    return len(bytearray(1 << 40))


def loaded_modules() -> tuple[str, ...]:
    return tuple(sys.modules)


@pytest.fixture(scope="module")
def pool():  # type: ignore[no-untyped-def]
    with DecodingPool(workers=1) as pool:
        yield pool


def test_arrays_come_back_writable_and_equal(pool: DecodingPool) -> None:
    array = np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3)
    result = pool.run(double, array, timeout=60)
    assert np.array_equal(result, array * 2)
    result[0] = 0


def test_a_worker_is_reused(pool: DecodingPool) -> None:
    assert pool.run(os.getpid, timeout=60) == pool.run(os.getpid, timeout=60) != os.getpid()


@pytest.mark.parametrize("end", [(os.abort,), (os._exit, 0)])
def test_a_crash_is_an_error_and_the_next_task_works(pool: DecodingPool, end: tuple) -> None:
    with pytest.raises(MediaDecodeError, match=r"a\.png: the decoder crashed"):
        pool.run(*end, timeout=60, name="a.png")
    assert pool.run(int, "7", timeout=60) == 7


def test_a_worker_that_died_while_idle_is_nobodys_fault(pool: DecodingPool) -> None:
    pool.run(int, "7", timeout=60)
    pool._idle[0].process.kill()
    pool._idle[0].process.wait()
    assert pool.run(int, "7", timeout=60) == 7


def test_a_hanging_worker_is_ended(pool: DecodingPool) -> None:
    worker = pool.run(os.getpid, timeout=60)
    with pytest.raises(MediaTimeout, match=r"a\.png: not decoded within 0\.2 s"):
        pool.run(time.sleep, 600, timeout=0.2, name="a.png")
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert pool.run(int, "7", timeout=60) == 7


def test_memory_is_limited(pool: DecodingPool) -> None:
    worker = pool.run(os.getpid, timeout=60)
    with pytest.raises(MediaTooLarge, match=r"a\.png: decoding needs more than the 4096 MiB"):
        pool.run(exhaust_memory, timeout=60, name="a.png")
    assert pool.run(os.getpid, timeout=60) != worker  # what it had claimed is given back


def test_errors_keep_their_class_and_words(pool: DecodingPool) -> None:
    worker = pool.run(os.getpid, timeout=60)
    with pytest.raises(MediaForbidden, match=r"^just these words$"):
        pool.run(fail_with_ours, "just these words", timeout=60)
    with pytest.raises(MediaDecodeError, match=r"a\.png: cannot be decoded \(RuntimeError: deep inside\)"):
        pool.run(fail_with_another, timeout=60, name="a.png")
    assert pool.run(os.getpid, timeout=60) == worker


def test_threads_share_the_pool() -> None:
    with DecodingPool(workers=2) as pool, ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda i: pool.run(int, str(i), timeout=60), range(20)))
    assert results == list(range(20))


def test_closing_ends_the_workers() -> None:
    pool = DecodingPool(workers=1)
    worker = pool.run(os.getpid, timeout=60)
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_decoding_imports_no_torch() -> None:
    with DecodingPool(workers=1) as pool:
        picture = pool.run(load_picture, scene(40, 30), timeout=60)
        modules = pool.run(loaded_modules, timeout=60)
    assert picture.pixels.shape == (30, 40, 3)
    assert "PIL.Image" in modules
    assert not {"torch", "av", "httpx", "transformers"} & set(modules)


def test_the_policy_switches_isolation_on(tmp_path: Path) -> None:
    scene(90, 70).save(tmp_path / "a.png")
    settings = VisionSettings(16, 2, 2, 65536, 1 << 24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    inside, outside = (
        prepare_picture(ImagePart(tmp_path / "a.png"), settings, None, p) for p in (POLICY, MediaPolicy())
    )
    assert np.array_equal(inside.patches.read(), outside.patches.read())
    assert inside.receipt == outside.receipt
    assert isolation._pool is not None
    for name, path in make_broken(tmp_path).items():
        with pytest.raises((MediaDecodeError, MediaTooLarge), match=name.replace(".", r"\.")) as there:
            load_picture(path, POLICY)
        with pytest.raises(type(there.value)) as here:
            load_picture(path)
        assert str(there.value) == str(here.value)


def test_a_fork_has_workers_of_its_own() -> None:
    worker = isolation.run(os.getpid, policy=POLICY)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # in the fork: nothing of pytest may run
        status = 1
        try:
            isolation._pool.close()  # type: ignore[union-attr]
            os.write(write_end, str(isolation.run(os.getpid, policy=POLICY)).encode())
            isolation._pool.close()  # type: ignore[union-attr]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert int(os.read(read_end, 20)) != worker
    assert isolation.run(os.getpid, policy=POLICY) == worker
    os.close(read_end), os.close(write_end)


def test_probing_is_isolated_too(tmp_path: Path) -> None:
    scene(90, 70).save(tmp_path / "a.png")
    before = isolation.run(os.getpid, policy=POLICY)
    assert probe_picture(tmp_path / "a.png", POLICY) == probe_picture(tmp_path / "a.png", MediaPolicy())
    assert isolation._pool is not None
    assert [(w.process.pid, w.num_tasks > 1) for w in isolation._pool._idle] == [(before, True)]


def test_scripts_without_a_main_guard_work(tmp_path: Path) -> None:
    """multiprocessing's own spawn would run such a script again in each worker."""
    scene(90, 70).save(tmp_path / "a.png")
    script = tmp_path / "script.py"
    script.write_text(
        "from qwen3vl.processor.fetch import MediaPolicy\n"
        "from qwen3vl.processor.images import load_picture\n"
        "print(load_picture('a.png', MediaPolicy(isolate=True)).pixels.shape)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("(70, 90, 3)\n", "")
