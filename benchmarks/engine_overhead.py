"""Time of an engine step that is not spent in the model, as a share of a decode step of the whole edition.

    python benchmarks/engine_overhead.py --batch 1 8 32
    python benchmarks/engine_overhead.py --shrink --steps 5            to try it

The model is measured with --layers layers and with half of them; from the difference the time of a step with
all of the edition's layers follows. The engine's own time (scheduling, inputs, sampling, text, stopping) does
not depend on layers. Medians over the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from engine_setup import config_of, new_engine, new_model, new_prompt, new_work, parser, report

from qwen3vl.model.editions import edition
from qwen3vl.model.qwen3vl import Qwen3VL


@dataclass(frozen=True)
class Step:
    """Median seconds of a decode step: all of it, and what the model takes of it."""

    whole: float
    model: float

    @property
    def outside(self) -> float:
        return self.whole - self.model


def decode_steps(model: Qwen3VL, batch: int, context: int, num_steps: int) -> Step:
    engine = new_engine(model, batch * (context + num_steps + 8), reading_share=1.0)
    for i in range(batch):
        engine.add(new_work(str(i), new_prompt(model.config, context, seed=i), model.config, num_steps + 4))
    inside = [0.0]
    forward = engine.runner._forward

    def timed(inputs: Any) -> Any:
        start = perf_counter()
        logits = forward(inputs)
        if logits.is_cuda:
            torch.cuda.synchronize()
        inside[0] += perf_counter() - start
        return logits

    engine.runner._forward = timed  # type: ignore[method-assign]
    while any(not sequence.is_decoding for sequence in engine.scheduler.running) or engine.scheduler.waiting:
        engine.step()
    wholes, models = [], []
    for _ in range(num_steps):
        inside[0], start = 0.0, perf_counter()
        engine.step()
        wholes.append(perf_counter() - start)
        models.append(inside[0])
    return Step(median(wholes), median(models))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="answers that grow together")
    options.add_argument("--context", type=int, default=200, help="tokens of each prompt")
    options.add_argument("--steps", type=int, default=30)
    args = options.parse_args()
    config, half = config_of(args), config_of(args, max(1, args.layers // 2))
    layers = edition(args.edition).text.num_hidden_layers
    steps = {}
    for each in (config, half):
        model = new_model(each, args)
        steps[each.text.num_hidden_layers] = [decode_steps(model, b, args.context, args.steps) for b in args.batch]
        del model
    rows, lines = [], []
    for i, batch in enumerate(args.batch):
        cut, halved = (steps[each.text.num_hidden_layers][i] for each in (config, half))
        per_layer = (cut.model - halved.model) / max(1, config.text.num_hidden_layers - half.text.num_hidden_layers)
        whole_model = cut.model + per_layer * (layers - config.text.num_hidden_layers)
        share = cut.outside / (whole_model + cut.outside)
        rows.append({"batch": batch, "outside_ms": 1e3 * cut.outside, "model_ms": 1e3 * whole_model, "share": share})
        lines.append(
            f"{batch} answers: outside the model {1e3 * cut.outside:.2f} ms of a step; the model "
            f"{1e3 * cut.model:.1f} ms here, {1e3 * whole_model:.1f} ms with {layers} layers: "
            f"{share:.1%} (aim: under 5 %)"
        )
    report(args, config, {"rows": rows, "ratio": max(row["share"] for row in rows)}, lines)


if __name__ == "__main__":
    main()
