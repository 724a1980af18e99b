"""What the engine's benchmarks share: a cut of an edition with random weights in its true widths, and requests.

The last layers are left out (--layers, --vision-layers), which the output states; the vocabulary and all
widths are the edition's own. Weights are float32 where the CPU has no bfloat16 products.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import models
from tests.engine.prompts import as_inputs

from qwen3vl.config import ModelConfig
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import ASSETS, random_tensors
from qwen3vl.processor.tokenizer import Tokenizer
from qwen3vl.settings import SamplingParams

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def parser(doc: str | None, *, layers: int = 4, vision_layers: int = 6) -> argparse.ArgumentParser:
    """With the options that all of them have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--edition", choices=EDITIONS, default="2b")
    made.add_argument("--layers", type=int, default=layers, help="of the decoder (default: %(default)s)")
    made.add_argument("--vision-layers", type=int, default=vision_layers, help="of the tower (default: %(default)s)")
    made.add_argument("--shrink", action="store_true", help="small widths: to try the script, not to measure")
    made.add_argument("--dtype", choices=DTYPES, help="default: bfloat16 where the machine multiplies it, or float32")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--json", action="store_true", help="print one JSON document")
    return made


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    if args.dtype:
        return DTYPES[args.dtype]
    fast = args.device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def config_of(args: argparse.Namespace, layers: int | None = None) -> ModelConfig:
    if args.shrink:
        return edition(args.edition, shrink=True)
    return edition(args.edition, text_layers=layers or args.layers, vision_layers=args.vision_layers)


def new_model(config: ModelConfig, args: argparse.Namespace) -> Qwen3VL:
    torch.set_num_threads(args.threads)
    dtype, device = dtype_of(args), torch.device(args.device)
    with torch.device("meta"):
        model = Qwen3VL(config)
    tensors = {name: tensor.to(device) for name, tensor in random_tensors(config, 0, dtype)}
    model.load_state_dict(tensors, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.language_model.embed_tokens.weight
    return model.eval().requires_grad_(False)


def new_engine(model: Qwen3VL, num_tokens: int, **settings: Any) -> Engine:
    """With room for `num_tokens` tokens."""
    chosen = EngineSettings(**settings)
    return Engine(model, Tokenizer.from_folder(ASSETS), chosen, -(-num_tokens // chosen.block_size) + 8)


def new_prompt(config: ModelConfig, *parts: models.Part, seed: int = 0) -> models.Prompt:
    """Text tokens, pictures and videos; see tests.models.make_prompt."""
    return models.make_prompt(config, *parts, seed=seed)


def new_work(name: str, prompt: models.Prompt, config: ModelConfig, num_tokens: int, *, streamed: bool = False) -> Work:
    """A greedy answer of exactly `num_tokens` tokens."""
    params = SamplingParams(max_tokens=num_tokens, ignore_eos=True, loop_guard="off")
    return Work(name, Prompt.of(as_inputs(prompt, config), config), params, num_tokens, streamed=streamed)


@dataclass(frozen=True)
class Finished:
    """A request's times in seconds, from when it was added, and its tokens."""

    first: float
    last: float
    token_ids: tuple[int, ...]


def run(engine: Engine, works: Sequence[Work]) -> dict[str, Finished]:
    """All at once, to the end."""
    start = perf_counter()
    for work in works:
        engine.add(work)
    first: dict[str, float] = {}
    finished: dict[str, Finished] = {}
    for name, token_ids, now in outputs(engine):
        first.setdefault(name, now - start)
        if token_ids is not None:
            finished[name] = Finished(first[name], now - start, token_ids)
    return finished


def outputs(engine: Engine) -> Iterator[tuple[str, tuple[int, ...] | None, float]]:
    """(request, its tokens when it has ended, time) for everything that has a new token."""
    while engine.has_work:
        written = engine.step()
        for output in written:
            if output.error is not None:
                raise output.error
            if output.deltas:
                done = output.deltas[-1].completion
                yield output.request_id, done.token_ids if done is not None else None, perf_counter()


def report(args: argparse.Namespace, config: ModelConfig, figures: dict[str, Any], lines: Sequence[str]) -> None:
    """One JSON document, or lines for people under a line that says what was measured."""
    measured = {
        "edition": f"{args.edition}{' shrunken' if args.shrink else ''}",
        "layers": config.text.num_hidden_layers,
        "of_layers": edition(args.edition).text.num_hidden_layers,
        "vision_layers": config.vision.depth,
        "dtype": str(dtype_of(args)).removeprefix("torch."),
        "device": args.device,
        "threads": args.threads,
    }
    if args.json:
        print(json.dumps({"schema_version": 1, **measured, **figures}, indent=2))
        return
    print(
        "{edition}, {layers} of {of_layers} decoder layers, {vision_layers} of the tower, ".format(**measured), end=""
    )
    print("{dtype} on {device}, {threads} threads".format(**measured))
    print(*lines, sep="\n")
