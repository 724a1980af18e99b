"""Prompts up to the last position that the checkpoints promise: values, memory and refusals.

With one decoder layer, keys and values do not depend on attention. So the tests let the first chunks skip it
and compare the last chunk, which attends to everything, with a twin in float64 that knows neither caches nor
chunks. Shape names: T tokens, D hidden size, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.long_context import EXTENDED, NATIVE, long_config, random_model, random_prompt
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qwen3vl.config import ModelConfig
from qwen3vl.engine.context import check_context
from qwen3vl.engine.scheduler import Batch, Chunk
from qwen3vl.engine.sequence import Prompt
from qwen3vl.errors import ContextTooLong
from qwen3vl.inputs import ModelInputs
from qwen3vl.model.attention import ForwardContext, SdpaAttention
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models
from tests.engine.prompts import alone, as_inputs

BLOCK = 32768


# --------------------------------------------------------------------------------------------- values


class SkippedFirst(SdpaAttention):
    """Attends only where the past is at least `start` tokens long."""

    def __init__(self, start: int) -> None:
        self.start = start

    def cached(self, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor, context: ForwardContext, layer: int) -> Tensor:
        if context.segments[0].past < self.start:
            return torch.zeros_like(q_TNH)
        return super().cached(q_TNH, k_TKH, v_TKH, context, layer)


@torch.no_grad()
def last_logits_twin(model: Qwen3VL, ids_T: Tensor) -> Tensor:
    """Logits behind the last token of a model with one layer, in float64."""
    w = {name: tensor.double() for name, tensor in model.state_dict().items() if name.startswith(("lang", "lm"))}
    w = {name.removeprefix("language_model.").removeprefix("layers.0."): tensor for name, tensor in w.items()}
    eps = model.config.text.rms_norm_eps

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]

    def heads(x_TD: Tensor, name: str, positions_T: Tensor) -> Tensor:
        x = (norm(x_TD, "input_layernorm") @ w[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, 64))
        return x if name == "v" else turned(norm(x, f"self_attn.{name}_norm"), positions_T, model.config)

    last_1D = w["embed_tokens.weight"][ids_T[-1:]]
    q_NH = heads(last_1D, "q", torch.tensor([len(ids_T) - 1]))[0]
    scores, values = [], []
    group = model.config.text.num_attention_heads // model.config.text.num_key_value_heads
    for start in range(0, len(ids_T), BLOCK):
        x_TD = w["embed_tokens.weight"][ids_T[start : start + BLOCK]]
        k_TNH = heads(x_TD, "k", torch.arange(start, start + len(x_TD))).repeat_interleave(group, 1)
        scores.append(torch.einsum("nh,tnh->nt", q_NH, k_TNH) / 8)  # 64 ** 0.5
        values.append(heads(x_TD, "v", torch.arange(0)).float())  # rounded by 1e-8, to hold a million of them
    weights_NT = torch.cat(scores, 1).softmax(-1)
    mixed = torch.einsum("nt,tnh->nh", weights_NT, torch.cat(values).double().repeat_interleave(group, 1))
    x = last_1D + mixed.flatten()[None] @ w["self_attn.o_proj.weight"].T
    h = norm(x, "post_attention_layernorm")
    gate = h @ w["mlp.gate_proj.weight"].T
    x = x + (gate * torch.sigmoid(gate) * (h @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
    return (norm(x, "norm") @ w["lm_head.weight"].T)[0]


def turned(x_TNH: Tensor, positions_T: Tensor, config: ModelConfig) -> Tensor:
    """Rotary for text, where all three axes are the same; angles are rounded to float32 as in the model."""
    rope, half = config.text.rope, 32
    i = torch.arange(half, dtype=torch.float64)
    frequencies = rope.theta ** (-i / half)
    scale = 1.0
    if rope.original_max_positions is not None:
        ramp = [half * np.log(rope.original_max_positions / (n * 2 * np.pi)) / np.log(rope.theta) for n in (32, 1)]
        low, high = max(np.floor(ramp[0]), 0), min(np.ceil(ramp[1]), 2 * half - 1)
        stretched = ((i - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (1 - stretched) + frequencies / rope.factor * stretched
        scale = 0.1 * np.log(rope.factor) + 1
    angles = (positions_T[:, None].float() * frequencies.float()).double()[:, None]
    cos, sin = angles.cos() * scale, angles.sin() * scale
    a, b = x_TNH[..., :half], x_TNH[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def assert_last_logits(num_tokens: int, yarn: float | None, attend_last: int, chunk: int = 2048) -> None:
    config = long_config(layers=1, heads=2, kv_heads=1, yarn=yarn)
    model, prompt = random_model(config), random_prompt(config, num_tokens)
    check_context(prompt, 0, config, EXTENDED if yarn == 3 else None)
    attention = SkippedFirst(num_tokens - attend_last)
    model.language_model.layers[0].self_attn.attention = attention
    runner, sequence = alone(model, prompt)
    while (left := num_tokens - attend_last - sequence.num_computed) > 0:
        length = min(left, chunk)
        runner.run(Batch((Chunk(sequence, length),)))
        sequence.num_computed += length
    logits_V = runner.read(sequence, chunk)
    twin = last_logits_twin(model, torch.from_numpy(prompt.inputs.input_ids_T))
    # Angles of a million radians are rounded to 0.03 in float32: where frequencies differ in their last bit, so
    # does that. Measured: 2e-6 at 16,384, 1e-5 at 262,144, 9e-5 at a million.
    assert models.difference(logits_V, twin) < 4e-4
    moved = last_logits_twin(model, torch.from_numpy(np.roll(prompt.inputs.input_ids_T[:-1], 1)).clone())
    assert models.difference(logits_V, moved) > 0.5  # the past does tell


def test_the_last_of_16384_positions() -> None:
    assert_last_logits(16384, None, attend_last=16384)


def test_the_last_of_262144_positions() -> None:
    assert_last_logits(NATIVE, None, attend_last=48)


@pytest.mark.slow
@pytest.mark.parametrize("yarn", [3, 4])
def test_the_last_of_a_million_positions(yarn: float) -> None:
    assert_last_logits(EXTENDED, yarn, attend_last=512, chunk=4096)


@pytest.mark.parametrize("factor", [2, 3])
def test_yarn_is_transformers(factor: int) -> None:
    """To the last position of factor x original, read in chunks."""
    config = models.small_config(text={"num_hidden_layers": 2})
    rope = replace(config.text.rope, factor=float(factor), original_max_positions=1024)
    text = replace(config.text, rope=rope, max_position_embeddings=1024 * factor)
    folder = models.write(replace(config, text=text))
    model = models.load_model(folder)
    prompt = models.make_prompt(model.config, 1024 * factor - 1)
    inputs = ModelInputs(prompt.input_ids_T.numpy())
    check_context(Prompt.of(inputs, model.config), 1, model.config)
    runner, sequence = alone(model, Prompt.of(inputs, model.config))
    logits_V = runner.read(sequence, 700)
    with torch.no_grad():
        theirs = models.load_theirs(folder)(**models.oracle_inputs([prompt], model.config), logits_to_keep=1).logits
    assert models.difference(logits_V, theirs[0, -1]) < 5 * models.TOLERANCE


@pytest.mark.slow
def test_8192_positions_are_transformers() -> None:
    folder = models.small_folder("4b")
    model = models.ours(folder)
    prompt = models.make_prompt(model.config, 4000, ("image", 16, 20), 3000, ("video", 4, 8, 10), 1000)
    inputs = as_inputs(prompt, model.config)
    runner, sequence = alone(model, Prompt.of(inputs, model.config))
    logits_V = runner.read(sequence)
    with torch.no_grad():
        theirs = models.theirs(folder)(**models.oracle_inputs([prompt], model.config), logits_to_keep=1).logits
    assert models.difference(logits_V, theirs[0, -1]) < 5 * models.TOLERANCE


# --------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """The most values that any tensor made inside has."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(x, Tensor) and x.untyped_storage().nbytes() // x.element_size() > self.numel:
                self.numel = x.untyped_storage().nbytes() // x.element_size()
        return out


