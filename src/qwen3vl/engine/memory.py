"""How much memory the key/value cache may take, and how many tokens that holds.

Worked example, the 4B in bfloat16: 36 layers x 8 key/value heads x 128 values x 2 bytes, for keys and for
values: 147,456 bytes a token. 4 GiB hold 29,127 tokens, which is 1820 blocks of 16. As int8 a head takes
128 bytes and a float32 scale: 76,032 bytes a token.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from qwen3vl.config import TextConfig
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import KvDtype

SCALE_BYTES = 4  # of an int8 cache: float32, one for each token and head
CPU_SHARE = 0.5  # of what is free: activations, pictures being prepared and other programs need some too
CUDA_SHARE = 0.8  # of what is free once the weights are loaded; the rest is for activations
_UNKNOWN_MEMORY = 4 * 2**30  # taken as free on systems that have neither /proc nor sysconf

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", 1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}


def parse_bytes(size: int | str) -> int:
    """Bytes of 4294967296, "4GiB", "4G" (the same) or "4.5 GB" (powers of 1000). Raises InvalidParams."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", size) if isinstance(size, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise InvalidParams(f"{size!r} is not an amount of memory: write 4GiB, 512MiB, 4.5GB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(size: int) -> str:
    """1536 -> "1.5 KiB"."""
    value, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def kv_bytes_per_token(config: TextConfig, dtype: torch.dtype, kv_dtype: KvDtype = "model") -> int:
    """Keys and values of one token in all layers of a model that computes in `dtype`. See the top of the file."""
    heads, size = config.num_hidden_layers * config.num_key_value_heads, config.head_dim
    of_a_head = {"model": size * dtype.itemsize, "bfloat16": size * 2, "int8": size + SCALE_BYTES}
    return 2 * heads * of_a_head[kv_dtype]


def num_blocks(kv_memory: int, bytes_per_token: int, block_size: int) -> int:
    """Whole blocks within the budget. Raises InvalidParams if there is not one."""
    blocks = kv_memory // (bytes_per_token * block_size)
    if blocks == 0:
        raise InvalidParams(
            f"kv_memory={format_bytes(kv_memory)} does not hold one block of {block_size} tokens, which takes "
            f"{format_bytes(bytes_per_token * block_size)}"
        )
    return blocks


def default_kv_memory(layer_devices: Sequence[torch.device], set_aside: int = 0, root: Path = Path("/")) -> int:
    """A share of what is free now, with the weights loaded.

    Args:
        layer_devices: of each decoder layer; the layers' parts are equal, so the device with the least
            room for its layers decides.
        set_aside: bytes on the first layer's device that are promised to something else (the vision cache).
        root: where /proc and /sys are, for tests.
    """
    budgets = []
    for device in dict.fromkeys(layer_devices):
        if device.type == "cuda":
            free = CUDA_SHARE * free_cuda_memory(device)
        else:
            free = CPU_SHARE * available_memory(root).bytes
        free -= set_aside if device == layer_devices[0] else 0
        budgets.append(max(0, free) * len(layer_devices) / layer_devices.count(device))
    return int(min(budgets))


def free_cuda_memory(device: torch.device) -> int:
    """What the driver has free, and what torch holds without using it."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def give_back() -> None:
    """Memory that was freed goes back to the system, where the C library is glibc: it keeps pieces between others.

    After a picture of 3072 patches that is 130 MB, which the decoder's first pass would come on top of.
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if os.name != "posix":
        return None
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if found is not None:
        found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Available:
    """Bytes that can still be had, and what bounds them, for people."""

    bytes: int
    bound: str


def available_memory(root: Path = Path("/")) -> Available:
    """The least of what the machine, the control groups (v1, v2) and `ulimit -v` leave this process."""
    bounds = [*_machine(root), *_cgroups(root), *_address_space(root)]
    return min(bounds, key=lambda bound: bound.bytes)


def _machine(root: Path) -> Iterator[Available]:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield Available(int(line.split()[1]) * 1024, "MemAvailable")
            return
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        yield Available(_UNKNOWN_MEMORY, "unknown machine")
    else:  # what of it is in use is not known: macOS
        yield Available(physical // 2, "half of the physical memory")


def _cgroups(root: Path) -> Iterator[Available]:
    """Limits on this process's groups and all groups above them.

    Lines of /proc/self/cgroup are "0::/a/b" (v2) or "4:memory:/a/b" (v1, files under memory/). In a
    container the path may be the host's, and not there: then the groups above it count that are.
    """
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if (number, controllers) == ("0", ""):
            names = ("memory.max", "memory.current", "inactive_file")
            tops = [mount, mount / "unified"]
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            tops = [mount / "memory"]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for top in tops:
            for depth in range(len(parts), -1, -1):
                yield from _group(top.joinpath(*parts[:depth]), *names)


def _group(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> Iterator[Available]:
    """What one group leaves; its file cache that is not in use can be taken back, so it counts as free."""
    limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
    if not limit.isdigit() or not usage.isdigit():  # "max", or no such file
        return
    statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    in_use = max(0, int(usage) - int(statistics.get(cache_name, 0)))
    yield Available(max(0, int(limit) - in_use), f"{limit_name} = {format_bytes(int(limit))}")


def _address_space(root: Path) -> Iterator[Available]:
    """`ulimit -v` counts what is laid out, even if it is never touched."""
    match = re.search(r"^Max address space\s+(\d+)", _read(root / "proc/self/limits"), re.MULTILINE)
    pages = _read(root / "proc/self/statm").split()
    if match and pages:
        used = int(pages[0]) * os.sysconf("SC_PAGE_SIZE")
        yield Available(max(0, int(match[1]) - used), f"ulimit -v = {format_bytes(int(match[1]))}")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
