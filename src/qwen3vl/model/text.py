"""The text decoder: Qwen3's layers with interleaved MRoPE, and DeepStack added to the first of them.

Shape names: T tokens of all sequences of the batch one behind the other, D hidden size, N query heads,
K key/value heads, H head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qwen3vl.config import TextConfig
from qwen3vl.model.attention import Attention, ForwardContext, KernelAttention
from qwen3vl.model.fusion import Fused
from qwen3vl.model.heads import prepare_heads
from qwen3vl.model.layers import Linear, RMSNorm, SwiGLU, empty_embedding, project
from qwen3vl.model.moe import SparseMlp
from qwen3vl.model.packed_attention import take_rows
from qwen3vl.model.packed_decoder import PackedDecoder
from qwen3vl.model.rope import mrope_axes, text_frequencies, text_rotary


class TextModel(nn.Module):
    """embeddings_TD, positions_3T -> hidden_TD

    layers[i]:  x += self_attn(input_layernorm(x)); x += mlp(post_attention_layernorm(x))
      └─ after layer k:  x[visual tokens] += DeepStack feature k
    norm
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = empty_embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._decoder: PackedDecoder | None = None
        self._rotary_tables: dict[torch.device, tuple[Tensor, Tensor, float]] = {}

    def forward(
        self, inputs: Fused, positions_3T: Tensor, context: ForwardContext, rows_R: Tensor | None = None
    ) -> Tensor:
        """`rows_R`: the tokens whose hidden states are wanted, each once; in the last layer no other is worked out."""
        x_TD = inputs.embeddings_TD
        rotary = self.rotary(positions_3T.to(x_TD.device), x_TD.dtype)
        if not inputs.deepstack and rows_R is None and (whole := self._whole(x_TD, context)) is not None:
            return self.norm(whole.run(x_TD, rotary, context))
        for i, layer in enumerate(self.layers):
            device: torch.device = layer.device  # type: ignore[assignment]  # a DecoderLayer's
            if x_TD.device != device:  # the layers are spread over several devices
                x_TD, rotary = x_TD.to(device), self.rotary(positions_3T.to(device), x_TD.dtype)
            if i + 1 == len(self.layers) > len(inputs.deepstack):
                x_TD, rows_R = layer(x_TD, rotary, context, rows_R), None
            else:
                x_TD = layer(x_TD, rotary, context)
            if i < len(inputs.deepstack):
                x_TD = inputs.add_deepstack(x_TD, i)
        x_TD = x_TD.to(self.norm.weight.device)
        return self.norm(x_TD if rows_R is None else take_rows(x_TD, rows_R))

    def _whole(self, x_TD: Tensor, context: ForwardContext) -> PackedDecoder | None:
        """All layers in one call, where that can be."""
        if context.cache is None or not PackedDecoder.takes(self.layers, x_TD, context):
            return None
        if self._decoder is None or not self._decoder.is_over(context.cache):
            known = PackedDecoder.knows(self.layers, context.cache)
            self._decoder = PackedDecoder(self.layers, context.cache) if known else None
        return self._decoder

    def rotary(self, positions_3T: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """-> cos_TH, sin_TH."""
        device = positions_3T.device
        if device not in self._rotary_tables:
            frequencies, scale = text_frequencies(self.config.rope, self.config.head_dim)
            axes = mrope_axes(self.config.rope.mrope_section, self.config.head_dim // 2)
            self._rotary_tables[device] = frequencies.to(device), axes.to(device), scale
        return text_rotary(positions_3T, *self._rotary_tables[device], dtype)


class DecoderLayer(nn.Module):
    """A pre-norm transformer layer; its MLP is dense or a mixture of experts."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = TextAttention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = config.moe is not None and index not in config.moe.dense_layers
        self.mlp: nn.Module
        if sparse and config.moe is not None:
            self.mlp = SparseMlp(config.hidden_size, config.moe)
        else:
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    @property
    def device(self) -> torch.device:
        return self.input_layernorm.weight.device

    def forward(
        self, x_TD: Tensor, rotary: tuple[Tensor, Tensor], context: ForwardContext, rows_R: Tensor | None = None
    ) -> Tensor:
        attended = self.self_attn(self.input_layernorm(x_TD), rotary, context, rows_R)
        x_TD = x_TD if rows_R is None else take_rows(x_TD, rows_R)
        x_TD, normed_TD = self.post_attention_layernorm.add(x_TD, attended)
        return x_TD + self.mlp(normed_TD)


class TextAttention(nn.Module):
    """Grouped-query attention; each head of q and k is normalised before it is turned."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        wide, narrow = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = Linear(config.hidden_size, wide, bias=False)
        self.k_proj = Linear(config.hidden_size, narrow, bias=False)
        self.v_proj = Linear(config.hidden_size, narrow, bias=False)
        self.o_proj = Linear(wide, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.attention: Attention = KernelAttention()

    def forward(
        self, x_TD: Tensor, rotary: tuple[Tensor, Tensor], context: ForwardContext, rows_R: Tensor | None = None
    ) -> Tensor:
        q_TNH, k_TKH, v_TKH = map(self._heads, project(x_TD, self.q_proj, self.k_proj, self.v_proj))
        norms = self.q_norm, self.k_norm
        q_TNH, k_TKH, v_TKH = prepare_heads((q_TNH, k_TKH, v_TKH), rotary, norms, context, self.index)
        if context.layout is not None:
            out_TNH = self.attention.packed(q_TNH, k_TKH, v_TKH, context.layout)
        else:
            out_TNH = self.attention.cached(q_TNH, k_TKH, v_TKH, context, self.index)
        return self.o_proj((out_TNH if rows_R is None else take_rows(out_TNH, rows_R)).flatten(1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1] // self.head_dim, self.head_dim)