def test_no_tensor_grows_with_the_prompt_but_the_cache() -> None:
    """4096 tokens in chunks of 256: a mask of chunk x past alone would have 1,048,576 values."""
    config = long_config(layers=2, heads=2, kv_heads=1, yarn=None)
    model, prompt = random_model(config), random_prompt(config, 4096)
    with Largest() as largest:
        runner, sequence = alone(model, prompt, room=0)
        runner.read(sequence, 256)
    cache = 4096 * config.text.head_dim * config.text.num_key_value_heads
    assert largest.numel == cache == 262_144


def measured(num_tokens: int) -> dict[str, float]:
    script = Path(__file__).parents[2] / "benchmarks/long_context.py"
    command = [sys.executable, str(script), str(num_tokens), "--layers", "4", "--heads", "2", "--kv-heads", "2"]
    out = subprocess.run([*command, "--here"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    values: dict[str, float] = json.loads(out.stdout)
    return values


@pytest.mark.slow
def test_peak_memory_grows_by_the_cache_alone() -> None:
    short, long = measured(4096), measured(32768)
    assert long["kv_mib"] - short["kv_mib"] == pytest.approx(4 * 28, abs=0.1)
    assert long["peak_mib"] - short["peak_mib"] < 4 * 28 + 24


# ------------------------------------------------------------------------------------------- refusals


def test_the_context_of_the_card() -> None:
    """With YaRN of factor 3 positions reach 786,432, whatever max_position_embeddings says."""
    config = long_config(layers=1, heads=2, kv_heads=1, yarn=3)
    prompt = random_prompt(config, 786_432)
    check_context(prompt, 0, config)
    with pytest.raises(ContextTooLong, match="reach position 786433, but the rotary embedding is made for 786432"):
        check_context(prompt, 1, config)
    check_context(prompt, 1, config, max_context=EXTENDED)
    native = long_config(layers=1, heads=2, kv_heads=1, yarn=None)
    with pytest.raises(ContextTooLong, match="together 786433, but the context holds 262144"):
        check_context(prompt, 1, native)
