"""Reading very long prompts: time and peak memory by length, each in a process of its own.

    python benchmarks/long_context.py 16384 65536 262144
    python benchmarks/long_context.py 1000000 --heads 1 --kv-heads 1 --yarn 3 --threads 2

The model is the shrunken 2B with one decoder layer, random weights and the real context settings; what is
measured is attention and memory, not the width of the rest. Shape names: T tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.context import check_context
from qwen3vl.engine.runner import Runner
from qwen3vl.engine.scheduler import Batch, Chunk
from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.inputs import ModelInputs
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.editions import edition
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import random_tensors

NATIVE, EXTENDED = 262_144, 1_000_000


@dataclass(frozen=True)
class Measured:
    tokens: int
    seconds: float
    peak_mib: float
    weights_mib: float
    kv_mib: float
    top_token: int
    decode_ms: float


def long_config(layers: int, heads: int, kv_heads: int, yarn: float | None) -> ModelConfig:
    """The shrunken 2B with a vocabulary of 1000 and the 2B's own context, or the card's extended one."""
    config = edition("2b", shrink=True, text_layers=layers)
    rope, context = config.text.rope, NATIVE
    if yarn is not None:
        rope, context = replace(rope, factor=yarn, original_max_positions=NATIVE), EXTENDED
    sizes = {"vocab_size": 1000, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    text = replace(config.text, **sizes, max_position_embeddings=context, rope=rope)  # type: ignore[arg-type]
    return replace(config, text=text, image_token_id=990, video_token_id=991)


def random_model(config: ModelConfig, seed: int = 0) -> Qwen3VL:
    model = Qwen3VL(config)
    model.load_state_dict(dict(random_tensors(config, seed, torch.float32)), strict=False)
    return model.eval().requires_grad_(False)


def random_prompt(config: ModelConfig, num_tokens: int, seed: int = 0) -> Prompt:
    ids = np.random.default_rng(seed).integers(0, 900, num_tokens)
    return Prompt.of(ModelInputs(ids), config)


def measure(config: ModelConfig, num_tokens: int, chunk: int) -> Measured:
    model = random_model(config)
    prompt = random_prompt(config, num_tokens)
    check_context(prompt, 0, config, EXTENDED)
    num_blocks = num_tokens // 16 + 1
    runner = Runner(model, model.new_cache(num_blocks))
    sequence = Sequence(prompt, BlockTable(16, range(num_blocks)))
    started = perf_counter()
    while sequence.num_pending > chunk:
        runner.run(Batch((Chunk(sequence, chunk),)))
        sequence.num_computed += chunk
        if sequence.num_computed % (32 * chunk) == 0:
            seconds = perf_counter() - started
            print(f"  {sequence.num_computed:,} of {num_tokens:,} tokens, {seconds:.0f} s", file=sys.stderr)
    top = int(runner.read(sequence, chunk).argmax())
    seconds, started = perf_counter() - started, perf_counter()
    sequence.answer_ids.append(top)
    runner.decode([sequence])
    decode_ms = 1000 * (perf_counter() - started)
    weights = sum(p.nbytes for p in model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    mib = 2**20
    kv = runner.cache.num_bytes
    return Measured(num_tokens, seconds, peak / mib, weights / mib, kv / mib, top, decode_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("lengths", type=int, nargs="+")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--kv-heads", type=int, default=1)
    parser.add_argument("--yarn", type=float, help="factor over the native 262,144; the card's is 3")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens per pass")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--here", action="store_true", help="one length, in this process, as JSON")
    options = parser.parse_args()
    if options.here:
        torch.set_num_threads(options.threads)
        config = long_config(options.layers, options.heads, options.kv_heads, options.yarn)
        print(json.dumps(asdict(measure(config, options.lengths[0], options.chunk))))
        return
    print("| tokens | prefill s | tokens/s | peak MiB | weights MiB | KV MiB | next token ms |")
    print("|---|---|---|---|---|---|---|")
    for length in options.lengths:
        given = [a for a in sys.argv[1:] if a not in set(map(str, options.lengths))]
        out = subprocess.run(
            [sys.executable, __file__, str(length), *given, "--here"], stdout=subprocess.PIPE, check=True
        )
        m = Measured(**json.loads(out.stdout))
        rate = m.tokens / m.seconds
        print(
            f"| {m.tokens:,} | {m.seconds:.1f} | {rate:,.0f} | {m.peak_mib:.0f} "
            f"| {m.weights_mib:.1f} | {m.kv_mib:.1f} | {m.decode_ms:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
