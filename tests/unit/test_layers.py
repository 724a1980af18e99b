"""Gradients that are written out against those that autograd puts together."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.layers import RMSNorm
from tests import models


def written_out(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


@pytest.mark.parametrize("shape", [(7, 24), (5, 3, 8)])
def test_rms_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1], 1e-3)
    torch.nn.init.normal_(norm.weight)
    x, grad = torch.randn(shape, requires_grad=True), torch.randn(shape)
    out, expected = norm(x), written_out(x, norm.weight, 1e-3)
    torch.testing.assert_close(out, expected)
    inputs = (x, norm.weight)
    for mine, theirs in zip(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), out, atol=0, rtol=1e-6)  # with and without gradients
    norm.weight.requires_grad_(False)
    expected = written_out(x, norm.weight, 1e-3)
    torch.testing.assert_close(torch.autograd.grad(norm(x), x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


def test_rms_norm_in_16_bits() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(24, 1e-6).bfloat16()
    x = torch.randn(5, 24).bfloat16().requires_grad_(True)
    norm(x).sum().backward()
    assert x.grad is not None and norm.weight.grad is not None
    assert x.grad.dtype == norm.weight.grad.dtype == torch.bfloat16


def test_making_a_model_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from qwen3vl.model.editions import edition\n"
        "from qwen3vl.model.qwen3vl import Qwen3VL\n"
        "with torch.device('meta'):\n    Qwen3VL(edition('30b-a3b', shrink=True))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("layers", [4, 3])
def test_some_rows_of_the_decoder(layers: int) -> None:
    """What is left out of the last layer changes nothing; with 3 layers its output is still added to by DeepStack."""
    path = models.write(models.small_config("4b", text={"num_hidden_layers": layers}))
    model = models.ours(path)
    prompts = [models.make_prompt(model.config, 5, ("image", 4, 4), 6), models.make_prompt(model.config, 9)]
    ids = torch.cat([prompt.input_ids_T for prompt in prompts])
    positions = torch.cat([models.positions_of(prompt, model.config)[0] for prompt in prompts], dim=1)
    embedded = model.embed(ids, models.encode(model, prompts))
    context = ForwardContext.pack([len(prompt) for prompt in prompts])
    rows = torch.tensor([0, 8, len(ids) - 1])
    everything = model.language_model(embedded, positions, context)
    torch.testing.assert_close(model.language_model(embedded, positions, context, rows), everything[rows])
