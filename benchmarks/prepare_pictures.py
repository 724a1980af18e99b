"""How long a picture takes from file to patches: ours, qwen-vl-utils + transformers, transformers alone.

    python benchmarks/prepare_pictures.py [--rounds N] [--max-pixels N] PICTURES...

The three take turns on every file, so that a busy machine slows all of them; a turn is three calls in a
row, as in a program that prepares one picture after the other with one library. Printed are medians over
all calls in milliseconds; the patches of ours and of transformers alone are checked to be the same bits.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import oracle

from qwen3vl.processor.images import prepare_picture
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart

CALLS_PER_TURN = 3
SETTINGS = VisionSettings.from_file(oracle.ASSETS / "preprocessor_config.json")


def ours(path: Path, low: int, high: int) -> np.ndarray:
    return prepare_picture(ImagePart(path, MediaOptions(min_pixels=low, max_pixels=high)), SETTINGS).patches.read()


def utils_and_transformers(path: Path, low: int, high: int) -> np.ndarray:
    oracle.import_torchvision()
    from qwen_vl_utils import process_vision_info

    part = {"type": "image", "image": str(path), "min_pixels": low, "max_pixels": high}
    pictures, _ = process_vision_info([{"role": "user", "content": [part]}], image_patch_size=SETTINGS.patch_size)
    out = oracle.processor().image_processor(images=pictures, do_resize=False, return_tensors="pt")
    patches: np.ndarray = out["pixel_values"].numpy()
    return patches


def transformers_alone(path: Path, low: int, high: int) -> np.ndarray:
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
    size = {"shortest_edge": low, "longest_edge": high}
    patches: np.ndarray = (
        oracle.processor().image_processor(images=[upright], size=size, return_tensors="pt")["pixel_values"].numpy()
    )
    return patches


WAYS: dict[str, Callable[[Path, int, int], np.ndarray]] = {
    "ours": ours,
    "utils+transformers": utils_and_transformers,
    "transformers": transformers_alone,
}


def measure(path: Path, low: int, high: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each way; one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for round_ in range(rounds + 1):
        for name, way in WAYS.items():
            for _ in range(CALLS_PER_TURN if round_ else 1):
                start = time.perf_counter()
                way(path, low, high)
                if round_:
                    times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-pixels", type=int, default=SETTINGS.min_pixels)
    parser.add_argument("--max-pixels", type=int, default=SETTINGS.max_pixels)
    options: Any = parser.parse_args()
    low, high = options.min_pixels, options.max_pixels
    print(f"{datetime.date.today()}, {cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    print(f"torch {torch.__version__}, Pillow {PIL.__version__}, load {os.getloadavg()[0]:.1f}\n")
    print(f"| picture | size | {' | '.join(WAYS)} | utils+transformers / ours | transformers / ours | same bits |")
    print("|---" * (len(WAYS) + 5) + "|")
    ratios: list[tuple[float, float]] = []
    for path in options.pictures:
        with Image.open(path) as picture:
            size = f"{picture.width}x{picture.height}"
        same = np.array_equal(ours(path, low, high), transformers_alone(path, low, high))
        times = measure(path, low, high, options.rounds)
        mine, utils, alone = times.values()
        ratios.append((utils / mine, alone / mine))
        cells = " | ".join(f"{t:.1f} ms" for t in times.values())
        print(
            f"| {path.name} | {size} | {cells} | {utils / mine:.2f} | {alone / mine:.2f} | {'yes' if same else 'NO'} |",
            flush=True,
        )
    medians = [statistics.median(r) for r in zip(*ratios, strict=True)]
    print(f"\nmedian ratio: {medians[0]:.2f} against utils+transformers, {medians[1]:.2f} against transformers alone")


if __name__ == "__main__":
    main()
