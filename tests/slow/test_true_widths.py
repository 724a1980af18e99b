"""The true widths of all six editions, cut to a few layers and 16 experts, against transformers.

Each library runs in a process of its own, so that a machine with 24 GB holds the largest. The checkpoint is
bfloat16 on disk and computed in float32. Shape names: T tokens, V vocabulary.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qwen3vl.model.editions import EDITIONS, edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint
from tests import models

NUM_TOKENS = 16
LAST = 24  # logits of the last tokens of the prompt; those of all would take gigabytes


def config_of(name: str):  # type: ignore[no-untyped-def]
    experts = 16 if "a" in name else None
    return edition(name, text_layers=3, vision_layers=6, experts=experts)


def prompt_of(name: str) -> models.Prompt:
    return models.make_prompt(config_of(name), 6, ("image", 12, 18), 5, ("video", 2, 6, 8), 4, ("image", 2, 20), 9)


def run_ours(name: str, folder: Path) -> dict[str, object]:
    model = models.load_model(folder, dtype="float32")
    prompt = prompt_of(name)
    tokens = models.greedy(model, [prompt], NUM_TOKENS)[0]
    return {"logits": last_logits_of_ours(model, prompt), "tokens": tokens}


@torch.no_grad()
def last_logits_of_ours(model: models.Qwen3VL, prompt: models.Prompt) -> torch.Tensor:
    positions, _ = models.positions_of(prompt, model.config)
    context = models.ForwardContext.pack([len(prompt)])
    rows = torch.arange(len(prompt) - LAST, len(prompt))
    return model(prompt.input_ids_T, positions, context, models.encode(model, [prompt]), logits_at=rows)


@torch.no_grad()
def run_theirs(name: str, folder: Path) -> dict[str, object]:
    model, config, prompt = models.load_theirs(folder), config_of(name), prompt_of(name)
    logits = model(**models.oracle_inputs([prompt], config), logits_to_keep=LAST).logits[0]
    return {"logits": logits, "tokens": models.their_greedy(model, [prompt], config, NUM_TOKENS)[0]}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITIONS)
def test_true_widths(name: str, tmp_path: Path) -> None:
    folder = write_random_checkpoint(config_of(name), tmp_path / "model")
    results = []
    for side in ("ours", "theirs"):
        out = tmp_path / f"{side}.pt"
        subprocess.run([sys.executable, "-m", __name__, side, name, str(folder), str(out)], check=True)
        results.append(torch.load(out))
    shutil.rmtree(folder)
    ours, theirs = results
    error = models.difference(ours["logits"], theirs["logits"])
    print(f"{name}: logits differ by {error:.1e}, tokens {ours['tokens']}")
    assert error <= models.TOLERANCE
    assert ours["tokens"] == theirs["tokens"] and len(set(ours["tokens"])) > NUM_TOKENS // 2


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    side, name, folder, out = sys.argv[1:]
    torch.save((run_ours if side == "ours" else run_theirs)(name, Path(folder)), out)
