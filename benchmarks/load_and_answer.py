"""Load a checkpoint and answer about a 1024 x 768 picture: this package against transformers.

    python benchmarks/load_and_answer.py --edition 4b --dir DIR --new-tokens 32

writes a random checkpoint of the edition to DIR once (bfloat16, all layers unless cut), then runs each library in a
process of its own, in turns, on the same patches and token ids. Both decode greedily. Printed for each run: seconds
to load, to the first token (vision and prefill), tokens per second behind it, peak memory (VmHWM) and, at the end,
the ratios of the best runs. The processor and imports are not timed. transformers comes with the extra [dev].
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint

HEIGHT, WIDTH = 768, 1024
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def make_prompt(config: ModelConfig) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """-> (ids_T, patches_PC, grid): 10 tokens, the picture, 20 tokens."""
    random = torch.Generator().manual_seed(0)
    grid = HEIGHT // config.vision.patch_size, WIDTH // config.vision.patch_size
    pads = [config.image_token_id] * (grid[0] * grid[1] // config.vision.spatial_merge_size**2)
    text = torch.randint(0, 100_000, (30,), generator=random).tolist()
    ids = [*text[:10], config.vision_start_token_id, *pads, config.vision_end_token_id, *text[10:]]
    patches = torch.randn(grid[0] * grid[1], config.vision.patch_values, generator=random).clamp(-1, 1)
    return torch.tensor(ids), patches, grid


def peak_bytes() -> int:
    """Of this process alone; ru_maxrss would count its parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@torch.inference_mode()
def run_ours(folder: Path, dtype: torch.dtype, new_tokens: int) -> dict[str, Any]:
    from qwen3vl.inputs import VisualSpan
    from qwen3vl.model.attention import ForwardContext
    from qwen3vl.model.cache import BlockTable
    from qwen3vl.model.checkpoint import load_model
    from qwen3vl.model.positions import mrope_positions

    start = time.perf_counter()
    model = load_model(folder, dtype=dtype)
    loaded = time.perf_counter()
    ids, patches, grid = make_prompt(model.config)
    positions, following = mrope_positions(
        len(ids), [VisualSpan(11, grid, 0, 0)], model.config.vision.spatial_merge_size
    )
    num_blocks = (len(ids) + new_tokens) // 16 + 1
    cache, table = model.new_cache(num_blocks), BlockTable(16, range(num_blocks))
    began = time.perf_counter()
    features, context = model.encode_visuals(patches, [grid]), ForwardContext.paged(cache, [(table, 0, len(ids))])
    logits = model(ids, torch.from_numpy(positions), context, features, logits_at=torch.tensor([len(ids) - 1]))
    tokens = [logits[-1].argmax()]
    first = time.perf_counter()
    for step in range(new_tokens - 1):
        context = ForwardContext.paged(cache, [(table, len(ids) + step, 1)])
        logits = model(tokens[-1][None], torch.full((3, 1), following + step), context)
        tokens.append(logits[-1].argmax())
    return report(start, loaded, began, first, [int(token) for token in tokens])


@torch.inference_mode()
def run_theirs(folder: Path, dtype: torch.dtype, new_tokens: int) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests import oracle

    oracle.import_torchvision()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    config = ModelConfig.from_folder(folder)
    name = "Qwen3VLMoeForConditionalGeneration" if config.text.moe else "Qwen3VLForConditionalGeneration"
    kind = getattr(transformers, name)
    start = time.perf_counter()
    model = kind.from_pretrained(folder, dtype=dtype).eval()
    loaded = time.perf_counter()
    model.generation_config = transformers.GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    ids, patches, grid = make_prompt(config)
    first: list[float] = []

    class Clock(transformers.LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            first.append(time.perf_counter())
            return scores

    began = time.perf_counter()
    out = model.generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids[None]),
        mm_token_type_ids=(ids[None] == config.image_token_id).int(),
        pixel_values=patches,
        image_grid_thw=torch.tensor([[1, *grid]]),
        max_new_tokens=new_tokens,
        logits_processor=[Clock()],
    )
    return report(start, loaded, began, first[0], out[0, len(ids) :].tolist())


def report(start: float, loaded: float, began: float, first: float, tokens: list[int]) -> dict[str, Any]:
    return {
        "load_s": loaded - start,
        "first_token_s": first - began,
        "load_and_first_token_s": loaded - start + first - began,
        "tokens_per_s": (len(tokens) - 1) / (time.perf_counter() - first) if len(tokens) > 1 else 0.0,
        "peak_gb": peak_bytes() / 1e9,
        "tokens": tokens,
    }


def main() -> None:
    args = parse_arguments()
    if args.worker:
        torch.set_num_threads(args.threads)
        run = run_ours if args.worker == "ours" else run_theirs
        print(json.dumps(run(args.dir, DTYPES[args.dtype], args.new_tokens)))
        return
    if not (args.dir / "config.json").exists():
        config = edition(args.edition, text_layers=args.text_layers, vision_layers=args.vision_layers)
        write_random_checkpoint(config, args.dir)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for _ in range(args.rounds):
        for side, done in runs.items():
            done.append(run_worker(side))
            print(f"{side:7}", *(f"{key} {done[-1][key]:.2f}" for key in FIGURES), flush=True)
    best = {side: {key: pick(run[key] for run in done) for key, pick in FIGURES.items()} for side, done in runs.items()}
    print("ours / theirs:", *(f"{key} {best['ours'][key] / max(best['theirs'][key], 1e-9):.2f}" for key in FIGURES))
    same = [a == b for a, b in zip(runs["ours"][0]["tokens"], runs["theirs"][0]["tokens"], strict=True)]
    print(f"same tokens: {same.index(False) if False in same else len(same)} of {len(same)} before the first other")


# Loading alone does not compare: transformers maps the files and reads them while it computes the first token.
FIGURES: dict[str, Any] = {
    "load_s": min,
    "first_token_s": min,
    "load_and_first_token_s": min,
    "tokens_per_s": max,
    "peak_gb": min,
}


def run_worker(side: str) -> dict[str, Any]:
    command = [sys.executable, *sys.argv, "--worker", side]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edition", choices=EDITIONS, default="4b")
    parser.add_argument("--dir", type=Path, required=True, help="checkpoint folder, written if it does not exist")
    parser.add_argument("--text-layers", type=int)
    parser.add_argument("--vision-layers", type=int)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--worker", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
