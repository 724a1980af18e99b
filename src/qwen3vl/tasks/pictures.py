"""The user's picture: how large it is as seen, and its pixels upright, for mapping, cropping and drawing."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import unquote, unquote_to_bytes, urlparse

from PIL import Image, ImageOps

from qwen3vl.errors import MediaDecodeError, MediaError, MediaForbidden, MediaNotFound, MediaTooLarge
from qwen3vl.tasks.coordinates import oriented_size
from qwen3vl.types import MediaReceipt, PictureSource

_ORIENTATION = 0x0112


def picture_size(source: PictureSource, receipt: MediaReceipt | None = None) -> tuple[int, int]:
    """(width, height) in pixels after the EXIF orientation: by the receipt, else by the file's own header."""
    if receipt is not None:
        turned = receipt.orientation in (90, 270) if receipt.kind == "video" else receipt.orientation >= 5
        return receipt.original_size[::-1] if turned else receipt.original_size
    with _open(source) as picture:
        return oriented_size(picture.size, _orientation(picture))


def open_picture(source: PictureSource) -> Image.Image:
    """The picture upright, in RGB, with transparency laid over white."""
    with _open(source) as picture:
        try:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.new("RGB", rgba.size, "white")
                upright.paste(rgba, mask=rgba.getchannel("A"))
            return upright.convert("RGB")
        except Exception as error:  # Pillow's plugins raise many kinds on damaged files
            raise _why(source, error) from error


def name_of(source: PictureSource) -> str:
    """A name for people."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return text if len(text) < 200 else text[:40] + "..."
    return "<bytes>" if isinstance(source, bytes) else "<PIL>" if isinstance(source, Image.Image) else "<array>"


def first_picture(receipts: Sequence[MediaReceipt]) -> MediaReceipt | None:
    """The receipt of the only picture of a request, where the generator gave one."""
    return next((r for r in receipts if r.kind == "image"), None)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds on damaged EXIF; browsers then show it as stored
        return 1
    return value if value in range(1, 9) else 1


def _open(source: PictureSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.copy()
    if not isinstance(source, (str, os.PathLike, bytes)):
        return Image.fromarray(source)
    name = name_of(source)
    try:
        return cast(Image.Image, Image.open(io.BytesIO(source) if isinstance(source, bytes) else _local(source)))
    except FileNotFoundError as error:
        raise MediaNotFound(f"{name}: no such file") from error
    except MediaError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on damaged files
        raise _why(source, error) from error


def _why(source: PictureSource, error: Exception) -> MediaError:
    if isinstance(error, Image.DecompressionBombError):
        return MediaTooLarge(f"{name_of(source)}: {error}")
    return MediaDecodeError(f"{name_of(source)} is no picture that can be read: {error}")


def _local(source: str | os.PathLike[str]) -> Path | io.BytesIO:
    text = os.fspath(source)
    scheme = text.split(":", 1)[0].lower() if ":" in text[:8] else ""
    if scheme == "data":
        head, _, body = text.partition(",")
        try:
            return io.BytesIO(base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body))
        except binascii.Error as error:
            raise MediaDecodeError(f"a data URI is not base64: {error}") from error
    if scheme in ("http", "https"):
        # Fetching is the generator's business and under its media policy; here only local files are opened.
        raise MediaForbidden(f"{name_of(text)}: to measure or draw on it, download the picture and give its path")
    return Path(unquote(urlparse(text).path)) if scheme == "file" else Path(text)
