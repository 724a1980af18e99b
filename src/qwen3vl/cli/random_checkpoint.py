"""`qwen3vl random-checkpoint`: a complete checkpoint folder with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Option

from qwen3vl.cli.options import command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.model.editions import EDITIONS
from qwen3vl.settings import check_choice, check_integer
from qwen3vl.types import SCHEMA_VERSION


@command
def random_checkpoint(
    edition: Annotated[str, Option(help=f"One of {', '.join(EDITIONS)}.")],
    out: Annotated[Path, Option(help="A new or empty folder.")],
    thinking: Annotated[bool, Option("--thinking", help="With the Thinking editions' chat template.")] = False,
    text_layers: Annotated[int | None, Option(help="Fewer decoder layers.")] = None,
    vision_layers: Annotated[int | None, Option(help="Fewer vision blocks.")] = None,
    experts: Annotated[int | None, Option(help="Fewer experts in each layer.")] = None,
    shrink: Annotated[bool, Option("--shrink", help="Small in every width; a few megabytes.")] = False,
    seed: Annotated[int, Option(help="Same seed, same weights.")] = 0,
    dtype: Annotated[str, Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a checkpoint with the true shapes of an edition and random weights, for tests and benchmarks."""
    check_choice("--dtype", dtype, ("float32", "bfloat16", "float16"))
    check_integer("--seed", seed, minimum=0)
    from qwen3vl.model.editions import edition as config_of

    config = config_of(edition, text_layers=text_layers, vision_layers=vision_layers, experts=experts, shrink=shrink)
    import torch

    from qwen3vl.model.random_checkpoint import write_random_checkpoint

    with Waiting("Drawing weights") as bar:
        write_random_checkpoint(
            config,
            out,
            seed=seed,
            thinking=thinking,
            dtype=getattr(torch, dtype),
            progress=lambda done, total: bar.stage("Drawing weights", done, total),
        )
    size = sum(path.stat().st_size for path in out.iterdir())
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "folder": str(out), "bytes": size}, indent=2))
        return
    text, vision = config.text.num_hidden_layers, config.vision.depth
    print(f"{out}: {edition}, {text} text layers, {vision} vision blocks, {size / 1e6:,.0f} MB")
    print("Its weights are random, so its answers are noise. Ask it something:")
    print(f'  qwen3vl chat --model {out} photo.jpg "What is in this picture?"')
