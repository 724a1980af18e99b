"""From one picture, however given, to upright RGB pixels (`load_picture`) and to patches (`prepare_picture`).

    source --fetch--> Media --probe: limits--> decode --orientation, transparency, depth--> pixels (H, W, 3)
           --resize--> --patchify--> Visual

With `MediaPolicy.isolate` the decoding runs in a worker process. Resizing and cutting into patches work on
plain arrays of a size that was checked, and stay in this one: a worker then never imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from qwen3vl.errors import InvalidMessage, InvalidParams, MediaDecodeError
from qwen3vl.inputs import Visual
from qwen3vl.processor.fetch import Media, MediaPolicy, fetch
from qwen3vl.processor.probe import (
    PictureHeader,
    check_picture,
    decoding_errors,
    header_of,
    open_picture,
    read_orientation,
)
from qwen3vl.processor.resize import digest_frames, patch_grid, patchify, picture_bounds, resize_pixels, smart_resize
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, MediaReceipt

if TYPE_CHECKING:
    from qwen3vl.processor.settings import VisionSettings
    from qwen3vl.types import PictureSource

Manner = Literal["qwen3vl", "transformers"]
_STRIP_BYTES = 1 << 18
_VIDEO_OPTIONS = ("fps", "num_frames", "min_frames", "max_frames", "total_pixels", "video_start", "video_end")


@dataclass(frozen=True, slots=True)
class LoadedPicture:
    """Upright 8-bit RGB pixels and where they come from.

    Attributes:
        pixels: uint8 (H, W, 3), orientation applied.
        original_size: (width, height) as stored, before the orientation.
        orientation: EXIF orientation 1-8 that was applied.
        name: of the source, for people.
        notes: what was changed on the way: transparency, depth, frames left out.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    orientation: int
    name: str
    notes: tuple[str, ...] = ()


def load_picture(
    source: PictureSource | Media, policy: MediaPolicy | None = None, *, manner: Manner = "qwen3vl"
) -> LoadedPicture:
    """Any picture as upright RGB.

    Ours: the EXIF orientation is applied, transparency is laid over white, 16 bits are scaled to 8, of an
    animation the first frame is taken. `manner="transformers"` is what transformers 5.23 does instead: for
    a file or URL the orientation is applied and transparency and depth are whatever PIL's convert("RGB")
    makes of them; for a PIL picture transparency is laid over white and the orientation ignored. Pictures in
    memory (PIL, arrays) are converted in this process even with policy.isolate.

    Raises:
        MediaError as `fetch`; MediaTooLarge before decoding; MediaDecodeError for damaged or unknown
        files; InvalidMessage for arrays that are not uint8 (H, W, 3) and for other types.
    """
    policy = policy or MediaPolicy.library()
    if isinstance(source, np.ndarray):
        return _from_array(source, policy)
    if isinstance(source, Image.Image):
        return _from_pil(source, policy, manner)
    if not isinstance(source, Media):
        if not isinstance(source, (str, bytes, bytearray, memoryview)) and not hasattr(source, "__fspath__"):
            raise InvalidMessage(
                f"a picture must be a path, a URL, bytes, a PIL picture or a uint8 array, not {type(source).__name__}"
            )
        source = fetch(source, policy)
    if policy.isolate:
        from qwen3vl.processor import isolation

        return isolation.run(_decode, source, policy, manner, policy=policy, name=source.name)
    return _decode(source, policy, manner)


def prepare_picture(
    part: ImagePart,
    settings: VisionSettings,
    options: MediaOptions | None = None,
    policy: MediaPolicy | None = None,
    *,
    manner: Manner = "qwen3vl",
) -> Visual:
    """The patches of a picture and its receipt. `part.media` overrides `options`.

    Raises: as `load_picture`; InvalidParams for crossing pixel bounds or settings of videos on the part.
    """
    bounds = picture_bounds(settings, picture_options(part, options))
    return prepare_loaded(load_picture(part.image, policy, manner=manner), settings, bounds)


def picture_options(part: ImagePart, options: MediaOptions | None) -> MediaOptions:
    """`options` overridden by the part's own, which must not hold settings that only videos have."""
    if part.media is not None:
        video_only = [name for name in _VIDEO_OPTIONS if getattr(part.media, name) is not None]
        if video_only:
            raise InvalidParams(f"{', '.join(video_only)}: not a setting of a picture")
    return (options or MediaOptions()).merged_with(part.media)


