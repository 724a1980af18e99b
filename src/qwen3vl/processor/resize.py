"""Sizes, resizing, normalising and cutting into patches: the arithmetic between pixels and the vision tower.

Bit-identical to transformers 5.23's Qwen2VLImageProcessor (its torchvision backend), which tests compare.

Shape names: F frames, H height, W width, P patches, C values of a patch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qwen3vl.errors import InvalidParams, MediaTooLarge
from qwen3vl.inputs import Patches
from qwen3vl.processor.settings import MAX_ASPECT_RATIO, VisionSettings

if TYPE_CHECKING:
    from qwen3vl.settings import MediaOptions


def check_ratio(height: int, width: int, name: str = "picture") -> None:
    """Raises MediaTooLarge if one side is more than 200 times the other."""
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaTooLarge(
            f"{name}: {width}x{height} pixels; one side may be at most {MAX_ASPECT_RATIO} times the other, "
            "crop or split it"
        )


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) after resizing: multiples of `factor`, area within the bounds, ratio nearly kept.

    transformers' rule, with Python's rounding of halves to even. A notebook's example: 1920 x 1376 with
    factor 32 and at most 2048 * 32 * 32 pixels becomes 1696 x 1216.
    """
    assert height > 0 and width > 0, (height, width)
    check_ratio(height, width)
    h_bar, w_bar = round(height / factor) * factor, round(width / factor) * factor
    if h_bar * w_bar > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        h_bar = max(factor, math.floor(height / beta / factor) * factor)
        w_bar = max(factor, math.floor(width / beta / factor) * factor)
    elif h_bar * w_bar < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h_bar = math.ceil(height * beta / factor) * factor
        w_bar = math.ceil(width * beta / factor) * factor
    return h_bar, w_bar


def picture_bounds(settings: VisionSettings, options: MediaOptions | None) -> tuple[int, int]:
    """(min_pixels, max_pixels) for a picture: the options', else the checkpoint's.

    Raises InvalidParams if they cross, naming where each comes from.
    """
    given_min, given_max = (options.min_pixels, options.max_pixels) if options else (None, None)
    low = settings.min_pixels if given_min is None else given_min
    high = settings.max_pixels if given_max is None else given_max
    if low > high:
        origin = {True: "the checkpoint's", False: "given"}
        raise InvalidParams(
            f"min_pixels={low} ({origin[given_min is None]}) is above max_pixels={high} ({origin[given_max is None]})"
        )
    return low, high


def resize_pixels(pixels_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, C) resized to `size` = (height, width) with antialiased bicubic.

    torchvision's resize of a uint8 tensor on the CPU is this one call, whose integer arithmetic does not
    depend on the memory format (the tests compare both).
    """
    assert pixels_HWC.dtype == np.uint8 and pixels_HWC.ndim == 3, (pixels_HWC.dtype, pixels_HWC.shape)
    if pixels_HWC.shape[:2] == tuple(size):
        return pixels_HWC
    import torch  # here: decoding processes import this module and never resize

    if not pixels_HWC.flags.writeable:  # torch warns about read-only memory; nothing writes to it here
        pixels_HWC = pixels_HWC.copy()
    # A batch of one made before permuting has the strides by which torch keeps H, W, C order in its output.
    picture_1CHW = torch.from_numpy(pixels_HWC)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(picture_1CHW, size=list(size), mode="bicubic", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def patchify(frames: Sequence[np.ndarray], settings: VisionSettings) -> Patches:
    """Patches of uint8 RGB frames (H, W, C).

    Rows run over (t, block row, block column, row in block, column in block), values over (channel,
    frame, y, x). With patch_size 16, merge_size 2 and temporal_patch_size 2, a picture of 64 x 96 has a
    grid of 1 x 4 x 6; its row 5 is block 1 (columns 32-63 of rows 0-31), place 1 (row 0, column 1 in the
    block): pixels y 0-15, x 48-63. Value 512 * c + 256 * f + 16 * y + x is channel c of frame f.

    Args:
        frames: one frame (a picture, seen `temporal_patch_size` times) or a multiple of
            temporal_patch_size; sides are multiples of settings.factor.
    """
    t = settings.temporal_patch_size
    assert len(frames) == 1 or len(frames) % t == 0, (len(frames), settings)
    groups = [list(frames) * t] if len(frames) == 1 else [frames[i : i + t] for i in range(0, len(frames), t)]
    out_GPC = empty_patches(len(groups), frames[0].shape, settings)
    for group, out_PC in zip(groups, out_GPC, strict=True):
        cut_frames(group, settings, out_PC)
    return Patches(out_GPC.reshape(-1, out_GPC.shape[2]), settings.mean, settings.std)


def empty_patches(groups: int, frame_shape: Sequence[int], settings: VisionSettings) -> np.ndarray:
    """uint8 (groups, patches of a frame, C), to be filled by `cut_frames` group by group."""
    H, W, channels = frame_shape
    p, t = settings.patch_size, settings.temporal_patch_size
    assert H % settings.factor == 0 and W % settings.factor == 0, (frame_shape, settings)
    assert channels == len(settings.mean), (frame_shape, settings.mean)
    import torch

    # Not numpy's own: it asks Linux for huge pages, and waiting for one can take longer than all the rest.
    return torch.empty(groups, H // p * (W // p), channels * t * p * p, dtype=torch.uint8).numpy()


def cut_frames(frames: Sequence[np.ndarray], settings: VisionSettings, out_PC: np.ndarray) -> None:
    """Write the patches of one group of `temporal_patch_size` frames. See patchify for their order.

    Planes first, then lines of p pixels are moved as one element each: five times faster than moving bytes.
    """
    p, m = settings.patch_size, settings.merge_size
    H, W, channels = frames[0].shape
    line = np.dtype((np.void, p))
    shape = (H // (p * m), W // (p * m), m, m, channels, len(frames), p)  # block row and column, rows and columns
    out = out_PC.view(line).reshape(shape).transpose(5, 4, 0, 2, 6, 1, 3)
    for index, frame_HWC in enumerate(frames):
        if index and frame_HWC is frames[index - 1]:
            out[index] = out[index - 1]
            continue
        assert frame_HWC.dtype == np.uint8 and frame_HWC.shape == (H, W, channels), (frame_HWC.shape, frames[0].shape)
        planes = np.ascontiguousarray(frame_HWC.transpose(2, 0, 1)).view(line)
        out[index] = planes.reshape(out.shape[1:])


def patch_grid(frames: int, height: int, width: int, settings: VisionSettings) -> tuple[int, int, int]:
    """grid_thw of `frames` frames (1 for a picture) of resized height x width."""
    groups = max(1, frames // settings.temporal_patch_size)
    return groups, height // settings.patch_size, width // settings.patch_size


def digest_frames(frames_FHWC: np.ndarray, settings: VisionSettings) -> str:
    """SHA-256 (hex) that names the patches and grid of these frames.

    Taken over the uint8 pixels, their shape and all that turns them into patches, which is an eighth of
    the bytes: pictures with equal digests have equal patches.
    """
    s = settings
    head = repr((frames_FHWC.shape, s.patch_size, s.temporal_patch_size, s.merge_size, s.mean, s.std))
    sha = hashlib.sha256(head.encode())
    sha.update(np.ascontiguousarray(frames_FHWC).data)
    return sha.hexdigest()
