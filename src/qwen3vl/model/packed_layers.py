"""Layers whose weights are packed int4 or int8 matrices; they take the places of the ordinary ones.

    nn.Linear     PackedLinear        nn.Embedding   PackedEmbedding
    SwiGLU        PackedSwiGLU        Experts        PackedExperts

Activations are float32 on the CPU. Input features are filled up with zeros to a multiple of 32.

Shape names: T tokens, D hidden size, I intermediate size, E experts, K experts per token.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.kernels.cpu.packed import Epilogue, Packed, matmul_several, pack_into
from qwen3vl.kernels.cpu.plain import GROUP, TILE, packed_bytes

if TYPE_CHECKING:
    from qwen3vl.model.calibration import Channels

Bits = Literal[4, 8]
_RUN = 480  # tokens of an MLP at a time
_PAGES = 1 << 20  # bytes from which memory is taken page by page


class PackedMatrix(nn.Module):
    """A matrix [N, K] as a module: its bytes are a buffer, so that they are saved and counted.

    `every`, `offset`: where rows that are packed into it go: tile i of them is tile i * every + offset here.
    `channels`: the importance of its input features, for filling it; see calibration.py.
    """

    values: Tensor
    channels: Channels | None = None

    def __init__(self, n: int, k: int, bits: Bits) -> None:
        super().__init__()
        self.n, self.k, self.bits = n, -(-k // GROUP) * GROUP, bits
        self._matrix: Packed | None = None
        self.register_buffer("values", _untouched_zeros(packed_bytes(bits, n, self.k)))

    @property
    def matrix(self) -> Packed:
        values = self.values
        if self._matrix is None or self._matrix.values is not values:
            self._matrix = Packed(values, self.bits, self.n, self.k)
        return self._matrix

    def fill(self, first: int, rows_RK: Tensor, every: int = 1, offset: int = 0) -> None:
        """Pack rows `first`.. (a multiple of 16) of the matrix that lies in every `every`-th tile from `offset` on."""
        assert first % TILE == 0, first
        if rows_RK.shape[1] != self.k:
            rows_RK = F.pad(rows_RK, (0, self.k - rows_RK.shape[1]))
        tiles = self.values.view(-1, every, self.k // GROUP * (packed_bytes(self.bits, TILE, GROUP)))[:, offset]
        place = tiles[first // TILE : first // TILE - (-len(rows_RK) // TILE)]
        # In place where it can be: large buffers in between would leave holes in the heap, a tenth of the model's size.
        packed = place.view(-1) if every == 1 else torch.empty(place.numel(), dtype=torch.uint8)
        pack_into(packed, rows_RK, self.bits, None if self.channels is None else self.channels.importance_K)
        if self.channels is not None:
            self.channels.measure(rows_RK, packed, self.bits)
        if every != 1:
            place.copy_(packed.view(place.shape))


def _untouched_zeros(num_bytes: int) -> Tensor:
    """Bytes of weights of zero, on the CPU whatever the default device (models are built on "meta").

    Large ones are pages that the system gives when they are written to: torch.zeros would write all of them, also where
    a mapped file takes their place a moment later.
    """
    if num_bytes < _PAGES or sys.platform == "win32":
        return torch.zeros(num_bytes, dtype=torch.uint8, device="cpu")
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared ones never become huge pages
    return torch.frombuffer(pages, dtype=torch.uint8)


class PackedLinear(PackedMatrix):
    """x @ w.T + bias, in float32."""

    def __init__(self, in_features: int, out_features: int, bias: bool, bits: Bits) -> None:
        super().__init__(out_features, in_features, bits)
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x)

    def multiply(self, x: Tensor, epilogue: Epilogue = "none") -> Tensor:
        out = self.matrix.matmul(self._rows(x), self.bias, epilogue)
        return out.view(*x.shape[:-1], self.out_features)

    def gelu_mlp(self, x_TD: Tensor, second: nn.Module, epilogue: Epilogue) -> Tensor:
        """second(gelu(self(x)))."""
        return _in_runs(x_TD, lambda rows: second(self.multiply(rows, epilogue)))

    @staticmethod
    def several(layers: Sequence[PackedLinear], x_TD: Tensor) -> list[Tensor]:
        """Each layer's answer to the same input."""
        return matmul_several([(each.matrix, each.bias) for each in layers], layers[0]._rows(x_TD))

    def _rows(self, x: Tensor) -> Tensor:
        """-> (M, K): filled up with zeros."""
        rows = x.reshape(-1, self.in_features)
        return rows if self.k == self.in_features else F.pad(rows, (0, self.k - self.in_features))


def _in_runs(x_TD: Tensor, mlp: Callable[[Tensor], Tensor]) -> Tensor:
    """mlp(x), some rows at a time, so that what is wide between two products takes little memory; the same bits."""
    if len(x_TD) <= _RUN:
        return mlp(x_TD)
    return torch.cat([mlp(rows) for rows in x_TD.split(_RUN)])


class PackedEmbedding(PackedMatrix):
    """Rows of a packed matrix, dequantised; a tied head multiplies with the same one."""

    def __init__(self, num_embeddings: int, embedding_dim: int, bits: Bits) -> None:
        super().__init__(num_embeddings, embedding_dim, bits)
        self.embedding_dim = embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        return self.matrix.rows(ids.reshape(-1))[:, : self.embedding_dim].view(*ids.shape, -1)


class PackedHead(nn.Module):
    """The head of a model whose embedding is tied to it."""

    def __init__(self, embedding: PackedEmbedding) -> None:
        super().__init__()
        self._embedding = [embedding]  # a list: not a sub-module a second time

    def forward(self, x_TD: Tensor) -> Tensor:
        embedding = self._embedding[0]
        return embedding.matrix.matmul(F.pad(x_TD, (0, embedding.k - x_TD.shape[1])))


class PackedSwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); tiles of gate and up alternate, so that one pass computes both."""

    def __init__(self, hidden_size: int, intermediate_size: int, bits: Bits) -> None:
        super().__init__()
        inner = -(-intermediate_size // GROUP) * GROUP  # filled up with features that are zero
        self.gate_up = PackedMatrix(2 * inner, hidden_size, bits)
        self.down = PackedMatrix(hidden_size, intermediate_size, bits)

    def forward(self, x_TD: Tensor) -> Tensor:
        x_TK = x_TD if self.gate_up.k == x_TD.shape[1] else F.pad(x_TD, (0, self.gate_up.k - x_TD.shape[1]))
        return _in_runs(x_TK, lambda rows: self.down.matrix.matmul(self.gate_up.matrix.matmul(rows, epilogue="swiglu")))


class PackedExperts(nn.Module):
    """The experts' SwiGLUs (see moe.Experts), each packed on its own."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int, bits: Bits) -> None:
        super().__init__()
        self.intermediate_size = intermediate_size
        self.experts = nn.ModuleList(PackedSwiGLU(hidden_size, intermediate_size, bits) for _ in range(num_experts))

    def forward(self, x_TD: Tensor, weights_TK: Tensor, experts_TK: Tensor) -> Tensor:
        out_TD = torch.zeros_like(x_TD)
        for expert in experts_TK.unique().tolist():
            tokens, slots = (experts_TK == expert).nonzero(as_tuple=True)
            answer = self.experts[expert](x_TD[tokens])
            out_TD.index_add_(0, tokens, answer * weights_TK[tokens, slots, None])
        return out_TD
