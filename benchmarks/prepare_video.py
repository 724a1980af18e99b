"""Time and memory of preparing a video: ours against qwen-vl-utils + transformers' video processor.

    python benchmarks/prepare_video.py FILE [--fps 2 | --num-frames 768] [--frame-pixels 131072] [--rounds 3]

Both sides sample the same number of frames and resize them to the same size (qwen-vl-utils' own budget is
switched off by passing one bound on each frame's pixels), and both end with float32 patches: the peer's as
one tensor, ours as the vision tower reads them, a bounded number at a time. Every
measurement is a process of its own; the sides take turns; imports are not counted. Memory is the peak of
resident memory above what it was after the imports.

The peer reads videos with torchcodec, decord or torchvision, in this order, whichever is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIDES = ("ours", "peer")
ROWS = 1024  # patches that the vision tower is given at a time


def status_bytes(field: str) -> int:
    """A field of /proc/self/status such as VmRSS or VmHWM, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def ours(args: argparse.Namespace) -> Callable[[], tuple[list[int], int]]:
    from qwen3vl.processor.settings import VisionSettings
    from qwen3vl.processor.video import prepare_video
    from qwen3vl.settings import MediaOptions
    from qwen3vl.types import VideoPart

    settings = VisionSettings.from_file(ROOT / "src/qwen3vl/assets/qwen3-vl/video_preprocessor_config.json")
    options = MediaOptions(fps=args.fps, num_frames=args.num_frames, max_pixels=args.frame_pixels, total_pixels=10**12)

    def run() -> tuple[list[int], int]:
        visual = prepare_video(VideoPart(args.file), settings, options)
        num_bytes = sum(visual.patches.read(i, i + ROWS).nbytes for i in range(0, len(visual.patches), ROWS))
        return list(visual.grid_thw), num_bytes

    return run


def peer(args: argparse.Namespace) -> Callable[[], tuple[list[int], int]]:
    sys.path.insert(0, str(ROOT))
    from tests.oracle import processor

    video_processor = processor().video_processor
    from qwen_vl_utils.vision_process import fetch_video

    element = {"video": args.file, "min_pixels": 4096, "max_pixels": args.frame_pixels, "total_pixels": 10**12}
    element |= {"fps": args.fps} if args.fps else {"nframes": args.num_frames}

    def run() -> tuple[list[int], int]:
        video, metadata = fetch_video(element, image_patch_size=16, return_video_metadata=True)
        out = video_processor(
            videos=[video],
            video_metadata=[metadata],
            do_resize=False,
            do_sample_frames=False,
            size={"shortest_edge": 4096, "longest_edge": 10**12},
            return_tensors="pt",
        )
        return out["video_grid_thw"][0].tolist(), out["pixel_values_videos"].nbytes

    return run


def measure(args: argparse.Namespace) -> None:
    """One run in this process; prints a JSON object."""
    import torch

    torch.nn.functional.interpolate(torch.zeros(1, 3, 64, 64), size=[32, 32])
    run = {"ours": ours, "peer": peer}[args.only](args)
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    start = time.perf_counter()
    grid, patches = run()
    seconds = time.perf_counter() - start
    peak = status_bytes("VmHWM") - before
    print(json.dumps({"seconds": seconds, "peak": peak, "patches": patches, "grid": grid}))


def measured(side: str, arguments: list[str]) -> dict | None:
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--only", side], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{side} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--fps", type=float)
    rate.add_argument("--num-frames", type=int)
    parser.add_argument("--frame-pixels", type=int, default=131072)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SIDES, help="one measurement in this process, as JSON")
    args = parser.parse_args()
    if args.only:
        if args.fps is None and args.num_frames is None:
            args.fps = 2.0
        measure(args)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, python {platform.python_version()}")
    results: dict[str, list[dict]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES:
            result = measured(side, sys.argv[1:])
            if result is None:
                continue
            results[side].append(result)
            beyond = (result["peak"] - result["patches"]) / 1e6
            print(
                f"{number} {side}: {result['seconds']:7.2f} s   grid {result['grid']}   patches "
                f"{result['patches'] / 1e6:.0f} MB   peak beyond them {beyond:.0f} MB",
                flush=True,
            )
    if all(results.values()):
        medians = {side: statistics.median(r["seconds"] for r in results[side]) for side in SIDES}
        ratio = medians["peer"] / medians["ours"]
        print(f"median: ours {medians['ours']:.2f} s, peer {medians['peer']:.2f} s, {ratio:.2f} x")


if __name__ == "__main__":
    main()
