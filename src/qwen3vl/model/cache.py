"""The key/value cache of one sequence: contiguous, growing layer by layer.

Shape names: L layers, K key/value heads, S cached tokens, T new tokens, H head size.
"""

from __future__ import annotations

from torch import Tensor

_GROWTH = 1.25  # a layer that is full grows by this factor; one layer at a time is copied


class KVCache:
    """Keys and values of the first `length` tokens of a sequence, for every layer.

    A forward pass appends its T tokens to each layer in turn (`append`) and then counts them once
    (`advance`); until then `length` is the past that the pass continues.
    """

    def __init__(self, num_layers: int) -> None:
        self.length = 0
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._reserved = 0

    def reserve(self, num_tokens: int) -> None:
        """Say how many tokens will be held in the end, so that no layer grows twice."""
        self._reserved = max(self._reserved, num_tokens)

    def append(self, layer: int, k_TKH: Tensor, v_TKH: Tensor) -> tuple[Tensor, Tensor]:
        """-> all keys and values of the layer, k_KSH and v_KSH, views into the cache."""
        end = self.length + len(k_TKH)
        keys, values = (self._room(layer, kind, new, end) for kind, new in enumerate((k_TKH, v_TKH)))
        self._layers[layer] = keys, values
        keys[:, self.length : end] = k_TKH.transpose(0, 1)
        values[:, self.length : end] = v_TKH.transpose(0, 1)
        return keys[:, :end], values[:, :end]

    def advance(self, num_tokens: int) -> None:
        self.length += num_tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        assert 0 <= length <= self.length, (length, self.length)
        self.length = length

    @property
    def num_bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.nbytes for layer in self._layers if layer is not None for x in layer)

    def _room(self, layer: int, kind: int, new_TKH: Tensor, end: int) -> Tensor:
        held = self._layers[layer]
        old = held[kind] if held is not None else None
        if old is not None and old.shape[1] >= end:
            return old
        capacity = max(end, self._reserved, int(_GROWTH * old.shape[1]) if old is not None else 0)
        new = new_TKH.new_empty(new_TKH.shape[1], capacity, new_TKH.shape[2])
        if old is not None:
            new[:, : self.length] = old[:, : self.length]
        return new
