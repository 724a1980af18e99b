"""What the vision tower made of pictures and videos, kept for the next question about them.

Shape names: M visual tokens, D hidden size of the decoder.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from qwen3vl.model.vision import VisualFeatures

Key = tuple[str, torch.dtype]


class VisionCache:
    """Features by the digest of what went into the tower, at most `max_bytes` of them; least recently used go first.

    The digest covers pixels, grid and preprocessing; the dtype tells apart what one tower gives in two
    precisions. A cache belongs to one set of weights: another model, or new weights, needs another cache.

    Attributes:
        num_bytes: memory held, exact: features that are views of something larger are copied.
    """

    def __init__(self, max_bytes: int) -> None:
        assert max_bytes >= 0, max_bytes
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[Key, VisualFeatures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Key) -> bool:
        """Whether `get` would find it; does not count as a use."""
        return key in self._entries

    def get(self, digest: str, dtype: torch.dtype) -> VisualFeatures | None:
        features = self._entries.get((digest, dtype))
        if features is not None:
            self._entries.move_to_end((digest, dtype))
        return features

    def put(self, digest: str, features: VisualFeatures) -> bool:
        """Keep the features of a whole picture or video. -> whether there is room for them.

        What is larger than the whole cache is not kept, and drives nothing out. Nobody may write to
        features once they are here.
        """
        key = (digest, features.embeddings_MD.dtype)
        if key in self._entries:
            self._entries.move_to_end(key)
            return True
        if features.num_bytes > self.max_bytes:
            return False
        while self.num_bytes + features.num_bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.num_bytes -= dropped.num_bytes
        self._entries[key] = _own(features)
        self.num_bytes += features.num_bytes
        return True

    def clear(self) -> None:
        self._entries.clear()
        self.num_bytes = 0


def _own(features: VisualFeatures) -> VisualFeatures:
    """A slice would keep all of the tensor alive that it was cut from."""
    return VisualFeatures(_own_tensor(features.embeddings_MD), tuple(map(_own_tensor, features.deepstack)))


def _own_tensor(x_MD: Tensor) -> Tensor:
    return x_MD if x_MD.untyped_storage().nbytes() == x_MD.nbytes else x_MD.clone()
