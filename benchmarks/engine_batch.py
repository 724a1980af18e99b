"""16 requests at once - text, pictures, videos - against transformers' generate on the same weights.

    python benchmarks/engine_batch.py --new-tokens 64
    python benchmarks/engine_batch.py --shrink --new-tokens 8          to try it

transformers answers them one after the other, and as one batch padded on the left; the ratio is to the better
of the two. Both decode greedily, exactly --new-tokens tokens for each; in float32 the tokens are compared.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from engine_setup import config_of, dtype_of, new_engine, new_model, new_prompt, new_work, parser, report, run
from tests import models

from qwen3vl.config import ModelConfig
from qwen3vl.model.random_checkpoint import write_random_checkpoint

TEXTS = (24, 60, 90, 130, 200, 280, 400, 600)  # tokens
PICTURES = ((32, 32), (24, 40), (48, 32), (40, 40), (64, 48), (20, 20))  # patches
VIDEOS = ((6, 20, 28), (8, 16, 24))


def requests(config: ModelConfig) -> list[models.Prompt]:
    """8 texts, 6 pictures and 2 videos, mixed."""
    parts: list[tuple[models.Part, ...]] = [(tokens,) for tokens in TEXTS]
    parts += [(12, ("image", *grid), 20) for grid in PICTURES]
    parts += [(12, ("video", *grid), 20) for grid in VIDEOS]
    return [new_prompt(config, *parts[i * 5 % 16], seed=i) for i in range(16)]


@torch.no_grad()
def theirs(model: Any, prompts: list[models.Prompt], config: ModelConfig, num_tokens: int) -> list[list[int]]:
    inputs = {name: x.to(model.device) for name, x in models.oracle_inputs(prompts, config).items()}
    settings = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False}
    out = model.generate(**inputs, **settings)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


def measure_theirs(args: Any, config: ModelConfig, prompts: list[models.Prompt]) -> tuple[float, float, Any]:
    """-> seconds one after the other, seconds as one batch, tokens of the former."""
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(config, Path(folder) / "checkpoint", dtype=dtype_of(args))
        model = models.load_theirs(Path(folder) / "checkpoint", dtype_of(args)).to(args.device)
    torch.set_num_threads(args.threads)
    theirs(model, prompts[:1], config, 2)  # warm
    start = perf_counter()
    answers = [theirs(model, [prompt], config, args.new_tokens)[0] for prompt in prompts]
    alone = perf_counter() - start
    start = perf_counter()
    theirs(model, prompts, config, args.new_tokens)
    return alone, perf_counter() - start, answers


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--new-tokens", type=int, default=64)
    args = options.parse_args()
    config = config_of(args)
    prompts = requests(config)
    works = [new_work(str(i), prompt, config, args.new_tokens) for i, prompt in enumerate(prompts)]
    engine = new_engine(new_model(config, args), sum(map(len, prompts)) + 16 * args.new_tokens)
    run(engine, [new_work("warm", new_prompt(config, 8), config, 2)])
    start = perf_counter()
    finished = run(engine, works)
    ours = perf_counter() - start
    del engine
    gc.collect()
    alone, batch, answers = measure_theirs(args, config, prompts)
    same = sum(list(finished[str(i)].token_ids) == answer for i, answer in enumerate(answers))
    figures = {
        "requests": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "new_tokens": args.new_tokens,
        "engine_s": ours,
        "transformers_one_by_one_s": alone,
        "transformers_batch_s": batch,
        "ratio": ours / min(alone, batch),
        "same_answers": same,
    }
    lines = (
        f"engine {ours:.2f} s, transformers one by one {alone:.2f} s, as one batch {batch:.2f} s",
        f"engine / transformers' better way: {figures['ratio']:.2f} (aim: at most 0.5)",
        f"same tokens in {same} of {len(prompts)} answers",
    )
    report(args, config, figures, lines)


if __name__ == "__main__":
    main()
