"""Bytes of the cache, amounts as people write them, and what a machine has, from fake /proc and /sys."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from qwen3vl.engine import memory
from qwen3vl.engine.memory import (
    Available,
    available_memory,
    default_kv_memory,
    format_bytes,
    kv_bytes_per_token,
    num_blocks,
    parse_bytes,
)
from qwen3vl.errors import InvalidParams
from qwen3vl.model.editions import edition

GIB = 2**30
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (123, 123),
        ("4294967296", 4 * GIB),
        ("4GiB", 4 * GIB),
        ("4gib", 4 * GIB),
        ("4G", 4 * GIB),
        (" 1.5 MiB ", 1572864),
        ("4.5GB", 4_500_000_000),
        ("2 kB", 2000),
        ("0", 0),
        ("7b", 7),
    ],
)
def test_parse_bytes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4 GiBs", "-1GiB", "1e9", "4,5GB", "half", -1, True, 2.5, None])
def test_not_an_amount(text: object) -> None:
    with pytest.raises(InvalidParams, match="is not an amount of memory: write 4GiB"):
        parse_bytes(text)  # type: ignore[arg-type]


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 4 * GIB)] == ["0 bytes", "1023 bytes", "1.5 KiB", "4.0 GiB"]
    assert format_bytes(3000 * 1024 * GIB) == "3000.0 TiB"


def test_worked_example() -> None:
    """The numbers at the top of memory.py."""
    text = edition("4b").text
    per_token = kv_bytes_per_token(text, torch.bfloat16)
    assert per_token == 36 * 8 * 128 * 2 * 2 == 147_456
    assert parse_bytes("4GiB") // per_token == 29_127 and num_blocks(parse_bytes("4GiB"), per_token, 16) == 1820
    assert kv_bytes_per_token(text, torch.bfloat16, "int8") == 36 * 8 * (128 + 4) * 2 == 76_032
    assert kv_bytes_per_token(text, torch.float32) == 2 * per_token
    assert kv_bytes_per_token(text, torch.float32, "bfloat16") == per_token


@pytest.mark.parametrize(("row", "name"), [("2B", "2b"), ("4B, 8B", "4b"), ("4B, 8B", "8b"), ("30B-A3B", "30b-a3b")])
def test_the_table_of_the_docs(row: str, name: str) -> None:
    text, page = edition(name).text, (Path(__file__).parents[2] / "docs" / "engine.md").read_text(encoding="utf-8")
    wide, narrow = (kv_bytes_per_token(text, torch.bfloat16, kv_dtype) for kv_dtype in ("model", "int8"))
    kib = " | ".join(f"{math.floor(size / 1024 + 0.5)} KiB" for size in (wide, narrow))
    assert f"| {row} | {kib} | {4 * GIB // wide:,} | {4 * GIB // narrow:,} |" in page


def test_not_one_block() -> None:
    assert num_blocks(1600, 100, 16) == 1
    with pytest.raises(InvalidParams, match=r"kv_memory=1.6 KiB does not hold one block of 16 tokens.* 1.7 KiB"):
        num_blocks(1599, 110, 16)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   16777216 kB\n"
MACHINE = {"proc/meminfo": MEMINFO}
V2 = {
    "proc/self/cgroup": "0::/user/job\n",
    "sys/fs/cgroup/user/job/memory.max": "max\n",
    "sys/fs/cgroup/user/job/memory.current": f"{2 * GIB}\n",
    "sys/fs/cgroup/user/memory.max": f"{8 * GIB}\n",
    "sys/fs/cgroup/user/memory.current": f"{6 * GIB}\n",
    "sys/fs/cgroup/user/memory.stat": f"anon {3 * GIB}\nfile {3 * GIB}\ninactive_file {3 * GIB}\n",
}
V1 = {
    "proc/self/cgroup": "9:cpu,cpuacct:/x\n4:pids,memory:/docker/abc\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB // 2}\ninactive_file 1\n",
}


def test_machine_alone(tmp_path: Path) -> None:
    assert available_memory(write(tmp_path, MACHINE)) == Available(16 * GIB, "MemAvailable")


def test_group_above_ours_limits_us(tmp_path: Path) -> None:
    """8 GiB, of which 6 are used, 3 of those for file cache: 8 - 3 = 5 can be had."""
    assert available_memory(write(tmp_path, MACHINE | V2)) == Available(5 * GIB, "memory.max = 8.0 GiB")


def test_container_that_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    """Version 1; the path in /proc is the host's. 4 - (1 - 0.5) = 3.5."""
    bound = available_memory(write(tmp_path, MACHINE | V1))
    assert bound == Available(7 * GIB // 2, "memory.limit_in_bytes = 4.0 GiB")


def test_no_limit_is_no_bound(tmp_path: Path) -> None:
    without = V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert available_memory(write(tmp_path, MACHINE | without)).bound == "MemAvailable"


def test_group_that_is_full(tmp_path: Path) -> None:
    full = V2 | {"sys/fs/cgroup/user/job/memory.max": "1000\n"}
    assert available_memory(write(tmp_path, MACHINE | full)).bytes == 0


def test_address_space(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    files = {
        "proc/self/limits": "Limit   Soft Limit  Hard Limit  Units\nMax address space   3000000000   unlimited bytes\n",
        "proc/self/statm": "100000 1 1 1 0 1 0\n",
    }
    assert available_memory(write(tmp_path, MACHINE | files)).bytes == 3_000_000_000 - 100_000 * page
    unlimited = {"proc/self/limits": "Max address space         unlimited   unlimited  bytes\n"}
    assert available_memory(write(tmp_path, unlimited)).bound == "MemAvailable"


def test_system_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory(tmp_path) == Available(2_048_000, "half of the physical memory")
    monkeypatch.delattr(os, "sysconf")
    assert available_memory(tmp_path).bytes == 4 * GIB


def test_this_machine() -> None:
    assert 2**20 < available_memory().bytes < 2**60


def test_default_on_the_cpu(tmp_path: Path) -> None:
    root = write(tmp_path, MACHINE)
    assert default_kv_memory([CPU] * 36, root=root) == 8 * GIB
    assert default_kv_memory([CPU] * 36, set_aside=GIB, root=root) == 7 * GIB
    assert default_kv_memory([CPU], set_aside=99 * GIB, root=root) == 0


def test_default_over_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 layers on a GPU with 10 GiB free, 10 on the CPU with 16: 0.8 x 10 / 30 x 40 = 10.7 GiB, and 32 GiB."""
    monkeypatch.setattr(memory, "free_cuda_memory", lambda device: 10 * GIB)
    devices = [torch.device("cuda:0")] * 30 + [CPU] * 10
    assert default_kv_memory(devices, root=write(tmp_path, MACHINE)) == int(8 * GIB * 40 / 30)
    assert default_kv_memory(devices, 2 * GIB, write(tmp_path, MACHINE)) == int(6 * GIB * 40 / 30)


@pytest.mark.skipif(memory._malloc_trim() is None, reason="not with this C library")
def test_what_is_freed_between_other_pieces_is_given_back() -> None:
    pieces = [torch.ones(16384) for _ in range(800)]  # 64 KiB each: too small for pages of their own
    held = _resident()
    del pieces[:-1]
    memory.give_back()
    assert held - _resident() > 30 * 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
