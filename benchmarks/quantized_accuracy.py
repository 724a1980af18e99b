"""What int8 and int4 change: the distribution of the next token against float32, and answers to tasks.

    python benchmarks/quantized_accuracy.py --model small --count 20
    python benchmarks/quantized_accuracy.py --random 2b --layers 8 --count 4

Every token of the true answers of held-out generated samples is asked for with the truth before it. Of each: the
divergence KL(float32 || packed) in nats, and whether the likeliest token is the same. --random takes an edition's
shapes with random weights (fewer layers, to be quick): nearly flat distributions, the worst case for the second number.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.hub import locate
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import ASSETS
from qwen3vl.model.random_model import random_model
from qwen3vl.settings import MediaOptions
from qwen3vl.train.data_specs import open_source
from qwen3vl.train.loader import EncoderRecipe, prepare
from qwen3vl.train.loss import hidden_states
from qwen3vl.train.packing import TrainBatch, fill, pack
from qwen3vl.train.settings import TrainSettings

TASKS = "read_word,read_line,question_color,question_place,count,locate_small,widget_locate,receipt_total"
VARIANTS = {
    "int8": Quantization(8),
    "int8, tower in float32": Quantization(8, vision_bits=None),
    "int4": Quantization(4),
    "int4, tower in float32": Quantization(4, vision_bits=None),
}


def main() -> None:
    given = arguments()
    processor = ASSETS if given.random else locate(given.model)
    batches = batches_of(processor, given.tasks, given.count)
    exact = model_of(given, None)
    expected = [distribution(exact, batch) for batch in batches]
    rows = [{"weights": "float32", "loss": mean_loss(expected, batches)}]
    show(rows[-1])
    del exact
    for name, quantization in VARIANTS.items():
        model = model_of(given, quantization)
        found = [distribution(model, batch) for batch in batches]
        rows.append({"weights": name, "loss": mean_loss(found, batches), **compared(expected, found)})
        show(rows[-1])
    document = {**vars(given), "tokens": sum(len(x) for x in expected), "rows": rows}
    if given.out:
        Path(given.out).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="folder or name")
    parser.add_argument("--random", choices=EDITIONS, help="random weights in an edition's shapes instead")
    parser.add_argument("--layers", type=int, default=8, help="with --random: of decoder and tower each")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--count", type=int, default=20, help="samples of each task")
    parser.add_argument("--out", help="a JSON file")
    return parser.parse_args()


def batches_of(processor: Path, tasks: str, count: int) -> list[TrainBatch]:
    source = open_source((f"synthetic:{tasks}",), None, TrainSettings(steps=1), "heldout")
    encoder = EncoderRecipe(processor, MediaOptions()).make()
    merge = encoder.processor.picture_settings.merge_size
    examples = prepare(source, range(count * len(tasks.split(","))), encoder)
    return [pack(filled.examples, merge) for filled in fill(examples, 4096)]


def model_of(given: argparse.Namespace, quantization: Quantization | None) -> Qwen3VL:
    if given.random is None:
        return load_model(locate(given.model), dtype=torch.float32, quantize=quantization).eval()
    config = edition(given.random, text_layers=given.layers, vision_layers=given.layers)
    return random_model(config, dtype=torch.float32, quantize=quantization).eval()


@torch.inference_mode()
def distribution(model: Qwen3VL, batch: TrainBatch) -> Tensor:
    """-> log-probabilities of the next token at every learnt place: (R, V)"""
    return torch.log_softmax(model.lm_head(hidden_states(model, batch, batch.rows_R)).float(), -1)


def mean_loss(found: Sequence[Tensor], batches: Sequence[TrainBatch]) -> float:
    total = sum(-float(x.gather(1, b.targets_R[:, None]).sum()) for x, b in zip(found, batches, strict=True))
    return total / sum(len(x) for x in found)


def compared(expected: Sequence[Tensor], found: Sequence[Tensor]) -> dict[str, float]:
    pairs = list(zip(expected, found, strict=True))
    divergence = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs])
    same = torch.cat([p.argmax(-1) == q.argmax(-1) for p, q in pairs]).float()
    return {
        "divergence": float(divergence.mean()),
        "divergence_99": float(divergence.quantile(0.99)),
        "same_token": float(same.mean()),
    }


def show(row: dict[str, float | str]) -> None:
    if "divergence" not in row:
        print(f"{row['weights']:24} loss {row['loss']:.4f}", flush=True)
        return
    print(
        f"{row['weights']:24} loss {row['loss']:.4f}   divergence {row['divergence']:.5f} (99 %: "
        f"{row['divergence_99']:.4f})   same token {row['same_token']:.2%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
