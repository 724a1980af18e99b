"""Running generated matplotlib code, only where the caller asked for it, in a subprocess with limits.

What limits it: wall and CPU time, address space, size and number of files, an empty folder as its home
and working folder, a bare environment, the Agg backend, and no network where the system lets us cut it
off. What does not: it runs as the same user and can read what that user can read. It is no sandbox for
code of someone who means harm; for that, run the whole program in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from qwen3vl.errors import RenderError

SECONDS = 60.0
MEMORY = 4 << 30  # of address space; numpy and matplotlib reserve about 1 GB of it
FILE_SIZE = 64 << 20
FIGURES = 20  # open at the end; more are not saved
MAX_PIXELS = 50_000_000

# Runs inside the subprocess, whose arguments are the limits. Limits first: an import is work too.
_RUNNER = """
import resource, runpy, sys
seconds, memory, size, figures = map(int, sys.argv[1:5])
for what, limit in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size),
                    (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256)):
    try:
        resource.setrlimit(what, (limit, limit))
    except (ValueError, OSError):
        print("limit not set:", what, file=sys.stderr)
import matplotlib
matplotlib.use("Agg", force=True)
import matplotlib.pyplot as plt
try:
    runpy.run_path("code.py", run_name="__main__")
finally:
    for number, figure in enumerate(plt.get_fignums()[:figures]):
        plt.figure(figure).savefig(f"figure-{number:03d}.png", dpi=100)
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """The last figure the code left open, or the last picture it saved; and what a person should know."""

    image: Image.Image
    notes: tuple[str, ...]


def run_python(source: str, *, seconds: float = SECONDS) -> Figure:
    """Run the code and take its figure. Raises RenderError with the code's own last error line."""
    if sys.platform == "win32":
        raise RenderError("running generated code needs Linux or macOS: the limits are POSIX ones")
    cut = _cut_network()
    with tempfile.TemporaryDirectory(prefix="qwen3vl-code-", ignore_cleanup_errors=True) as folder:
        Path(folder, "code.py").write_text(source, encoding="utf-8")
        limits = [str(int(seconds) + 1), str(MEMORY), str(FILE_SIZE), str(FIGURES)]
        _run([*cut, sys.executable, "-I", "-c", _RUNNER, *limits], folder, seconds)
        image, notes = _figure(Path(folder))
    network = () if cut else ("the code ran with the network in reach: this system does not let it be cut off",)
    return Figure(image, (*network, *notes))


def _run(command: list[str], folder: str, seconds: float) -> None:
    bare = {"HOME": folder, "TMPDIR": folder, "MPLCONFIGDIR": folder, "MPLBACKEND": "Agg", "LANG": "C.UTF-8"}
    bare |= {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    log = Path(folder, "errors.log")
    with log.open("wb") as errors:  # a file, which the limit on files also bounds; a pipe would fill our memory
        process = subprocess.Popen(
            command, cwd=folder, env=bare, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise RenderError(f"the code was not done after {seconds:g} s: stopped") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
    if status:
        raise RenderError(f"the code failed: {_reason(log, status)}")


def _reason(log: Path, status: int) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if lines and "No module named 'matplotlib'" in lines[-1]:
        return "matplotlib is not installed beside this program: pip install matplotlib"
    if lines:
        return lines[-1][:500]
    return (
        f"ended by signal {signal.Signals(-status).name}"
        if status < 0
        else f"exit status {status}, and it said nothing"
    )


def _figure(folder: Path) -> tuple[Image.Image, list[str]]:
    figures = sorted(folder.glob("figure-*.png"))
    saved = sorted(set(folder.glob("*.png")) - set(figures), key=lambda path: path.stat().st_mtime)
    files = figures or saved
    if not files:
        raise RenderError("the code ran and left no figure: none open, and no .png in its folder")
    notes = [f"{len(files)} figures: the last one was taken"] if len(files) > 1 else []
    try:
        with Image.open(files[-1]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise RenderError(f"the figure is {picture.width} x {picture.height}: more than {MAX_PIXELS} pixels")
            return picture.convert("RGB"), notes
    except (OSError, Image.DecompressionBombError) as error:
        raise RenderError(f"the figure cannot be read: {error}") from error


@cache
def _cut_network() -> tuple[str, ...]:
    """A network namespace of its own, by way of a user namespace for others than root; () where neither is allowed."""
    unshare = shutil.which("unshare")
    for options in (("--net",), ("--user", "--map-current-user", "--net")):
        if unshare and subprocess.run([unshare, *options, "true"], capture_output=True, check=False).returncode == 0:
            return (unshare, *options)
    return ()
