"""Puts a trained model into the package as its small model: half the bytes, computed in float32.

    python scripts/pack_small.py out/small-model   the newest weights of `make small-model`
    python scripts/pack_small.py run/model           any checkpoint

Weights are stored as float16, which keeps three more bits of them than bfloat16; config.json says float32, and that is
what both libraries then compute in: on CPUs several times as fast as either half. The card, results.json and media.json
stay as they are: measure again, then run scripts/model_card.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from qwen3vl.model.checkpoint import SINGLE_FILE, load_model, save_model
from qwen3vl.model.hub import SMALL_FOLDER
from qwen3vl.train.recipe import newest

KEPT = {"README.md", "results.json", "media.json"}
MOST_BYTES, MOST_PARAMETERS = 32 * 2**20, 15_000_000


def pack(model: Path, out: Path) -> int:
    """-> bytes of the folder. Raises SystemExit, before anything is written, if the model is too large."""
    recipe = (model / "new").is_dir()
    network = load_model(newest(model) if recipe else model, dtype="float32")
    processor = model / "new" if recipe else model
    parameters = sum(weight.numel() for weight in {id(w): w for w in network.parameters()}.values())
    if parameters > MOST_PARAMETERS:
        raise SystemExit(f"{model}: {parameters:,} parameters, {MOST_PARAMETERS:,} may be shipped")
    largest = max(float(weight.abs().max()) for weight in network.parameters())
    if not largest < torch.finfo(torch.float16).max:
        raise SystemExit(f"{model}: holds {largest:g}, which float16 cannot")
    for old in out.iterdir() if out.is_dir() else ():
        if old.name not in KEPT:
            old.unlink()
    save_model(network.half(), out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for file in sorted(processor.iterdir()):
        if file.suffix in (".json", ".txt", ".jinja") and file.name not in {"config.json", *KEPT}:
            shutil.copyfile(file, out / file.name)
    (out / SINGLE_FILE).chmod(0o644)
    return sum(file.stat().st_size for file in out.iterdir())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit((__doc__ or "").strip())
    size = pack(Path(sys.argv[1]), SMALL_FOLDER)
    if size > MOST_BYTES:
        raise SystemExit(f"{SMALL_FOLDER}: {size:,} bytes, {MOST_BYTES:,} may be shipped")
    print(f"{SMALL_FOLDER}: {size:,} bytes of {MOST_BYTES:,}")
