"""One pass through some layers of the 2B: fused steps against plain torch, and what is outside of products and attention.

    python benchmarks/layer_step.py --kinds int4 float32 --cases decode prefill

True widths, random weights, a small vocabulary. "fused" and "plain" are the same model with the kernels of
kernels/cpu/steps.py on and off, in turns; products and attention are the same in both. "outside" is the share of a pass
that is neither in a matrix product nor in attention, everything that Python does included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from qwen3vl.kernels.cpu import rows, steps
from qwen3vl.kernels.cpu.library import library
from qwen3vl.model import attention
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.editions import edition
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_model import random_model

KINDS = ("float32", "bfloat16", "int8", "int4")
CASES = {"decode": (1, 512, 1), "decode16": (16, 512, 1), "prefill": (1, 0, 512)}  # sequences, tokens before, new ones
PATCHES = (48, 64)


class Clock:
    """Time spent in the functions that it has wrapped."""

    seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            out = function(*args, **kwargs)
            self.seconds += perf_counter() - start
            return out

        return run


@contextmanager
def clocked() -> Iterator[Clock]:
    """Products and attention go through a clock: those of the kernels, and torch's."""
    clock, kernels = Clock(), library()
    names = ("qwen3vl_matmul", "qwen3vl_matmul_several", "qwen3vl_rows", "qwen3vl_wide", "qwen3vl_attention")
    before = {name: getattr(kernels, name) for name in names if kernels is not None and hasattr(kernels, name)}
    for name, function in before.items():
        setattr(kernels, name, clock.timed(function))
    rows.F, attention.F = (  # type: ignore[attr-defined]
        SimpleNamespace(linear=clock.timed(F.linear)),
        SimpleNamespace(scaled_dot_product_attention=clock.timed(F.scaled_dot_product_attention)),
    )
    try:
        yield clock
    finally:
        rows.F = attention.F = F  # type: ignore[attr-defined]
        for name, function in before.items():
            setattr(kernels, name, function)


@contextmanager
def plain() -> Iterator[None]:
    """The steps in plain torch."""
    before = steps.can_run
    steps.can_run = lambda *_: False
    try:
        yield
    finally:
        steps.can_run = before


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
    fused: float
    plain: float
    outside: float
    outside_plain: float


def measure(run: Callable[[], object], repeat: int) -> Measured:
    """The best of `repeat` turns: what another process disturbs least."""
    whole: dict[bool, list[float]] = {True: [], False: []}
    outside: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * (repeat + 1)):
        fused = turn % 2 == 0
        with clocked() as clock, nullcontext() if fused else plain():
            start = perf_counter()
            run()
            seconds = perf_counter() - start
        if turn > 1:
            whole[fused].append(seconds)
            outside[fused].append(1 - clock.seconds / seconds)
    return Measured(min(whole[True]), min(whole[False]), min(outside[True]), min(outside[False]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "vision"], default=[*CASES, "vision"])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    kernels = library()
    if kernels is None:
        raise SystemExit("the CPU kernels were not built")
    kernels.qwen3vl_set_threads(args.threads)
    print(f"2B, {args.layers} layers, {args.threads} threads, {kernels.qwen3vl_isa().decode()}")
    print(f"{'':20} {'fused':>10} {'plain':>10} {'ratio':>6} {'outside':>8} {'plain':>6}")
    for kind in args.kinds:
        model = new_model(kind, args.layers)
        for case in args.cases:
            repeat = args.repeat if case.startswith("decode") else min(3, args.repeat)
            with torch.inference_mode():
                got = measure(pass_of(model, case), repeat)
            print(
                f"{kind + ' ' + case:20} {got.fused * 1e3:7.1f} ms {got.plain * 1e3:7.1f} ms "
                f"{got.fused / got.plain:6.2f} {got.outside:8.1%} {got.outside_plain:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