def prepare_loaded(picture: LoadedPicture, settings: VisionSettings, bounds: tuple[int, int]) -> Visual:
    """Resize within `bounds` = (min_pixels, max_pixels), cut into patches, write the receipt."""
    height, width = picture.pixels.shape[:2]
    height, width = smart_resize(height, width, settings.factor, *bounds)
    frames_FHWC = resize_pixels(picture.pixels, (height, width))[None]
    grid = patch_grid(1, height, width, settings)
    receipt = MediaReceipt(
        kind="image",
        source=picture.name,
        digest=digest_frames(frames_FHWC, settings),
        original_size=picture.original_size,
        resized_size=(width, height),
        grid_thw=grid,
        num_tokens=grid[1] * grid[2] // settings.merge_size**2,
        orientation=picture.orientation,
        notes=picture.notes,
    )
    return Visual("image", patchify(list(frames_FHWC), settings), grid, receipt)


# --------------------------------------------------------------------------------------- decoding


def _from_array(pixels: np.ndarray, policy: MediaPolicy) -> LoadedPicture:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InvalidMessage(f"a picture array must be uint8 (height, width, 3), not {pixels.dtype} {pixels.shape}")
    size = (pixels.shape[1], pixels.shape[0])
    check_picture(PictureHeader("<array>", size, format="array"), policy)
    return LoadedPicture(np.ascontiguousarray(pixels), size, 1, "<array>")


def _from_pil(picture: Image.Image, policy: MediaPolicy, manner: Manner) -> LoadedPicture:
    with decoding_errors("<PIL>"):
        header = header_of(picture, "<PIL>")
        if manner == "transformers":
            header = replace(header, orientation=1)
        check_picture(header, policy)
        if manner == "qwen3vl":
            return _convert(picture, header)
        return LoadedPicture(_pixels(picture)[0], header.size, 1, "<PIL>")


def _decode(media: Media, policy: MediaPolicy, manner: Manner) -> LoadedPicture:
    with open_picture(media, policy) as picture:
        header = header_of(picture, media.name)
        check_picture(header, policy)
        if manner == "qwen3vl":
            return _convert(picture, header)
        rgb = ImageOps.exif_transpose(picture).convert("RGB")
        rgb.info.pop("transparency", None)  # dropped, not laid over white
        return LoadedPicture(_pixels(rgb)[0], header.size, header.orientation, media.name)


def _convert(picture: Image.Image, header: PictureHeader) -> LoadedPicture:
    animated = bool(getattr(picture, "is_animated", False)) and header.format != "MPO"
    notes = ["first of several frames or pages"] if animated else []
    picture.load()
    # Some versions of Pillow turn a TIFF while loading, and then take its orientation away.
    turn = read_orientation(picture) if header.format == "TIFF" else header.orientation
    shallow, depth_note = _to_8_bits(picture)
    pixels, transparent = _pixels(_upright(shallow, turn))
    notes += [note for note in (depth_note, "transparency laid over white" if transparent else None) if note]
    if pixels.shape[1::-1] != header.upright_size:
        raise MediaDecodeError(
            f"{header.name}: decoded as {pixels.shape[1::-1]}, its header says {header.upright_size}"
        )
    return LoadedPicture(pixels, header.size, header.orientation, header.name, tuple(notes))


_TRANSPOSE = {  # EXIF orientation -> what brings it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_TRANSPOSE[orientation]) if orientation != 1 else picture


def _to_8_bits(picture: Image.Image) -> tuple[Image.Image, str | None]:
    """16-bit grey by rounding v / 257; deeper grey and floats from their own range, which is noted."""
    if not picture.mode.startswith(("I", "F")):
        return picture, None
    values = np.asarray(picture)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)), "16-bit grey scaled to 8"
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite value in it")
    low, high = float(values[finite].min()), float(values[finite].max())
    if values.dtype.kind == "i" and low >= 0 and high <= 65535:
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)), "16-bit grey scaled to 8"
    scaled = np.where(finite, values.astype(np.float64) - low, 0.0) * (255.0 / (high - low) if high > low else 0.0)
    grey = Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
    return grey, f"grey values {low:g} to {high:g} scaled to 0-255"


def _pixels(picture: Image.Image) -> tuple[np.ndarray, bool]:
    """Writable uint8 (H, W, 3) of a loaded 8-bit picture, and whether anything in it was transparent.

    By strips that fit the cache: converting the whole at once would hold it up to five times.
    """
    width, height = picture.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows, transparent = max(1, _STRIP_BYTES // (3 * width)), False
    for top in range(0, height, rows):
        rgb, see_through = _over_white(picture.crop((0, top, width, min(top + rows, height))))
        pixels[top : top + rows] = np.asarray(rgb)
        transparent |= see_through
    return pixels, transparent


def _over_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """RGB with transparency composited on white, by the same PIL calls as transformers' convert_to_rgb."""
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert("RGBA" if picture.mode == "RGBa" else "LA")
    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB"), False
    rgba = picture.convert("RGBA")
    lowest: Any = rgba.getchannel("A").getextrema()[0]
    if lowest == 255:
        return rgba.convert("RGB"), False
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB"), True
