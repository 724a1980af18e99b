"""The compiled kernels: found, opened and described to ctypes; None where they were not built.

QWEN3VL_CPU_KERNELS chooses by hand: "off", or the instruction set to use: "plain", "avx2", "avx512", "neon".
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from ctypes import c_char_p, c_double, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from qwen3vl.errors import InvalidParams

ABI_VERSION = 6
_NAME = "libqwen3vl_cpu.dylib" if sys.platform == "darwin" else "libqwen3vl_cpu.so"
_SIGNATURES = {
    "qwen3vl_abi_version": (c_int, []),
    "qwen3vl_isa": (c_char_p, []),
    "qwen3vl_use_isa": (c_int, [c_char_p]),
    "qwen3vl_set_threads": (None, [c_int]),
    "qwen3vl_threads": (c_int, []),
    "qwen3vl_packed_bytes": (c_size_t, [c_int, c_int64, c_int64]),
    "qwen3vl_pack": (None, [c_int, c_void_p, c_int, c_int64, c_int64, c_void_p, c_void_p]),
    "qwen3vl_unpack_rows": (None, [c_int, c_void_p, c_int64, c_void_p, c_int64, c_void_p]),
    "qwen3vl_matmul": (
        None,
        [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int, c_void_p],
    ),
    "qwen3vl_matmul_several": (None, [c_int, c_void_p, c_int64, c_void_p, c_int64, c_int64]),
    "qwen3vl_rows": (c_int, [c_void_p, c_int, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "qwen3vl_wide": (c_int, [c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p]),
    "qwen3vl_norm": (
        None,
        [c_int, c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_double, c_int64, c_int64, c_void_p, c_void_p],
    ),
    "qwen3vl_turn": (None, [c_void_p]),
    "qwen3vl_swiglu": (None, [c_int, c_void_p, c_int64, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "qwen3vl_gelu_tanh": (None, [c_int, c_void_p, c_int64]),
    "qwen3vl_attention": (None, [c_void_p]),
    "qwen3vl_attention_words": (c_int, [c_void_p]),
    "qwen3vl_layers": (None, [c_void_p, c_int64, c_void_p]),
    "qwen3vl_probe_read": (c_double, [c_void_p, c_int64]),
    "qwen3vl_probe_arithmetic": (c_double, [c_int, c_double]),
}


@cache
def library() -> ctypes.CDLL | None:
    """The kernels, ready to call; None without them, which is said once.

    Raises InvalidParams if QWEN3VL_CPU_KERNELS asks for what this machine lacks, or if they are another version's.
    """
    wish = os.environ.get("QWEN3VL_CPU_KERNELS", "")
    path = next((path for path in _places() if path.is_file()), None)
    if wish == "off" or (path is None and not wish):
        if not wish:
            logging.getLogger(__name__).warning(
                "the CPU kernels were not built: plain torch is used, which is slower. They come with the next "
                "`pip install` on a machine with a C++17 compiler (g++ or clang++)"
            )
        return None
    if path is None:
        raise InvalidParams(f"QWEN3VL_CPU_KERNELS={wish}: the CPU kernels were not built")
    opened = ctypes.CDLL(os.fspath(path))
    missing = [name for name in _SIGNATURES if not hasattr(opened, name)]
    built = None if "qwen3vl_abi_version" in missing else opened.qwen3vl_abi_version()  # an int, as ctypes assumes
    if missing or built != ABI_VERSION:
        raise InvalidParams(
            f"{path}: the CPU kernels were built from another version of this package ({built}, not {ABI_VERSION}; "
            f"missing: {', '.join(missing[:3]) or 'nothing'}): install it again (`pip install .`), "
            "or set QWEN3VL_CPU_KERNELS=off"
        )
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(opened, name)
        function.restype, function.argtypes = result, arguments
    if wish and opened.qwen3vl_use_isa(wish.encode()):
        raise InvalidParams(
            f"QWEN3VL_CPU_KERNELS={wish}: unknown, or this CPU lacks it; off, plain, avx2, avx512 or neon"
        )
    opened.qwen3vl_set_threads(min(default_threads(), torch.get_num_threads()))
    return opened


def default_threads() -> int:
    """Cores that this process may use: its affinity, and what its control group's quota leaves (at least 1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(Path("/sys/fs/cgroup"))))


def _quota(root: Path) -> int:
    """CPUs that the control group may use, rounded up: cpu.max holds "quota period", or "max period"."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return sys.maxsize


def _places() -> Iterator[Path]:
    """Beside this file in an ordinary installation; in the installed files of an editable one."""
    yield Path(__file__).parent / _NAME
    try:
        files = metadata.files("qwen3vl") or []
    except metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())) for file in files if file.name == _NAME)
