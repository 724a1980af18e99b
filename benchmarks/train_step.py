"""Training a model of about 10 million parameters: our trainer against transformers' Trainer.

    python benchmarks/train_step.py [--size small] [--conversations 96] [--steps 4] [--rounds 3] [--pictures line|mixed]

All start from the same weights and the same prepared conversations (token ids and pixels in memory: no decoding and
no tokenizing is measured), in float32, with fused AdamW, clipping at 1 and a constant rate, on one thread unless
OMP_NUM_THREADS says otherwise. Ours packs the conversations of a step; transformers' pads them to the longest of its
batch ("padded"), or has them sorted by length over the whole round first ("grouped", its group_by_length at its best:
hardly any padding, but steps of other conversations). Rounds alternate, so that a busy machine slows all; printed are
the best rounds in seconds of wall and of CPU time, which other processes disturb less, and the losses of the first
steps, which of ours and "padded" must agree.

line: one line of text, 32 x 64-320 pixels, a question of 8-14 tokens, an answer of 4-20.
mixed: every fourth picture is 128 x 128 to 256 x 256 instead, with an answer of 10-60 tokens.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.prepare_pictures import cpu_name
from tests import models

from qwen3vl.config import ModelConfig
from qwen3vl.inputs import ModelInputs, Patches, Visual, VisualSpan
from qwen3vl.model.checkpoint import load_model, save_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.examples import IGNORED, Encoded
from qwen3vl.train.flops import FlopCounter
from qwen3vl.train.initial import initialise
from qwen3vl.train.loop import StepWork, Trainer
from qwen3vl.train.loss import batch_loss
from qwen3vl.train.optimizer import Optimizer
from qwen3vl.train.packing import pack
from qwen3vl.train.parameters import freeze, parameter_groups
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.small import SIZES, small_config
from qwen3vl.types import MediaReceipt

RATE = 1e-4
NUM_CONTROL_TOKENS = 32  # more than there are: they stand at the end of the vocabulary
RECEIPT = MediaReceipt("image", "random", "", (0, 0), (0, 0), (1, 0, 0), 0)


def conversation(config: ModelConfig, draw: random.Random, mixed: bool) -> Encoded:
    """Random ids and pixels: the arithmetic does not depend on them."""
    large = mixed and draw.random() < 0.25
    height, width = (2 * draw.randint(4, 8), 2 * draw.randint(4, 8)) if large else (2, 2 * draw.randint(2, 10))
    answer = draw.randint(10, 60) if large else draw.randint(4, 20)
    text = [draw.randrange(config.text.vocab_size - NUM_CONTROL_TOKENS) for _ in range(draw.randint(8, 14) + answer)]
    pads = [config.image_token_id] * (height * width // 4)
    ids = np.array([config.vision_start_token_id, *pads, config.vision_end_token_id, *text])
    labels = ids.copy()
    labels[:-answer] = IGNORED
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(
        0, 256, (height * width, config.vision.patch_values), np.uint8
    )
    visual = Visual("image", Patches(pixels, (0.5,) * 3, (0.5,) * 3), (1, height, width), RECEIPT)
    return Encoded(ModelInputs(ids, (visual,), (VisualSpan(1, (height, width), 0, 0),)), labels)


class Ours:
    def __init__(self, folder: Path, steps: Sequence[Sequence[Encoded]]) -> None:
        self.model: Qwen3VL = load_model(folder).train()
        settings = TrainSettings(
            language_lr=RATE, mergers_lr=RATE, vision_lr=RATE, steps=10**6, schedule="constant", warmup=0, save_every=0
        )
        freeze(self.model, settings)
        optimizer = Optimizer(parameter_groups(self.model, settings), settings)
        self.steps, self.losses = steps, []
        self.trainer = Trainer(self.model, optimizer, batch_loss, self._work(), settings, logs=[self])

    def _work(self) -> Iterator[StepWork]:
        number = 0
        while True:
            for conversations in self.steps:
                number += len(conversations)
                yield StepWork((pack(conversations, self.model.config.vision.spatial_merge_size),), number)
            yield StepWork((), number)  # the end of a round

    def begin(self, run: object) -> None: ...
    def evaluated(self, progress: object, values: object) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self) -> None: ...

    def step(self, report: Any) -> None:
        self.losses.append(report.loss)

    def __call__(self) -> None:
        for work in self.trainer._work:
            if not work.batches:
                return
            report = self.trainer.step(work, time.perf_counter())
            self.step(report)


class Theirs:
    def __init__(self, folder: Path, steps: Sequence[Sequence[Encoded]], grouped: bool) -> None:
        import transformers

        self.model = models.load_theirs(folder).requires_grad_(True).train()
        self.config = ModelConfig.from_folder(folder)
        ordered = [conversation for conversations in steps for conversation in conversations]
        if grouped:
            ordered.sort(key=lambda conversation: conversation.num_tokens)
        arguments = transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=len(steps[0]),
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            logging_steps=1,
            logging_first_step=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )

        class InOrder(transformers.Trainer):
            def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        self.trainer = InOrder(
            model=self.model, args=arguments, train_dataset=_Rows(ordered), data_collator=self._collate
        )
        self.trainer.remove_callback(transformers.PrinterCallback)
        self.losses: list[float] = []

    def _collate(self, rows: list[Encoded]) -> dict[str, torch.Tensor]:
        longest = max(row.num_tokens for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : row.num_tokens] = torch.from_numpy(row.inputs.input_ids_T)
            labels[i, : row.num_tokens] = torch.from_numpy(row.labels_T)
            mask[i, : row.num_tokens] = 1
        visuals = [row.inputs.visuals[0] for row in rows]
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.config.image_token_id).int(),
            "pixel_values": torch.from_numpy(np.concatenate([visual.patches.read() for visual in visuals])),
            "image_grid_thw": torch.tensor([visual.grid_thw for visual in visuals]),
        }

    def __call__(self) -> None:
        self.trainer.train()
        self.losses = [entry["loss"] for entry in self.trainer.state.log_history if "loss" in entry]


class _Rows(torch.utils.data.Dataset):
    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Encoded:
        return self.rows[i]


def seconds(run: Callable[[], None]) -> tuple[float, float]:
    """-> wall, CPU."""
    began = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def peak_of_cpu() -> float:
    """Operations of a large matrix product in a second of CPU time."""
    a = torch.ones(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: a @ a)[1] for _ in range(10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="small")
    parser.add_argument("--conversations", type=int, default=96, help="to a step")
    parser.add_argument("--steps", type=int, default=4, help="to a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", choices=("line", "mixed"), default="line")
    options: Any = parser.parse_args()
    vocab = SIZES[options.size].vocab_size
    config = small_config(SIZES[options.size], vocab, vocab - NUM_CONTROL_TOKENS)
    folder, draw = Path(tempfile.mkdtemp()), random.Random(0)
    model = Qwen3VL(config)
    initialise(model, 0)
    save_model(model, folder)
    mixed = options.pictures == "mixed"
    steps = [[conversation(config, draw, mixed) for _ in range(options.conversations)] for _ in range(options.steps)]
    ours = Ours(folder, steps)
    runs = {"ours": ours, "padded": Theirs(folder, steps, False), "grouped": Theirs(folder, steps, True)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for round_ in range(options.rounds + 1):
        for name, run in runs.items():
            took = seconds(run)
            times[name] += [took] if round_ else []  # the first one warms up
            if not round_:
                print(f"{name}: losses {' '.join(f'{loss:.4f}' for loss in run.losses[:4])}", flush=True)
    best = {name: tuple(map(min, zip(*values, strict=True))) for name, values in times.items()}
    report(options, config, ours.model, steps, best)


def report(options: Any, config: ModelConfig, model: Qwen3VL, steps: Any, best: dict[str, Any]) -> None:
    packed = [pack(conversations, config.vision.spatial_merge_size) for conversations in steps]
    tokens, flops = sum(b.num_tokens for b in packed), sum(map(FlopCounter.of(model), packed))
    peak, count = peak_of_cpu(), sum(len(b.lengths) for b in packed)
    values = sum(p.numel() for p in model.parameters())
    print(f"\n{datetime.date.today()}, {cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}; {values / 1e6:.1f} M parameters, {vars(options)}")
    print(f"peak of a matrix product: {peak / 1e9:.0f} GFLOP/s\n")
    print("| | wall s | CPU s | conversations / CPU s | tokens / CPU s | share of peak | wall / ours | CPU / ours |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (wall, cpu) in best.items():
        rates = f"{count / cpu:.1f} | {tokens / cpu:.0f} | {flops / cpu / peak:.0%}"
        ratios = f"{wall / best['ours'][0]:.2f} | {cpu / best['ours'][1]:.2f}"
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {rates} | {ratios} |")


if __name__ == "__main__":
    main()
