"""A second question about the same picture or video: time to its first token over that of the first question.

    python benchmarks/engine_second_question.py --grid 64 64
    python benchmarks/engine_second_question.py --grid 40 24 --frames 32
    python benchmarks/engine_second_question.py --shrink               to try it

Three ways: with both caches; when text stands before the picture that differs, so that only the vision cache
helps; and with neither (a picture of the same size that has not been seen), as a check.
"""

from __future__ import annotations

from engine_setup import Finished, config_of, new_engine, new_model, new_prompt, new_work, parser, report, run
from tests import models

from qwen3vl.engine.engine import Engine


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--grid", type=int, nargs=2, default=(64, 64), help="patches of a frame (default: %(default)s)"
    )
    options.add_argument("--frames", type=int, default=0, help="temporal patches of a video; 0: a picture")
    args = options.parse_args()
    config = config_of(args)
    shown: models.Part = ("video", args.frames, *args.grid) if args.frames else ("image", *args.grid)
    first = new_prompt(config, 30, shown, 20)
    asked = {
        "first": first,
        "both caches": with_text(first, new_prompt(config, 30, shown, 20), before=False, seed=1),
        "vision cache only": with_text(first, new_prompt(config, 30, shown, 20), before=True, seed=2),
        "another picture": new_prompt(config, 30, shown, 20, seed=3),
    }
    engine = new_engine(new_model(config, args), 4 * (len(first) + 8))
    ask(engine, "warm", new_prompt(config, 8))
    seconds = {name: ask(engine, name, prompt).first for name, prompt in asked.items()}
    ratios = {name: value / seconds["first"] for name, value in seconds.items()}
    lines = [
        f"prompt of {len(first)} tokens: first question {seconds['first']:.2f} s to the first token",
        *(f"  {name}: {seconds[name]:.3f} s, ratio {ratio:.3f}" for name, ratio in ratios.items() if name != "first"),
        f"second question / first: {ratios['both caches']:.3f} (aim: at most 0.1)",
    ]
    figures = {"prompt_tokens": len(first), "seconds": seconds, "ratios": ratios, "ratio": ratios["both caches"]}
    report(args, config, figures, lines)


def with_text(first: models.Prompt, other: models.Prompt, before: bool, seed: int) -> models.Prompt:
    """The first prompt's picture with another question behind it, or also other text before it."""
    ids = first.input_ids_T.clone()
    ids[-20:] = (ids[-20:] + 17 * seed) % 900
    if before:
        ids[:30] = (ids[:30] + 17 * seed) % 900
    return models.Prompt(ids, first.shown)


def ask(engine: Engine, name: str, prompt: models.Prompt) -> Finished:
    config = engine.runner.model.config
    return run(engine, [new_work(name, prompt, config, 2)])[name]


if __name__ == "__main__":
    main()
