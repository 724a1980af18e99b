"""What deterministic=True costs: reading a prompt and decoding, over the ordinary model in the same run.

python benchmarks/deterministic.py --prompt 1024 --batch 1 8
python benchmarks/deterministic.py --shrink --steps 5              to try it
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

from engine_setup import config_of, new_engine, new_model, new_prompt, new_work, parser, report

from qwen3vl.model.deterministic import make_deterministic
from qwen3vl.model.qwen3vl import Qwen3VL


def seconds(model: Qwen3VL, prompt_tokens: int, batch: int, num_steps: int) -> tuple[float, float]:
    """-> of reading all prompts, of a decode step."""
    engine = new_engine(model, batch * (prompt_tokens + num_steps + 8), reading_share=1.0)
    for i in range(batch):
        engine.add(new_work(str(i), new_prompt(model.config, prompt_tokens, seed=i), model.config, num_steps + 4))
    start = perf_counter()
    while engine.scheduler.waiting or any(not sequence.is_decoding for sequence in engine.scheduler.running):
        engine.step()
    read, steps = perf_counter() - start, []
    for _ in range(num_steps):
        start = perf_counter()
        engine.step()
        steps.append(perf_counter() - start)
    return read, median(steps)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompt", type=int, default=1024, help="tokens of each prompt")
    options.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    options.add_argument("--steps", type=int, default=12)
    args = options.parse_args()
    config = config_of(args)
    model = new_model(config, args)
    seconds(model, 64, 1, 2)  # warm
    ordinary = [seconds(model, args.prompt, batch, args.steps) for batch in args.batch]
    start = perf_counter()
    make_deterministic(model)
    check = perf_counter() - start
    same = [seconds(model, args.prompt, batch, args.steps) for batch in args.batch]
    rows = [
        {"batch": batch, "reading_ratio": b[0] / a[0], "decode_ratio": b[1] / a[1], "decode_ms": 1e3 * b[1]}
        for batch, a, b in zip(args.batch, ordinary, same, strict=True)
    ]
    lines = [
        f"{row['batch']} answers: reading takes {row['reading_ratio']:.2f} times as long, decoding "
        f"{row['decode_ratio']:.2f} times ({row['decode_ms']:.1f} ms a step)"
        for row in rows
    ]
    lines.append(f"the check of this machine when the model is loaded: {check:.1f} s")
    ratio = max(row["decode_ratio"] for row in rows)
    report(args, config, {"rows": rows, "check_s": check, "ratio": ratio}, lines)


if __name__ == "__main__":
    main()
