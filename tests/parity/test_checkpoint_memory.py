"""Loading takes at most 1.1 x the weights, also where it converts them or turns the experts around.

Peaks are VmHWM of a fresh process each: ru_maxrss would count the parent's memory too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen3vl.config import ModelConfig, MoeConfig
from qwen3vl.model.checkpoint import save_tensors
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")

PROGRAM = """
import gc, re, sys, torch
from qwen3vl.config import ModelConfig
from qwen3vl.model.checkpoint import load_model

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

with torch.device("meta"):  # loads 70 MB of torch's own code
    torch.nn.Embedding(2, 2)
    torch.nn.Linear(2, 2)
    torch.nn.LayerNorm(2)
gc.collect()
before = status("VmRSS")
model = load_model(sys.argv[1], dtype=sys.argv[2])
weights = sum(t.nbytes for n, t in model.state_dict().items() if n != "lm_head.weight")
print(status("VmHWM") - before, weights)
"""


def config(moe: MoeConfig | None) -> ModelConfig:
    small = models.small_config("30b-a3b" if moe else "4b", tie_word_embeddings=True)
    sizes = {"vocab_size": 50_000, "hidden_size": 1024, "intermediate_size": 8192, "num_hidden_layers": 4}
    return replace(
        small,
        text=replace(small.text, **sizes, moe=moe),
        vision=replace(small.vision, out_hidden_size=1024),
    )


def ones(config: ModelConfig, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in Qwen3VL(config).state_dict().items() if name != "lm_head.weight"}
    for name, shape in shapes.items():
        yield name, torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("case", "stored", "wanted"),
    [
        ("dense", torch.float32, "bfloat16"),
        pytest.param("dense", torch.float32, "auto", marks=pytest.mark.slow),
        pytest.param("experts turned around", torch.float32, "auto", marks=pytest.mark.slow),
        pytest.param("dense", torch.bfloat16, "float32", marks=pytest.mark.slow),
        pytest.param("experts turned around", torch.float32, "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_peak(case: str, stored: torch.dtype, wanted: str, tmp_path: Path) -> None:
    shape = config(MoeConfig(16, 2, 512) if case != "dense" else None)
    save_tensors(shape, ones(shape, stored), tmp_path)
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), wanted]
    peak, weights = map(int, subprocess.run(program, capture_output=True, text=True, check=True).stdout.split())
    assert weights > 250e6
    print(case, stored, wanted, peak / weights, peak, weights)
    assert peak <= 1.1 * weights, (peak / weights, peak, weights)
