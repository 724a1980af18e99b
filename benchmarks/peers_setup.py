"""What the comparisons with other libraries share: random checkpoints in true shapes, runs in turns, a table of ratios.

Every run is a process of its own. Rounds go through all sides, so that a machine that gets slower for a while is slower
for all of them; each figure is the best of its side's rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from time import sleep

import torch

from qwen3vl.bench.measure import picture
from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint

Figures = dict[str, float]
BETTER = {"prefill tok/s": max, "decode tok/s": max, "vision s": min, "first token s": min, "peak GB": min}
QUESTION = "What is in this picture?"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that all of them have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--edition", choices=EDITIONS, default="2b")
    made.add_argument("--dir", type=Path, required=True, help="folder for checkpoints, written where they are missing")
    made.add_argument("--text-layers", type=int, help="fewer, to try the script: ratios then mean little")
    made.add_argument("--vision-layers", type=int)
    made.add_argument("--ours", nargs="+", choices=("int4", "int8", "bfloat16", "float32"), default=["int4"])
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--prompt", type=int, default=512)
    made.add_argument("--steps", type=int, default=32)
    made.add_argument("--size", default="1024x768", help="of the picture")
    made.add_argument("--json", action="store_true")
    return made


def checkpoint(args: argparse.Namespace) -> Path:
    """The random checkpoint, in bfloat16."""
    cut = f"-{args.text_layers}-{args.vision_layers}" if args.text_layers or args.vision_layers else ""
    folder: Path = args.dir / f"{args.edition}{cut}"
    if not (folder / "config.json").exists():
        config = edition(args.edition, text_layers=args.text_layers, vision_layers=args.vision_layers)
        write_random_checkpoint(config, folder)
    return folder


def picture_file(args: argparse.Namespace) -> Path:
    width, height = map(int, args.size.split("x"))
    path: Path = args.dir / f"{args.size}.jpg"
    if not path.exists():
        path.write_bytes(picture(width, height, 0))
    return path


def ours(args: argparse.Namespace, folder: Path, weights: str) -> Callable[[], Figures]:
    """A run of `qwen3vl bench`, and one question about the picture in a process of its own, whose peak of memory counts
    (`bench` holds several answers' at once). Quantised weights are written once, to a folder beside the checkpoint."""
    command = [sys.executable, "-m", "qwen3vl"]
    model = folder
    if weights.startswith("int"):
        model = folder.with_name(f"{folder.name}-{weights}")
        if not (model / "config.json").exists():
            subprocess.run([*command, "quantize", folder, "--to", weights, "--out", model], check=True)
    given = ["--dtype", weights] if not weights.startswith("int") else []
    options = {"prompt": args.prompt, "steps": args.steps, "size": args.size, "threads": args.threads, "rounds": 1}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]

    question = [str(picture_file(args)), QUESTION, "--max-tokens", "1"]

    def run() -> Figures:
        found = json.loads(watched([*command, "bench", "--model", str(model), "--json", *given, *words])[0])
        _, peak = watched([*command, "chat", "--model", str(model), *given, *question])
        return {
            "prefill tok/s": found["prefill"]["tokens_per_s"],
            "decode tok/s": found["decode"]["tokens_per_s"],
            "vision s": found["vision"]["seconds"],
            "first token s": found["first_token"]["seconds"],
            "peak GB": peak / 1e9,
        }

    return run


def watched(command: list[str]) -> tuple[str, int]:
    """-> what a process printed on stdout, and the most memory it had (its VmHWM), in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return out, peak.stop()


class Peak:
    """VmHWM of a process, looked at until it ends: the system's own figure would count its parent's memory."""

    def __init__(self, pid: int) -> None:
        self._status, self._bytes, self._over = Path(f"/proc/{pid}/status"), 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.is_set():
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
            self._bytes = max(self._bytes, *(int(kb) * 1024 for kb in found), 0)
            sleep(0.05)

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._bytes


def compare(args: argparse.Namespace, sides: dict[str, Callable[[], Figures]]) -> None:
    """Run the sides in turns; print each run, the best of each side, and our best over the best of each other's."""
    runs: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name, run in sides.items():
            runs[name].append(run())
            print(f"round {number + 1} {name:22} {shown(runs[name][-1])}", file=sys.stderr, flush=True)
    best = {name: best_of(done) for name, done in runs.items()}
    ratios = {
        f"{mine} / {theirs}": {key: best[mine][key] / value for key, value in best[theirs].items() if key in best[mine]}
        for mine in sides
        if mine.startswith("ours")
        for theirs in sides
        if not theirs.startswith("ours")
    }
    if args.json:
        print(json.dumps({"edition": args.edition, "threads": args.threads, "best": best, "ratios": ratios}, indent=2))
        return
    for table in (best, ratios):
        for name, figures in table.items():
            print(f"{name:40} {shown(figures)}")


def best_of(runs: Iterable[Figures]) -> Figures:
    runs = list(runs)
    return {key: pick(run[key] for run in runs) for key, pick in BETTER.items() if key in runs[0]}


def shown(figures: Figures) -> str:
    return "  ".join(f"{key} {value:8.2f}" for key, value in figures.items())
