"""Installations on machines without a compiler, or with one that fails: they succeed, and plain torch does the work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

PROGRAM = """
import torch
from qwen3vl.kernels.cpu.library import library
from qwen3vl.kernels.cpu.packed import Packed
assert library() is None and library() is None
weight, x = torch.randn(32, 64), torch.randn(3, 64)
out = Packed.of(weight, 8).matmul(x)
assert (out - x @ weight.T).norm() < 0.02 * out.norm()
print("ran")
"""


def python_of(folder: Path) -> Path:
    """A virtual environment that sees this one's torch but not this one's qwen3vl."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    (Path(site) / "torch_of_another.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX systems")
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
@pytest.mark.parametrize("compiler", ["none", "failing"])
def test_without_a_compiler(compiler: str, editable: bool, tmp_path: Path) -> None:
    python, tools = python_of(tmp_path / "venv"), tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env", "uname"):
        os.symlink(shutil.which(name) or f"/bin/{name}", tools / name)
    if compiler == "failing":
        (tools / "c++").write_text("#!/bin/sh\nexit 1\n")
        (tools / "c++").chmod(0o755)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "QWEN3VL_CPU_KERNELS")
    }
    environment["PATH"] = str(tools)
    source = ["-e", ROOT] if editable else [ROOT]
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *source]
    subprocess.run(install, env=environment, check=True, timeout=600)
    done = subprocess.run(
        [python, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "ran\n", done.stderr
    assert done.stderr.count("were not built") == 1 and "compiler" in done.stderr
