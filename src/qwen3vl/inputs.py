"""What the processor hands to the model: token ids, patches, and where the one meets the other.

Shape names: T tokens of one prompt, P patches, C values of a patch (channels x frames x side x side),
N pictures and videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from qwen3vl.types import MediaReceipt


@dataclass(frozen=True, slots=True)
class Visual:
    """One picture or video, ready for the vision tower.

    Attributes:
        kind: "image" or "video".
        patches_PC: float32, normalised; rows in merge-block order (t, block row, block column, row in
            block, column in block), values in the order (channel, frame, y, x).
        grid_thw: patches along time, height and width; their product is P.
        receipt: what was seen; for a video its `timestamps` go into the prompt, one per t.
    """

    kind: Literal["image", "video"]
    patches_PC: np.ndarray
    grid_thw: tuple[int, int, int]
    receipt: MediaReceipt

    def __post_init__(self) -> None:
        t, h, w = self.grid_thw
        assert self.patches_PC.shape[0] == t * h * w, (self.patches_PC.shape, self.grid_thw)
        assert self.kind == "video" or t == 1, self.grid_thw


@dataclass(frozen=True, slots=True)
class VisualSpan:
    """One temporal patch of a picture or video as a run of placeholder tokens in the prompt.

    Attributes:
        start: index of its first placeholder.
        grid_hw: patches along height and width; the run is h * w / merge_size**2 tokens long.
        visual: which of the prompt's visuals it belongs to, counted in prompt order.
        frame: which temporal patch of that visual.
    """

    start: int
    grid_hw: tuple[int, int]
    visual: int
    frame: int

    def end(self, merge_size: int) -> int:
        """Index behind its last placeholder."""
        return self.start + self.grid_hw[0] * self.grid_hw[1] // merge_size**2


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """One prompt. `visuals` are in the order in which the prompt shows them."""

    input_ids_T: np.ndarray
    visuals: tuple[Visual, ...] = ()
    spans: tuple[VisualSpan, ...] = ()

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids_T)

    @property
    def receipts(self) -> tuple[MediaReceipt, ...]:
        return tuple(visual.receipt for visual in self.visuals)
