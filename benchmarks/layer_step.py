"""A decoder or tower layer of the 2B: fused steps against plain torch, and what is neither product nor attention.

    python benchmarks/layer_step.py --kinds int4 float32 --cases decode prefill

True widths, random weights, a small vocabulary. "fused" and "plain" are the same model with the kernels of
kernels/cpu/steps.py and layers.py on and off, in turns; products and attention are the same in both. "outside" is the
share of a layer's time beyond that of its products and its attention, everything that Python does included.
--cpu-time counts what the one thread computes, without what other processes take from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter, thread_time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F

from qwen3vl.kernels.cpu import rows, steps
from qwen3vl.kernels.cpu.library import library
from qwen3vl.model import attention
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.editions import edition
from qwen3vl.model.packed_decoder import PackedDecoder
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_model import random_model
from qwen3vl.model.text import DecoderLayer
from qwen3vl.model.vision import VisionBlock

KINDS = ("float32", "bfloat16", "int8", "int4")
CASES = {"decode": (1, 512, 1), "decode16": (16, 512, 1), "prefill": (1, 0, 512)}  # sequences, tokens before, new ones
PATCHES = (48, 64)


class Clock:
    """Time spent in the functions that it has wrapped; with `within`, only while that other clock runs."""

    def __init__(self, now: Callable[[], float], within: Clock | None = None) -> None:
        self.now, self.within, self.seconds, self.runs = now, within, 0.0, False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self.within is not None and not self.within.runs:
                return function(*args, **kwargs)
            start, self.runs = self.now(), True
            out = function(*args, **kwargs)
            self.seconds, self.runs = self.seconds + self.now() - start, False
            return out

        return run


@contextmanager
def clocked(now: Callable[[], float]) -> Iterator[tuple[Clock, Clock]]:
    """-> a clock for products and attention, the kernels' and torch's, and one for layers."""
    outer, kernels = Clock(now), library()
    inner = Clock(now, within=outer)
    names = ("qwen3vl_matmul", "qwen3vl_matmul_several", "qwen3vl_rows", "qwen3vl_wide", "qwen3vl_attention")
    torch_linear = SimpleNamespace(linear=inner.timed(F.linear))
    torch_attention = SimpleNamespace(scaled_dot_product_attention=inner.timed(F.scaled_dot_product_attention))
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(patch.object(kernels, name, inner.timed(getattr(kernels, name))))
        for kind, name in ((DecoderLayer, "forward"), (VisionBlock, "forward"), (PackedDecoder, "run")):
            stack.enter_context(patch.object(kind, name, outer.timed(getattr(kind, name))))
        stack.enter_context(patch.object(rows, "F", torch_linear))
        stack.enter_context(patch.object(attention, "F", torch_attention))
        yield inner, outer


def plain() -> Any:
    """The steps in plain torch."""
    return patch.object(steps, "can_run", lambda *_: False)


def new_model(kind: str, layers: int) -> Qwen3VL:
    config = edition("2b", text_layers=layers, vision_layers=layers)
    config = replace(config, text=replace(config.text, vocab_size=1024))
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    return random_model(config, dtype=dtype, quantize=Quantization.named(kind) if kind.startswith("int") else None)


def pass_of(model: Qwen3VL, case: str) -> Callable[[], object]:
    if case == "vision":
        patches = torch.randn(PATCHES[0] * PATCHES[1], model.config.vision.patch_values)
        return lambda: model.visual(patches, [PATCHES])
    sequences, past, new = CASES[case]
    blocks = -(-(past + new) // 16)
    cache = model.new_cache(sequences * blocks)
    tables = [BlockTable(16, range(i * blocks, (i + 1) * blocks)) for i in range(sequences)]
    ids_T = torch.randint(1024, (sequences * new,))
    positions_3T = (past + torch.arange(new)).repeat(3, sequences)
    rows_R = torch.arange(sequences) * new + new - 1

    def run() -> object:
        context = ForwardContext.paged(cache, [(table, past, new) for table in tables])
        return model(ids_T, positions_3T, context, logits_at=rows_R)

    return run


@dataclass(frozen=True)
class Measured:
    """Seconds: of a layer with fused steps, with plain ones, of its products and attention alone; of a pass's rest."""

    fused: float
    plain: float
    products: float
    rest: float


def measure(run: Callable[[], object], layers: int, repeat: int, now: Callable[[], float]) -> Measured:
    """Fused and plain in turns; the best times, which other processes disturb least."""
    times: dict[str, list[float]] = {"fused": [], "plain": [], "products": [], "rest": []}
    for turn in range(2 * (repeat + 1)):
        fused = turn % 2 == 0
        with clocked(now) as (inner, outer), nullcontext() if fused else plain():
            start = now()
            run()
            whole = now() - start
        if turn > 1:
            times["fused" if fused else "plain"].append(outer.seconds / layers)
            times["rest" if fused else "products"].append(whole - outer.seconds if fused else inner.seconds / layers)
    return Measured(**{name: min(values) for name, values in times.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "vision"], default=[*CASES, "vision"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="on a busy machine; for one thread")
    args = parser.parse_args()
    now = thread_time if args.cpu_time else perf_counter
    torch.set_num_threads(args.threads)
    kernels = library()
    if kernels is None:
        raise SystemExit("the CPU kernels were not built")
    kernels.qwen3vl_set_threads(args.threads)
    print(f"2B, {args.layers} layers, {args.threads} threads, {kernels.qwen3vl_isa().decode()}")
    print(f"{'a layer:':20} {'fused':>9} {'plain':>12} {'ratio':>6} {'outside':>8} {'plain':>6}  beside the layers")
    for kind in args.kinds:
        model = new_model(kind, args.layers)
        for case in args.cases:
            repeat = args.repeat if case.startswith("decode") else min(3, args.repeat)
            with torch.inference_mode():
                got = measure(pass_of(model, case), args.layers, repeat, now)
            print(
                f"{kind + ' ' + case:20} {got.fused * 1e3:6.2f} ms {got.plain * 1e3:9.2f} ms "
                f"{got.fused / got.plain:6.2f} {1 - got.products / got.fused:8.1%} {1 - got.products / got.plain:6.1%}"
                f"  {got.rest * 1e3:.2f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
