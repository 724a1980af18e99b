"""The checkpoint's own picture and video settings, read from its processor files.

Sources: preprocessor_config.json and video_preprocessor_config.json of the official repositories.
Their `shortest_edge` and `longest_edge` are areas in pixels, not edges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3vl.errors import ConfigError

# Not in the official files; the values of transformers' Qwen3VLVideoProcessor.
DEFAULT_FPS = 2.0
DEFAULT_MIN_FRAMES = 4
DEFAULT_MAX_FRAMES = 768
MAX_ASPECT_RATIO = 200
FRAME_CAP_TOKENS = 768  # per frame, when MediaOptions.cap_frame_pixels is on


@dataclass(frozen=True, slots=True)
class VisionSettings:
    """Patch geometry, normalisation and area bounds for pictures or for videos.

    Attributes:
        min_pixels, max_pixels: bounds on height x width of a picture, or on
            frames x height x width of a video.
        mean, std: per channel, of values in 0..1.
        fps, min_frames, max_frames: sampling of videos; unused for pictures.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fps: float = DEFAULT_FPS
    min_frames: int = DEFAULT_MIN_FRAMES
    max_frames: int = DEFAULT_MAX_FRAMES

    @property
    def factor(self) -> int:
        """Sides are multiples of this: one visual token covers factor x factor pixels."""
        return self.patch_size * self.merge_size

    @classmethod
    def from_file(cls, path: Path, section: str | None = None) -> VisionSettings:
        """From a processor file, or from one section of it.

        Raises ConfigError with the file's name if it is missing, broken or lacks a value.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as a processor file ({error})") from error
        try:
            values = values if section is None else values[section]
            size = values["size"]
            optional = {key: values[key] for key in ("fps", "min_frames", "max_frames") if values.get(key) is not None}
            return cls(
                patch_size=int(values["patch_size"]),
                temporal_patch_size=int(values["temporal_patch_size"]),
                merge_size=int(values["merge_size"]),
                min_pixels=int(size["shortest_edge"]),
                max_pixels=int(size["longest_edge"]),
                mean=tuple(map(float, values["image_mean"])),  # type: ignore[arg-type]
                std=tuple(map(float, values["image_std"])),  # type: ignore[arg-type]
                **optional,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: missing or malformed value ({error!r})") from error
