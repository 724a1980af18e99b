"""How much slower others' words come while a request of 200 pages is being read.

    python benchmarks/engine_fairness.py --pages 200
    python benchmarks/engine_fairness.py --shrink --pages 4 --seconds 3    to try it

Some answers grow, and somebody reads along; when they have done so for a while the long request arrives.
Printed is the mean time between two words of an answer while it is read, over that before it came, and the
longest single wait.
"""

from __future__ import annotations

from statistics import mean
from time import perf_counter

from engine_setup import config_of, new_engine, new_model, new_prompt, new_work, outputs, parser, report

from qwen3vl.engine.engine import Engine

ENDLESS = 100_000  # tokens: nobody gets there


def waits(engine: Engine, names: set[str], seconds: float, stop_at: str | None = None) -> list[float]:
    """Times between two tokens of each of `names`, until time is up or `stop_at` has its first token."""
    last: dict[str, float] = {}
    found = []
    start = perf_counter()
    for name, _, now in outputs(engine):
        if name == stop_at or now - start > seconds:
            break
        if name in last:
            found.append(now - last[name])
        if name in names:
            last[name] = now
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pages", type=int, default=200, help="pictures in the long request")
    options.add_argument("--grid", type=int, nargs=2, default=(64, 64), help="patches of a page (default: %(default)s)")
    options.add_argument("--others", type=int, default=4, help="answers that grow meanwhile")
    options.add_argument("--seconds", type=float, default=60, help="of reading that are watched")
    options.add_argument("--reading-share", type=float, default=0.5)
    args = options.parse_args()
    config = config_of(args)
    pages = [part for _ in range(args.pages) for part in (("image", *args.grid), 20)]
    long = new_work("long", new_prompt(config, 10, *pages), config, 1)
    room = args.others * 4000 + long.prompt.num_tokens
    engine = new_engine(new_model(config, args), room, reading_share=args.reading_share, max_context=ENDLESS * 10)
    others = {str(i) for i in range(args.others)}
    for i, name in enumerate(sorted(others)):
        engine.add(new_work(name, new_prompt(config, 50, seed=i), config, 3000, streamed=True))
    waits(engine, others, args.seconds / 12)  # warm
    before = waits(engine, others, args.seconds / 4)
    engine.add(long)
    during = waits(engine, others, args.seconds, stop_at="long")
    ratio = mean(during) / mean(before)
    figures = {
        "long_tokens": long.prompt.num_tokens,
        "before_ms": 1e3 * mean(before),
        "during_ms": 1e3 * mean(during),
        "longest_wait_ms": 1e3 * max(during),
        "words_during": len(during),
        "ratio": ratio,
    }
    lines = (
        f"a request of {args.pages} pages, {long.prompt.num_tokens} tokens, read beside {args.others} growing answers",
        f"a word every {1e3 * mean(before):.1f} ms before, every {1e3 * mean(during):.1f} ms while it is read "
        f"({len(during)} words; longest wait {1e3 * max(during):.0f} ms)",
        f"ratio {ratio:.2f} (aim: at most 2)",
    )
    report(args, config, figures, lines)


if __name__ == "__main__":
    main()
