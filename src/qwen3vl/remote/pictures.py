"""One picture as a data URI, and the receipt of what was sent.

The file's own bytes go out where every server shows them as we do: a plain, upright, opaque JPEG, PNG or WebP.
All else is sent as PNG of the upright RGB pixels, because servers do not agree on EXIF orientation,
transparency, 16 bits, CMYK and animations. Coordinates in answers are relative to what was sent, and the receipt
(original size and orientation) maps them back.
"""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image

from qwen3vl.errors import UnsupportedOption
from qwen3vl.processor.fetch import Media, fetch
from qwen3vl.processor.images import LoadedPicture, load_picture
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.probe import open_picture
from qwen3vl.processor.resize import picture_bounds, resize_pixels, smart_resize
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.settings import MediaOptions
from qwen3vl.types import MediaReceipt, PictureSource

_PLAIN_MODES = ("RGB", "L", "P", "1", "RGBA")  # RGBA only where all of it is opaque: else there is a note
_UNKNOWN = "grid and tokens as the server makes them are not known here; the digest is of the bytes sent"


@dataclass(frozen=True, slots=True)
class SentPicture:
    url: str
    receipt: MediaReceipt


@cache
def released_settings(kind: str) -> VisionSettings:
    """For "image" or "video": the settings that all released Qwen3-VL checkpoints share; the remote's are unknown."""
    name = {"image": "preprocessor_config.json", "video": "video_preprocessor_config.json"}[kind]
    with as_file(files("qwen3vl") / "assets" / "qwen3-vl" / name) as path:
        return VisionSettings.from_file(path)


def encode_picture(
    source: PictureSource, policy: MediaPolicy, formats: tuple[str, ...], bounds: MediaOptions | None = None
) -> SentPicture:
    """The picture as a data URI.

    Args:
        formats: Pillow's names of the encodings that may go out as they are.
        bounds: resize here, by the model's own rule, so that the server has nothing left to resize.

    Raises:
        MediaError, InvalidMessage: as `load_picture`, after decoding all of it.
        InvalidParams, UnsupportedOption: bounds that cross, or that the server's own would undo.
    """
    media = fetch(source, policy) if not isinstance(source, (Image.Image, np.ndarray)) else None
    picture = load_picture(source if media is None else media, policy)
    pixels = picture.pixels if bounds is None else _resized(picture.pixels, bounds)
    data, kind = None, ""
    if media is not None and pixels is picture.pixels:
        data, kind = _as_it_is(media, picture, policy, formats)
    if data is None:
        data, kind = png_bytes(pixels), "PNG"
    height, width = pixels.shape[:2]
    receipt = MediaReceipt(
        kind="image",
        source=picture.name,
        digest=hashlib.sha256(data).hexdigest(),
        original_size=picture.original_size,
        resized_size=(width, height),
        grid_thw=(0, 0, 0),
        num_tokens=0,
        orientation=picture.orientation,
        notes=(*picture.notes, _UNKNOWN),
    )
    return SentPicture(data_uri(data, f"image/{kind.lower()}"), receipt)


def data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def png_bytes(pixels_HWC: np.ndarray) -> bytes:
    """Lossless; compressed lightly, since the time to send it is spent only once."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _as_it_is(
    media: Media, picture: LoadedPicture, policy: MediaPolicy, formats: tuple[str, ...]
) -> tuple[bytes | None, str]:
    if picture.orientation != 1 or picture.notes:
        return None, ""
    with open_picture(media, policy) as opened:
        plain = opened.format in formats and opened.mode in _PLAIN_MODES and "transparency" not in opened.info
        kind = opened.format or ""
    if not plain:
        return None, ""
    with media.open() as file:
        return file.read(), kind


def _resized(pixels: np.ndarray, bounds: MediaOptions) -> np.ndarray:
    """The pixels that the server would make of them under `bounds`; the same array where its own rule does that."""
    settings = released_settings("image")
    if bounds.max_pixels is not None and bounds.max_pixels < settings.min_pixels:
        raise UnsupportedOption(
            f"max_pixels={bounds.max_pixels}: the server enlarges every picture to {settings.min_pixels} pixels again"
        )
    if bounds.min_pixels is not None and bounds.min_pixels > settings.max_pixels:
        raise UnsupportedOption(
            f"min_pixels={bounds.min_pixels}: the server shrinks every picture to {settings.max_pixels} pixels again"
        )
    height, width = pixels.shape[:2]
    low, high = picture_bounds(settings, bounds)
    usual = smart_resize(height, width, settings.factor, settings.min_pixels, settings.max_pixels)
    wanted = smart_resize(height, width, settings.factor, low, min(high, settings.max_pixels))
    return pixels if wanted == usual else resize_pixels(pixels, wanted)
