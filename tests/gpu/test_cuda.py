"""On a CUDA device the same code gives the CPU's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import qwen3vl
from qwen3vl.engine.sequence import Prompt
from qwen3vl.model.attention import attend_with_lse, attend_with_lse_plain
from qwen3vl.model.editions import edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint
from tests.engine.prompts import alone

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module", params=["4b", "30b-a3b"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(request.param) / "checkpoint"
    return write_random_checkpoint(edition(request.param, shrink=True), out, dtype=torch.float32)


def test_answers_equal_the_cpus(folder: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    picture = Image.effect_noise((300, 200), 80).convert("RGB")
    answers = []
    for device in ("cpu", "cuda"):
        model = qwen3vl.load(folder, device=device)
        answers.append(model.chat("What is this?", images=[picture], max_tokens=32).token_ids)
    assert answers[0] == answers[1]


def test_prefill_in_chunks_equals_one_pass(folder: Path) -> None:
    model = qwen3vl.load(folder, device="cuda")
    prompt = Prompt.of(model.processor("word " * 700), model.config)
    readers = [alone(model.model, prompt) for _ in range(2)]
    whole, parts = (runner.read(each, size) for (runner, each), size in zip(readers, (4096, 97), strict=True))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_log_sum_exp_of_the_device(folder: Path) -> None:
    q, k, v = (torch.randn(4, length, 64, device="cuda") for length in (33, 5000, 5000))
    for got, want in zip(attend_with_lse(q, k, v), attend_with_lse_plain(q.cpu(), k.cpu(), v.cpu()), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-4)
