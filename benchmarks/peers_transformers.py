"""This package against transformers on the CPU, with the same random checkpoint: prompt, answer, picture, memory.

    python benchmarks/peers_transformers.py --dir DIR                          the 2B, int4 against bfloat16 and float32
    python benchmarks/peers_transformers.py --dir DIR --edition 4b --theirs bfloat16
    python benchmarks/peers_transformers.py --dir DIR --text-layers 2 --vision-layers 2 --rounds 1      to try it

Which of its two types is faster depends on the processor (bfloat16 needs AVX512_BF16 or AMX): compare with the faster.
transformers comes with the extra [dev]. Both get the same JPEG and its question; preparing them counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from peers_setup import QUESTION, Figures, checkpoint, compare, ours, parser, picture_file, watched


def theirs(args: argparse.Namespace, folder: Path, dtype: str) -> Callable[[], Figures]:
    command = [sys.executable, __file__, "--dir", str(args.dir), "--worker", str(folder), "--worker-dtype", dtype]
    for name in ("threads", "prompt", "steps", "size"):
        command += [f"--{name}", str(getattr(args, name))]

    def run() -> Figures:
        out, peak = watched(command)
        return {**json.loads(out.splitlines()[-1]), "peak GB": peak / 1e9}

    return run


@torch.inference_mode()
def work(args: argparse.Namespace) -> Figures:
    torch.set_num_threads(args.threads)
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests import oracle

    oracle.import_torchvision()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    moe = json.loads((args.worker / "config.json").read_text())["model_type"] == "qwen3_vl_moe"
    kind = transformers.Qwen3VLMoeForConditionalGeneration if moe else transformers.Qwen3VLForConditionalGeneration
    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[args.worker_dtype]
    model = kind.from_pretrained(args.worker, dtype=dtype).eval()
    processor = transformers.AutoProcessor.from_pretrained(args.worker)
    prefill, decode = read_and_write(model, args)
    vision, first = look(model, processor, picture_file(args))
    return {
        "prefill tok/s": args.prompt / prefill,
        "decode tok/s": 1 / decode,
        "vision s": vision,
        "first token s": first,
    }


def read_and_write(model: Any, args: argparse.Namespace) -> tuple[float, float]:
    """-> seconds of reading the prompt, and of writing a token behind it."""
    ids = torch.randint(0, 100_000, (1, args.prompt), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids[:, :16])  # the first use of mapped weights reads the file
    start = perf_counter()
    out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    read, steps = perf_counter() - start, []
    for _ in range(args.steps):
        start = perf_counter()
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        steps.append(perf_counter() - start)
    return read, median(steps)


def look(model: Any, processor: Any, path: Path) -> tuple[float, float]:
    """-> seconds of the vision tower, and from the file to the first token."""
    from PIL import Image

    start = perf_counter()
    content = [{"type": "image", "image": Image.open(path)}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
    first = perf_counter() - start
    start = perf_counter()
    model.model.visual(inputs["pixel_values"].to(model.dtype), grid_thw=inputs["image_grid_thw"])
    return perf_counter() - start, first


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--theirs", nargs="+", choices=("bfloat16", "float32"), default=["bfloat16", "float32"])
    options.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--worker-dtype", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.worker:
        print(json.dumps(work(args)))
        return
    folder = checkpoint(args)
    picture_file(args)
    sides = {f"ours {weights}": ours(args, folder, weights) for weights in args.ours}
    sides |= {f"transformers {dtype}": theirs(args, folder, dtype) for dtype in args.theirs}
    compare(args, sides)


if __name__ == "__main__":
    main()
