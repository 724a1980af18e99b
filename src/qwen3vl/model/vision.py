"""The vision tower: patches to visual tokens, and DeepStack's features beside them.

Every frame (a picture, or one temporal patch of a video) is seen alone: positions, attention and
merging stay within it. Sources: the released code, and config.json's vision_config.

Shape names: P patches of all frames one behind the other, C values of a patch, V hidden size,
M = P / merge_size**2 merged tokens, D hidden size of the decoder, H head size.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from qwen3vl.config import VisionConfig
from qwen3vl.model.attention import Attention, KernelAttention
from qwen3vl.model.heads import turn_patches
from qwen3vl.model.layers import Linear, add_layer_norm, empty_embedding, gelu_mlp
from qwen3vl.model.packed_attention import PackedLayout
from qwen3vl.model.rope import vision_rotary

T = TypeVar("T")
Grid = tuple[int, int]  # patches along height and width of one frame

_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class VisualFeatures:
    """What the decoder gets for M placeholders: their embeddings, and DeepStack's additions for its first layers."""

    embeddings_MD: Tensor
    deepstack: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.embeddings_MD)

    @property
    def num_bytes(self) -> int:
        """What the values take in memory."""
        return sum(x.numel() * x.element_size() for x in (self.embeddings_MD, *self.deepstack))

    def slice(self, start: int, end: int) -> VisualFeatures:
        return VisualFeatures(self.embeddings_MD[start:end], tuple(x[start:end] for x in self.deepstack))

    def empty_like(self, num_tokens: int) -> VisualFeatures:
        """Room for the features of `num_tokens` tokens, for `put`."""
        room = [x.new_empty(num_tokens, *x.shape[1:]) for x in (self.embeddings_MD, *self.deepstack)]
        return VisualFeatures(room[0], tuple(room[1:]))

    def put(self, start: int, part: VisualFeatures) -> None:
        """Copy `part` to the tokens from `start` on."""
        self.embeddings_MD[start : start + len(part)] = part.embeddings_MD
        for mine, other in zip(self.deepstack, part.deepstack, strict=True):
            mine[start : start + len(part)] = other

    @staticmethod
    def join(parts: Sequence[VisualFeatures]) -> VisualFeatures:
        if len(parts) == 1:
            return parts[0]
        deepstack = zip(*(part.deepstack for part in parts), strict=True)
        return VisualFeatures(torch.cat([p.embeddings_MD for p in parts]), tuple(torch.cat(x) for x in deepstack))


class VisionTower(nn.Module):
    """patches_PC -> VisualFeatures

    patch_embed, + positions interpolated from a learned table
    blocks[0..depth-1]:  x += attn(norm1(x)); x += mlp(norm2(x))
      └─ after block deepstack_visual_indexes[k]:  deepstack_merger_list[k](x) ──► added after decoder layer k
    merger(x) ──► takes the place of the placeholders' embeddings
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = empty_embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(config, norm_after_merging=False)
        self.deepstack_merger_list = nn.ModuleList(
            Merger(config, norm_after_merging=True) for _ in config.deepstack_visual_indexes
        )

    def forward(self, patches_PC: Tensor, frames: Sequence[Grid]) -> VisualFeatures:
        """`frames` gives the grid of each frame in order; their areas sum to P."""
        return run_to_end(self.encode_steps(patches_PC, frames))

    def encode_steps(
        self, patches_PC: Tensor, frames: Sequence[Grid], *, taps: bool = True
    ) -> Generator[None, None, VisualFeatures]:
        """`forward` in pieces: stops after every block, so that other work can go in between.

        taps=False leaves DeepStack's features out, for what needs the embeddings alone.
        """
        geometry = FrameGeometry.of(frames, self.config, patches_PC.device)
        assert len(geometry.rows_P) == len(patches_PC), (len(geometry.rows_P), len(patches_PC))
        x_PV = self.patch_embed(patches_PC)
        x_PV = x_PV + self.interpolated_positions(geometry).to(x_PV.dtype)
        rotary = vision_rotary(geometry.rows_P, geometry.columns_P, self.config.head_dim, self.config.rope_theta)
        deepstack = []
        for i, block in enumerate(self.blocks):
            x_PV = block(x_PV, rotary, geometry.layout)
            if taps and i in self.config.deepstack_visual_indexes:
                merger = self.deepstack_merger_list[self.config.deepstack_visual_indexes.index(i)]
                deepstack.append(merger(x_PV))
            yield
        return VisualFeatures(self.merger(x_PV), tuple(deepstack))

    def interpolated_positions(self, geometry: FrameGeometry) -> Tensor:
        """-> positions_PV: the learned square table stretched over each frame, corners on corners, bilinear.

        Patch 1 of 3 along a side lies at 1 x 47 / 2 = 23.5 of a table of 48: half of entry 23, half of 24.
        """
        side = int(self.config.num_position_embeddings**0.5)
        table = self.pos_embed.weight
        total = torch.zeros((), device=table.device)
        for row, row_weight in _two_nearest(geometry.rows_P, geometry.heights_P, side):
            for column, column_weight in _two_nearest(geometry.columns_P, geometry.widths_P, side):
                total = total + table[row * side + column] * (row_weight * column_weight)[:, None]
        return total


def run_to_end(steps: Generator[object, None, T]) -> T:
    """-> what the generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Row and column of each patch within its frame, and the size of that frame, all int64 of shape (P,).

    Patches come in merge-block order. A frame of 2 x 4 patches with merge size 2:

        row     0 0 1 1 | 0 0 1 1
        column  0 1 0 1 | 2 3 2 3
    """

    rows_P: Tensor
    columns_P: Tensor
    heights_P: Tensor
    widths_P: Tensor
    layout: PackedLayout

    @classmethod
    def of(cls, frames: Sequence[Grid], config: VisionConfig, device: torch.device) -> FrameGeometry:
        merge = config.spatial_merge_size
        known: dict[Grid, Tensor] = {}
        for height, width in frames:
            if (height, width) in known:
                continue
            assert height % merge == 0 and width % merge == 0, (height, width, merge)
            row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            blocks = (height // merge, merge, width // merge, merge)
            row, column = (x.reshape(blocks).transpose(1, 2).flatten() for x in (row, column))
            known[height, width] = torch.stack((row, column, torch.full_like(row, height), torch.full_like(row, width)))
        everything = torch.cat([known[frame] for frame in frames], dim=1).to(device)
        rows, columns, heights, widths = everything
        layout = PackedLayout.of([height * width for height, width in frames], device, pad=False)
        return cls(rows, columns, heights, widths, layout)


def _two_nearest(index_P: Tensor, size_P: Tensor, side: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two table entries nearest to each patch along one axis, with their weights in float32."""
    source = index_P.float() * (side - 1) / (size_P - 1).clamp(min=1)
    low = source.floor()
    fraction = source - low
    return (low.long(), 1 - fraction), ((low.long() + 1).clamp(max=side - 1), fraction)


