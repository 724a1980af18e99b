"""What the processor hands to the model: token ids, patches, and where the one meets the other.

Shape names: T tokens of one prompt, P patches, C values of a patch (channels x frames x side x side),
N pictures and videos. Importing this module imports no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from qwen3vl.types import MediaReceipt

_ROWS_IN_CACHE = 128  # of 6 KB each


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches of one picture or video, kept as 8-bit pixels: a quarter of what the tower reads.

    Attributes:
        values_PC: uint8 pixels, or float32 where they come normalised; rows in merge-block order (t, block
            row, block column, row in block, column in block), values in the order (channel, frame, y, x).
        mean, std: of each channel, of values in 0..1; empty where the values are normalised.
    """

    values_PC: np.ndarray
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert str(self.values_PC.dtype) == ("uint8" if self.mean else "float32"), (self.values_PC.dtype, self.mean)

    def __len__(self) -> int:
        return len(self.values_PC)

    def read(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Rows `start` to `end`, normalised, in float32.

        transformers fuses rescaling and normalising: (x - mean * 255) / (std * 255), each step in float32.
        """
        import numpy as np

        part_PC = self.values_PC[start:end]
        if not self.mean:
            return part_PC
        channels = len(self.mean)
        mean, std = (np.array(v, np.float32)[:, None] * np.float32(255) for v in (self.mean, self.std))
        out = np.empty(part_PC.shape, np.float32)
        for first in range(0, len(part_PC), _ROWS_IN_CACHE):
            rows = out[first : first + _ROWS_IN_CACHE].reshape(-1, channels, part_PC.shape[1] // channels)
            np.subtract(part_PC[first : first + _ROWS_IN_CACHE].reshape(rows.shape), mean, out=rows, dtype=np.float32)
            np.divide(rows, std, out=rows)
        return out


@dataclass(frozen=True, slots=True)
class Visual:
    """One picture or video, ready for the vision tower.

    Attributes:
        kind: "image" or "video".
        patches: what the tower sees.
        grid_thw: patches along time, height and width; their product is P.
        receipt: what was seen; for a video its `timestamps` go into the prompt, one per t.
    """

    kind: Literal["image", "video"]
    patches: Patches
    grid_thw: tuple[int, int, int]
    receipt: MediaReceipt

    def __post_init__(self) -> None:
        t, h, w = self.grid_thw
        assert len(self.patches) == t * h * w, (len(self.patches), self.grid_thw)
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
