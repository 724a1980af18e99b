"""Where pictures and videos enter the decoder.

Shape names: T tokens, D hidden size, M visual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from qwen3vl.errors import InvalidRequest
from qwen3vl.model.vision import VisualFeatures


@dataclass(frozen=True, slots=True)
class Fused:
    """Token embeddings with the visual ones in place, and DeepStack's features still to be added.

    Attributes:
        embeddings_TD: input of decoder layer 0.
        visual_M: indices of the visual tokens, None where there are none.
        deepstack: feature k (shape M x D) is added to those tokens after layer k.
    """

    embeddings_TD: Tensor
    visual_M: Tensor | None = None
    deepstack: tuple[Tensor, ...] = ()

    def add_deepstack(self, x_TD: Tensor, k: int) -> Tensor:
        assert self.visual_M is not None
        return x_TD.index_add(0, self.visual_M.to(x_TD.device), self.deepstack[k].to(x_TD))


def placeholders(input_ids_T: Tensor, placeholder_ids: tuple[int, int]) -> Tensor:
    """-> indices of the tokens that stand for a picture or a video."""
    is_visual_T = (input_ids_T == placeholder_ids[0]) | (input_ids_T == placeholder_ids[1])
    return is_visual_T.nonzero(as_tuple=True)[0]


def fuse(embeddings_TD: Tensor, features: VisualFeatures, visual_M: Tensor) -> Fused:
    """Put the visual embeddings, in order, at the tokens `visual_M`.

    Raises InvalidRequest if the counts differ.
    """
    if len(visual_M) != len(features):
        raise InvalidRequest(
            f"the prompt has {len(visual_M)} picture and video placeholders, "
            f"but the vision tower gave {len(features)} tokens"
        )
    fused_TD = embeddings_TD.index_copy(0, visual_M, features.embeddings_MD.to(embeddings_TD))
    return Fused(fused_TD, visual_M, features.deepstack)
