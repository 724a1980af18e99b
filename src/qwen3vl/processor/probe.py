"""What a picture's header says - size, orientation, format, visual tokens - without decoding a pixel.

Everything that opens a picture goes through `open_picture`: a fixed list of formats, our own limits in
place of Pillow's process-wide ones, and one place where decoders' exceptions become ours.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from qwen3vl.errors import MediaDecodeError, MediaTimeout, MediaTooLarge, Qwen3VLError
from qwen3vl.processor.fetch import Media, MediaPolicy, MediaSource, fetch
from qwen3vl.processor.resize import check_ratio, patch_grid, picture_bounds, smart_resize

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from qwen3vl.processor.settings import VisionSettings
    from qwen3vl.settings import MediaOptions

# Formats of the web, cameras and scanners, each with a signature. Not Pillow's whole list: that runs
# Ghostscript on EPS, and takes any bytes for a TGA.
_FORMATS = {
    "JPEG": "JpegImagePlugin",  # and MPO
    "PNG": "PngImagePlugin",
    "GIF": "GifImagePlugin",
    "WEBP": "WebPImagePlugin",
    "AVIF": "AvifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "PPM": "PpmImagePlugin",
    "QOI": "QoiImagePlugin",
}
_OTHER_FILES = (  # signature, what people most likely did
    (b"%PDF-", "is a PDF, not a picture: render its pages first"),
    (b"%!PS", "is PostScript, not a picture"),
    (b"\xc5\xd0\xd3\xc6", "is EPS, not a picture"),
    (b"<svg", "is SVG, not a pixel picture: render it first"),
    (b"<?xml", "is XML, not a picture"),
    (b"<!doctype html", "is a web page, not a picture"),
    (b"<html", "is a web page, not a picture"),
    (b"\x1aE\xdf\xa3", "is a Matroska or WebM video, not a picture"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: run `git lfs pull`"),
)
_ORIENTATION_TAG = 0x0112
# A scan of a progressive JPEG can be ten bytes long and costs a pass over all pixels, about 3 ns a pixel.
# Real files have about ten scans.
_MOST_SCANNED_PIXELS = 2_500_000_000
_MOST_PNG_CHUNKS = 100_000


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What is known before decoding.

    Attributes:
        name: of the source, for people.
        size: (width, height) as stored, before the orientation is applied.
        orientation: EXIF orientation 1-8; 5-8 swap the sides.
        format: "JPEG", "PNG", ...; "PIL" or "array" for pictures in memory.
        num_frames: pictures in the file where its header tells, else None.
    """

    name: str
    size: tuple[int, int]
    orientation: int = 1
    format: str = ""
    num_frames: int | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) with the orientation applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def probe_picture(source: MediaSource | Media, policy: MediaPolicy) -> PictureHeader:
    """The header of an encoded picture. Raises a MediaError; limits are checked by `check_picture`.

    With policy.isolate a worker reads it: some formats are opened by their decoders' own C code.
    """
    media = source if isinstance(source, Media) else fetch(source, policy)
    if policy.isolate:
        from qwen3vl.processor import isolation

        return isolation.run(_probe, media, policy, policy=policy, name=media.name)
    return _probe(media, policy)


def _probe(media: Media, policy: MediaPolicy) -> PictureHeader:
    with open_picture(media, policy) as picture:
        return header_of(picture, media.name)


def check_picture(header: PictureHeader, policy: MediaPolicy) -> None:
    """Raises MediaTooLarge on too many pixels or a ratio of sides above 200."""
    width, height = header.size
    if width < 1 or height < 1:
        raise MediaDecodeError(f"{header.name}: claims a size of {width}x{height} pixels")
    if width * height > policy.max_pixels:
        raise MediaTooLarge(
            f"{header.name}: {width}x{height} = {width * height} pixels, above the limit of "
            f"{policy.max_pixels} (MediaPolicy.max_pixels)"
        )
    check_ratio(height, width, header.name)


def picture_grid(
    size: tuple[int, int], settings: VisionSettings, options: MediaOptions | None = None
) -> tuple[int, int, int]:
    """grid_thw of a picture of upright `size` = (width, height)."""
    width, height = size
    bounds = picture_bounds(settings, options)
    return patch_grid(1, *smart_resize(height, width, settings.factor, *bounds), settings)


def count_picture_tokens(
    source: MediaSource | Media,
    settings: VisionSettings,
    options: MediaOptions | None = None,
    policy: MediaPolicy | None = None,
) -> int:
    """Visual tokens of an encoded picture, from its header alone."""
    policy = policy or MediaPolicy.library()
    header = probe_picture(source, policy)
    check_picture(header, policy)
    t, h, w = picture_grid(header.upright_size, settings, options)
    return t * h * w // settings.merge_size**2


# ---------------------------------------------------------------------------------------- opening


@contextmanager
def open_picture(source: MediaSource | Media, policy: MediaPolicy) -> Iterator[ImageFile]:
    """An unloaded Pillow picture; whatever goes wrong inside the `with` leaves it as a MediaError.

    Reading beyond policy.decode_timeout raises MediaTimeout at the next read of the file.
    """
    media = source if isinstance(source, Media) else fetch(source, policy)
    with media.open() as file, decoding_errors(media.name):
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > policy.max_bytes:
            raise MediaTooLarge(f"{media.name}: {size} bytes, above the limit of {policy.max_bytes} (max_bytes)")
        yield _identify(_TimedFile(file, media.name, policy.decode_timeout), media.name)


@contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """Turns what decoders raise on damaged files - almost anything - into MediaDecodeError.

    Our own errors pass; MemoryError passes too, since it may have another cause.
    """
    try:
        yield
    except (Qwen3VLError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(f"{name}: {error}") from error
    except Exception as error:
        raise MediaDecodeError(f"{name}: cannot be decoded ({str(error) or type(error).__name__})") from error


class _TimedFile:
    """A file that stops answering when time is up. Has no fileno on purpose: every read passes here."""

    def __init__(self, file: BinaryIO, name: str, seconds: float) -> None:
        self.file, self.name, self.seconds = file, name, seconds
        self.end = time.monotonic() + seconds
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int | None = -1) -> bytes:
        if time.monotonic() > self.end:
            raise MediaTimeout(f"{self.name}: not decoded within {self.seconds:g} s (MediaPolicy.decode_timeout)")
        return self.file.read(-1 if size is None else size)

    def readline(self, size: int | None = -1) -> bytes:
        return self.file.readline(-1 if size is None else size)


def _identify(file: Any, name: str) -> ImageFile:
    """Like Image.open for our formats, but without its size check, which is a process-wide setting."""
    prefix = file.read(256)
    if not prefix:
        raise MediaDecodeError(f"{name}: the file is empty")
    failures = []
    for format_name, module in _FORMATS.items():
        import_module(f"PIL.{module}")
        factory, accept = Image.OPEN[format_name]
        accepted = accept(prefix[:16]) if accept is not None else True
        if isinstance(accepted, str):
            failures.append(accepted)
        elif accepted:
            file.seek(0)
            try:
                return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as Image.open: try the next
                failures.append(f"damaged {format_name}: {error}")
    reason = "; ".join(failures) or _what_it_is(prefix)
    raise MediaDecodeError(f"{name}: {reason}")


def _what_it_is(prefix: bytes) -> str:
    start = prefix.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, meaning in _OTHER_FILES:
        if start.startswith(signature.lower()):
            return meaning
    if prefix[4:8] == b"ftyp":
        brand = prefix[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return "is HEIC, which cannot be read here: convert it to JPEG or PNG"
        return "is an MP4 or QuickTime video, not a picture"
    return f"is not a picture in a known format ({', '.join(_FORMATS)})"


# --------------------------------------------------------------------------------------- headers


def header_of(picture: Image.Image, name: str) -> PictureHeader:
    """The header of an opened, unloaded Pillow picture (or of any picture in memory)."""
    size = picture.size
    tags = getattr(picture, "tag_v2", None)
    if picture.format == "TIFF" and tags is not None and 256 in tags and 257 in tags:
        size = (int(tags[256]), int(tags[257]))  # some versions of Pillow report TIFF's size turned already
    if picture.info.get("progressive"):
        _check_scans(picture, name)
    frames = getattr(picture, "n_frames", None) if picture.format in ("PNG", "WEBP", "AVIF", "MPO") else None
    return PictureHeader(name, size, read_orientation(picture), picture.format or "PIL", frames)


def read_orientation(picture: Image.Image) -> int:
    """EXIF orientation 1-8; 1 where there is none or the EXIF data is unreadable, as browsers take it."""
    try:
        if picture.format == "PNG" and "exif" not in picture.info and getattr(picture, "fp", None) is not None:
            exif = Image.Exif()  # PngImageFile.getexif would decode the pixels to look behind them
            exif.load(_png_exif(picture.fp))  # type: ignore[attr-defined]
            if _ORIENTATION_TAG not in exif:
                exif = Image.Image.getexif(picture)  # older conventions: text chunks, XMP
        else:
            exif = picture.getexif()
        value = exif.get(_ORIENTATION_TAG, 1)
    except (Qwen3VLError, MemoryError):
        raise
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_exif(file: Any) -> bytes:
    """The eXIf chunk, which may stand behind the pixels; b"" if there is none. Moves no file position."""
    position = file.tell()
    try:
        file.seek(8)
        for _ in range(_MOST_PNG_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                break
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return bytes(file.read(min(length, 1 << 20)))
            file.seek(length + 4, io.SEEK_CUR)
        return b""
    finally:
        file.seek(position)


def _check_scans(picture: Image.Image, name: str) -> None:
    """Raises MediaTooLarge for a JPEG that is small and yet decodes for minutes."""
    file = getattr(picture, "fp", None)
    if file is None:  # decoded already
        return
    position = file.tell()
    file.seek(0)
    scans, tail = 0, b""
    while block := file.read(1 << 20):
        scans += (tail + block).count(b"\xff\xda")  # cannot occur inside entropy-coded data
        tail = block[-1:]
    file.seek(position)
    width, height = picture.size
    if scans * width * height > _MOST_SCANNED_PIXELS:
        raise MediaTooLarge(
            f"{name}: a progressive JPEG of {scans} scans over {width}x{height} pixels would take too long; "
            "save it again as an ordinary JPEG"
        )
