"""Attention alone: the CPU kernels against torch's own, in turns, and the share of this machine's peaks.

    python benchmarks/attention.py --threads 1 2
    python benchmarks/attention.py --only decode --contexts 8192 32768

Shapes of the 2B (16 heads of 128 on 8 key heads, vision 16 heads of 64) and of the 8B's tower (heads of 72). "torch" is
scaled_dot_product_attention: for text what the decoder does without the kernels, with the cache's tokens in one piece,
an int8 cache widened before. Times are the best of --repeat turns, which another process can spoil least.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.kernels.cpu.attention import Plan, attend
from qwen3vl.kernels.cpu.library import library
from qwen3vl.kernels.cpu.probe import Peaks, Prober

HEADS, KV_HEADS, SIZE = 16, 8, 128
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class Case:
    name: str
    ours: Callable[[], Tensor]
    torch: Callable[[], Tensor]
    operations: float
    bytes: float  # keys and values, each read once


def vision_cases(patches: int) -> Iterator[Case]:
    for size in (64, 72):
        for name in ("float32", "bfloat16"):
            q, k, v = torch.randn(patches, 3, HEADS, size).to(TYPES[name]).unbind(1)
            plan = Plan.packed((patches,))
            turned = [x.transpose(0, 1)[None] for x in (q, k, v)]
            yield Case(
                f"vision, {patches} patches, heads of {size}, {name}",
                lambda q=q, k=k, v=v, plan=plan: attend(q, k.transpose(0, 1), v.transpose(0, 1), plan, causal=False),
                lambda turned=turned: F.scaled_dot_product_attention(*turned)[0].transpose(0, 1),
                4 * HEADS * patches**2 * size,
                2 * k.nbytes,
            )


def text_case(name: str, past: int, new: int) -> Case:
    dtype = TYPES[name] if name != "int8" else torch.float32
    length = past + new
    q, (k, v) = torch.randn(new, HEADS, SIZE).to(dtype), torch.randn(2, KV_HEADS, length, SIZE)
    scales: tuple[Tensor, Tensor] | None = None
    if name == "int8":
        k_scale, v_scale = (x.abs().amax(-1) / 127 for x in (k, v))
        scales = k_scale, v_scale
        k, v = ((x / s[..., None]).round().to(torch.int8) for x, s in ((k, k_scale), (v, v_scale)))
    else:
        k, v = k.to(dtype), v.to(dtype)
    plan = Plan.of([(0, new, past, [(0, length)])])

    def by_torch() -> Tensor:
        keys = [k, v] if scales is None else [x * s[..., None] for x, s in zip((k, v), scales, strict=True)]
        if new == 1:
            return F.scaled_dot_product_attention(q.view(1, KV_HEADS, -1, SIZE), *(x[None] for x in keys))
        mask = None if past == 0 else torch.ones(new, length, dtype=torch.bool).tril(past)
        turned = q.transpose(0, 1)[None]
        return F.scaled_dot_product_attention(
            turned, *(x[None] for x in keys), attn_mask=mask, is_causal=mask is None, enable_gqa=True
        )

    what = "decode" if new == 1 else f"prefill of {new}"
    seen = new * past + new * (new + 1) / 2
    return Case(
        f"{what} behind {past}, {name}",
        lambda: attend(q, k, v, plan, scales, causal=True),
        by_torch,
        4 * HEADS * SIZE * seen,
        2 * (k.nbytes + (0 if scales is None else scales[0].nbytes)),
    )


def cases(args: argparse.Namespace) -> Iterator[Case]:
    if "vision" in args.only:
        yield from vision_cases(args.patches)
    if "prefill" in args.only:
        for past, new in ((0, 512), (0, 2048), (8192, 512)):
            yield from (text_case(name, past, new) for name in TYPES)
    if "decode" in args.only:
        for past in args.contexts:
            yield from (text_case(name, past, 1) for name in TYPES)


def best(case: Case, repeat: int) -> tuple[float, float]:
    """Seconds of ours and torch's, in turns; short calls are repeated more often."""
    ours = torchs = float("inf")
    done, began = 0, perf_counter()
    while done < repeat or (perf_counter() - began < 0.3 and done < 200):
        start = perf_counter()
        case.ours()
        middle = perf_counter()
        case.torch()
        ours, torchs, done = min(ours, middle - start), min(torchs, perf_counter() - middle), done + 1
    return ours, torchs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument(
        "--only", nargs="+", choices=("vision", "prefill", "decode"), default=["vision", "prefill", "decode"]
    )
    parser.add_argument("--patches", type=int, default=3072)
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 8192, 32768])
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    kernels, prober = library(), Prober()
    if kernels is None:
        raise SystemExit("the CPU kernels were not built")
    print("| threads | attention | kernels ms | torch ms | torch / kernels | of the FMA peak | of the read speed |")
    print("|---|---|---|---|---|---|---|")
    for threads in args.threads:
        torch.set_num_threads(threads)
        kernels.qwen3vl_set_threads(threads)
        peaks: Peaks = prober.measure()
        for case in cases(args):
            ours, torchs = best(case, args.repeat)
            peaks = peaks.best(prober.measure())
            print(
                f"| {threads} | {case.name} | {1000 * ours:.2f} | {1000 * torchs:.2f} | {torchs / ours:.2f} "
                f"| {case.operations / ours / peaks.floats:.0%} | {case.bytes / ours / peaks.read:.0%} |",
                flush=True,
            )
    print(f"\n{peaks.isa}; peaks with {threads} threads: {peaks.floats / 1e9:.0f} GFLOP/s, {peaks.read / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