class PatchEmbed(nn.Module):
    """A 3-D convolution whose stride is its kernel, which is a matrix product: the weight is [V, C]."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = Linear(config.patch_values, config.hidden_size)

    def forward(self, patches_PC: Tensor) -> Tensor:
        return self.proj(patches_PC.to(self.proj.weight.dtype))


class VisionBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=_NORM_EPS)
        self.attn = VisionAttention(config)
        self.mlp = VisionMlp(config)

    def forward(self, x_PV: Tensor, rotary: tuple[Tensor, Tensor], layout: PackedLayout) -> Tensor:
        x_PV, normed_PV = add_layer_norm(x_PV, self.attn(self.norm1(x_PV), rotary, layout), self.norm2)
        return x_PV + self.mlp(normed_PV)


class VisionAttention(nn.Module):
    """Bidirectional attention within each frame; queries and keys are turned in float32."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = Linear(config.hidden_size, config.hidden_size)
        self.attention: Attention = KernelAttention()

    def forward(self, x_PV: Tensor, rotary: tuple[Tensor, Tensor], layout: PackedLayout) -> Tensor:
        q_PNH, k_PNH, v_PNH = turn_patches(self.qkv(x_PV).unflatten(-1, (3, self.num_heads, -1)), rotary)
        return self.proj(self.attention.frames(q_PNH, k_PNH, v_PNH, layout).flatten(1))


class VisionMlp(nn.Module):
    """fc2(gelu(fc1(x))) with the tanh form of GELU."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_PV: Tensor) -> Tensor:
        return gelu_mlp(x_PV, self.linear_fc1, self.linear_fc2, "tanh")


class Merger(nn.Module):
    """merge_size**2 neighbouring patches to one token: fc2(gelu(fc1(x))) with the exact (erf) GELU.

    The main merger normalises each patch before they are joined, DeepStack's the joined vector.
    """

    def __init__(self, config: VisionConfig, norm_after_merging: bool) -> None:
        super().__init__()
        self.merged_size = config.hidden_size * config.spatial_merge_size**2
        self.norm_after_merging = norm_after_merging
        self.norm = nn.LayerNorm(self.merged_size if norm_after_merging else config.hidden_size, eps=_NORM_EPS)
        self.linear_fc1 = Linear(self.merged_size, self.merged_size)
        self.linear_fc2 = Linear(self.merged_size, config.out_hidden_size)

    def forward(self, x_PV: Tensor) -> Tensor:
        if self.norm_after_merging:
            x_M = self.norm(x_PV.reshape(-1, self.merged_size))
        else:
            x_M = self.norm(x_PV).reshape(-1, self.merged_size)
        return gelu_mlp(x_M, self.linear_fc1, self.linear_fc2, "none")
