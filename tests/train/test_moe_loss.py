"""The balancing loss against transformers': the function, and the whole model's gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.checkpoint import load_model
from qwen3vl.train.moe_loss import load_balancing_loss, router_logits
from tests import models, oracle


def test_the_example_on_top_of_the_file() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]])
    assert float(load_balancing_loss([probabilities.log()], 1)) == pytest.approx(2 * (0.4 + 0.4 / 3))


@pytest.mark.parametrize(("layers", "tokens", "experts", "per_token"), [(1, 9, 4, 1), (3, 50, 8, 2)])
def test_value_and_gradient(layers: int, tokens: int, experts: int, per_token: int) -> None:
    oracle.import_torchvision()
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import load_balancing_loss_func

    torch.manual_seed(0)
    logits = [torch.randn(tokens, experts, requires_grad=True) for _ in range(layers)]
    mine, theirs = load_balancing_loss(logits, per_token), load_balancing_loss_func(tuple(logits), experts, per_token)
    torch.testing.assert_close(mine, theirs)
    for a, b in zip(torch.autograd.grad(mine, logits), torch.autograd.grad(theirs, logits), strict=True):
        torch.testing.assert_close(a, b)


def test_whole_model() -> None:
    """The routers' weights get transformers' gradients, through every layer."""
    path = models.small_folder("30b-a3b")
    config = models.small_config("30b-a3b")
    prompt = models.make_prompt(config, 20, seed=3)
    model, theirs = load_model(path).requires_grad_(True), models.load_theirs(path).requires_grad_(True)
    with router_logits(model) as logits:
        model(prompt.input_ids_T, models.positions_of(prompt, config)[0], ForwardContext.pack([len(prompt)]))
    assert len(logits) == config.text.num_hidden_layers
    assert config.text.moe is not None
    mine = load_balancing_loss(logits, config.text.moe.num_experts_per_tok)
    out = theirs(**models.oracle_inputs([prompt], config), output_router_logits=True)
    torch.testing.assert_close(mine, out.aux_loss)
    weights = [layer.mlp.gate.weight for layer in model.language_model.layers]
    their_weights = [layer.mlp.gate.weight for layer in theirs.model.language_model.layers]
    grads, their_grads = torch.autograd.grad(mine, weights), torch.autograd.grad(out.aux_loss, their_weights)
    for a, b in zip(grads, their_grads, strict=True):
        assert models.difference(a, b) < models.TOLERANCE


def test_nothing_is_kept_outside_the_block() -> None:
    config = models.small_config("30b-a3b")
    model = models.ours(models.small_folder("30b-a3b"))
    prompt = models.make_prompt(config, 5)
    seen: list[Tensor]
    with router_logits(model) as seen:
        pass
    models.prefill(model, [prompt])
    assert seen == [] and all(layer.mlp.gate.watcher is None for layer in model.language_model.layers)
