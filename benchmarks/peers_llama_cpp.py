"""This package against llama.cpp, with the same random checkpoint: prompt, answer, picture, memory.

    bash benchmarks/build_llama_cpp.sh LLAMA                                             once
    python benchmarks/peers_llama_cpp.py --dir DIR --llama LLAMA                         the 2B, int4 against Q4_0
    python benchmarks/peers_llama_cpp.py --dir DIR --llama LLAMA --ours int8 --theirs q8_0
    python benchmarks/peers_llama_cpp.py --dir DIR --llama LLAMA --text-layers 4 --vision-layers 4 --rounds 1   to try

GGUF files are written by llama.cpp's own converter and quantised `--pure`: the embedding, which is the head too, in
the same type as the rest, as ours has it (by default it would get 6.5 bits, which is slower). Prompt and answer are
measured by llama-bench; the picture by llama-mtmd-cli, from where the model is loaded to the first token.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from time import perf_counter

from peers_setup import QUESTION, Figures, Peak, checkpoint, compare, ours, parser, picture_file, watched


def files(args: argparse.Namespace, folder: Path, kind: str) -> tuple[Path, Path]:
    """-> the decoder in `kind`, the vision tower; written if they are not there."""
    decoder, vision = (folder.with_name(f"{folder.name}-{name}.gguf") for name in (kind, f"mmproj-{args.mmproj}"))
    whole = folder.with_name(f"{folder.name}-f16.gguf")
    if not decoder.exists() and not whole.exists():
        convert(args, folder, whole, "f16")
    if not vision.exists():
        convert(args, folder, vision, args.mmproj, "--mmproj")
    if not decoder.exists():
        tool = args.llama / "build/bin/llama-quantize"
        subprocess.run([tool, "--pure", whole, decoder, kind, str(args.threads)], check=True, stdout=sys.stderr)
    return decoder, vision


def convert(args: argparse.Namespace, folder: Path, out: Path, kind: str, *more: str) -> None:
    command = [sys.executable, args.llama / "source/convert_hf_to_gguf.py", folder, "--outtype", kind, "--outfile", out]
    environment = {**os.environ, "PYTHONPATH": str(args.llama / "site")}
    subprocess.run([*command, *more], check=True, env=environment, stdout=sys.stderr, stderr=subprocess.DEVNULL)


def theirs(args: argparse.Namespace, folder: Path, kind: str) -> Callable[[], Figures]:
    decoder, vision = files(args, folder, kind)
    bench = [str(args.llama / "build/bin/llama-bench"), "-m", str(decoder), "-t", str(args.threads)]
    bench += ["-r", "1", "-o", "json"]

    def run() -> Figures:
        read = json.loads(watched([*bench, "-p", str(args.prompt), "-n", "0"])[0])[0]["avg_ts"]
        write = ["-p", "0", "-n", str(args.steps), "-d", str(args.prompt)]
        wrote = json.loads(watched([*bench, *write])[0])[0]["avg_ts"]
        looked, first, peak = look(args, decoder, vision)
        return {
            "prefill tok/s": read,
            "decode tok/s": wrote,
            "vision s": looked,
            "first token s": first,
            "peak GB": peak / 1e9,
        }

    return run


def look(args: argparse.Namespace, decoder: Path, vision: Path) -> tuple[float, float, int]:
    """-> seconds of the vision tower, and from the loaded model to the first token; most memory in bytes."""
    command = [args.llama / "build/bin/llama-mtmd-cli", "-m", decoder, "--mmproj", vision]
    command += ["--image", picture_file(args), "-p", QUESTION, "-n", 1, "--temp", 0, "-t", args.threads]
    command += ["-c", 4096]  # by default it makes room for all 262,144 tokens
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak, said = Peak(process.pid), list[tuple[float, str]]()
    assert process.stdout and process.stderr
    errors = process.stderr

    def listen() -> None:
        for line in errors:
            said.append((perf_counter(), line.decode(errors="replace")))

    listener = Thread(target=listen)
    listener.start()
    written = 0.0
    while os.read(process.stdout.fileno(), 4096):  # the only token, and what ends its line, come together
        written = perf_counter()
    most = peak.stop()
    listener.join()
    if process.wait():
        raise SystemExit("llama-mtmd-cli failed:\n" + "".join(line for _, line in said[-20:]))
    loaded = next(at for at, line in said if "loading model" in line)
    encoded = re.findall(r"encoding done in (\d+) ms", "".join(line for _, line in said))
    assert encoded, "llama-mtmd-cli does not say how long the picture took"
    taken = sum(map(int, encoded))
    return taken / 1e3, written - loaded, most


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--llama", type=Path, required=True, help="the folder of build_llama_cpp.sh")
    options.add_argument("--theirs", nargs="+", default=["q4_0"], help="q4_0, q8_0, q4_k_m ...")
    options.add_argument("--mmproj", choices=("f16", "q8_0", "bf16"), default="q8_0", help="their vision tower's type")
    args = options.parse_args()
    folder = checkpoint(args)
    sides = {f"ours {weights}": ours(args, folder, weights) for weights in args.ours}
    sides |= {f"llama.cpp {kind}": theirs(args, folder, kind) for kind in args.theirs}
    compare(args, sides)


if __name__ == "__main__":
    main()
