"""What a piece of work costs at least, by worked examples."""

from __future__ import annotations

import pytest

from qwen3vl.bench.effort import (
    Effort,
    causal_operations,
    decode_effort,
    head_operations,
    prefill_effort,
    token_operations,
    vision_effort,
    weight_bytes,
)
from qwen3vl.kernels.cpu.probe import Peaks
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.editions import EDITIONS
from qwen3vl.model.quantize import Quantization
from tests import models

PEAKS = Peaks("avx2", 2, read=10.0, floats=4.0, integers=16.0)


def test_the_worked_example() -> None:
    text = EDITIONS["2b"].text
    assert token_operations(text) == 2_818_572_288
    assert head_operations(text) == 2 * 2048 * 151936
    assert causal_operations(text, 2) == 4 * 16 * 128 * 3 * 28  # the first token sees 1, the second 2


def test_experts_that_are_not_chosen_cost_nothing() -> None:
    moe = EDITIONS["30b-a3b"].text
    assert 5e9 < token_operations(moe) < 7e9  # "A3B": 3e9 weights, two operations each, embedding and head aside


def test_least_seconds() -> None:
    assert Effort(floats=8, integers=32).least_seconds(PEAKS) == 4.0
    assert Effort(floats=8, integers=32, bytes_read=100).least_seconds(PEAKS) == 10.0
    torch_only = Peaks("torch", 2, read=10.0, floats=4.0, integers=None)
    assert Effort(integers=32).least_seconds(torch_only) == 8.0


@pytest.mark.parametrize("edition", models.EDITIONS)
def test_packed_products_are_on_bytes(edition: str) -> None:
    folder = models.small_folder(edition)
    plain, packed = load_model(folder), load_model(folder, quantize=Quantization(4))
    for effort in (lambda m: prefill_effort(m, 10), lambda m: vision_effort(m, 48)):
        on_floats, on_bytes = effort(plain), effort(packed)
        assert on_floats.integers == 0 < on_bytes.integers
        assert on_bytes.floats + on_bytes.integers == on_floats.floats
    assert weight_bytes(packed) < weight_bytes(plain) / 3
    step = decode_effort(packed, 100, kv_bytes_per_token=7)
    assert step.bytes_read == weight_bytes(packed) + 700


def test_weights_of_a_token_are_those_it_uses() -> None:
    dense = load_model(models.small_folder("4b"))
    matrices = sum(p.nbytes for p in dense.language_model.parameters())  # tied: the embedding is read as the head
    assert weight_bytes(dense) == matrices
    moe = load_model(models.small_folder("30b-a3b"))
    experts = sum(p.nbytes for n, p in moe.language_model.named_parameters() if ".experts." in n)
    others = sum(p.nbytes for n, p in moe.named_parameters() if not n.startswith(("visual.", "language_model.embed")))
    assert weight_bytes(moe) == others - experts + experts * 2 / 8
