"""Gradient checkpointing: the same loss and gradients, fewer activations, nothing changed in inference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.train.checkpointing import use_gradient_checkpointing
from qwen3vl.train.moe_loss import load_balancing_loss, router_logits
from tests import models


def loss_of(model: Qwen3VL, edition: str) -> Tensor:
    config = models.small_config(edition)
    prompts = [models.make_prompt(config, 4, ("image", 4, 6), 5), models.make_prompt(config, 7, ("video", 2, 4, 4), 3)]
    ids = torch.cat([prompt.input_ids_T for prompt in prompts])
    positions = torch.cat([models.positions_of(prompt, config)[0] for prompt in prompts], dim=1)
    features = models.encode(model, prompts)
    with router_logits(model) as routed:
        logits = model(ids, positions, ForwardContext.pack([len(p) for p in prompts]), features)
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[1:])
    return loss + load_balancing_loss(routed, 2) if routed else loss


def kept(model: Qwen3VL, edition: str) -> tuple[Tensor, int]:
    """-> loss, number of values that the graph holds besides the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = loss_of(model, edition)
    return loss, sum(storages.values())


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_same_gradients_and_less_memory(edition: str) -> None:
    plain = load_model(models.small_folder(edition)).requires_grad_(True)
    saving = load_model(models.small_folder(edition)).requires_grad_(True)
    use_gradient_checkpointing(saving)
    (loss, num_bytes), (saving_loss, saving_bytes) = kept(plain, edition), kept(saving, edition)
    assert torch.equal(loss, saving_loss)
    assert saving_bytes < num_bytes / 2, (saving_bytes, num_bytes)
    loss.backward()
    saving_loss.backward()
    assert set(plain.state_dict()) == set(saving.state_dict())
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None, name
        assert torch.equal(a.grad, b.grad), name


def test_a_frozen_model_with_one_trained_layer() -> None:
    """The inputs of all layers before it need no gradient; its own weights get theirs."""
    model = load_model(models.small_folder("4b"))
    use_gradient_checkpointing(model)
    weight = model.language_model.layers[1].mlp.up_proj.weight.requires_grad_(True)
    loss_of(model, "4b").backward()
    assert weight.grad is not None and bool(weight.grad.any())


def test_inference_is_as_before() -> None:
    model = load_model(models.small_folder("4b"))
    prompt = models.make_prompt(model.config, 4, ("image", 4, 4), 5)
    before = models.prefill(model, [prompt])[0]
    use_gradient_checkpointing(model)
    use_gradient_checkpointing(model)  # once more does no harm
    assert torch.equal(models.prefill(model, [prompt])[0], before)
