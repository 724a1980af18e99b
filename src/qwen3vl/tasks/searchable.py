"""PDFs with the pictures of pages and, invisible above them, the text that was read: to search and to copy.

The text is in a font without glyphs whose codes are Unicode, with a ToUnicode map, so that every script
works and nothing is embedded (ISO 32000-1, 9.3.6 text rendering mode 3; 9.7 composite fonts; 9.10.3).
Pages are written as they come: a long book needs the memory of one page.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.ocr import Reading, TextBox
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.types import PictureSource

DPI = 144.0  # a page of W pixels becomes W / DPI inches wide
QUALITY = 85  # of the JPEG pictures
_CATALOG, _PAGES, _FONT, _CID_FONT, _UNICODE, _DESCRIPTOR = range(1, 7)
_PRIVATE = 0xE000  # codes for what lies beyond 16 bits: readers do not join surrogates
_TO_UNICODE = """/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Adobe-Identity-UCS def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
%sendcmap
CMapName currentdict /CMap defineresource pop
end
end
"""


def write_searchable_pdf(pages: Iterable[tuple[PictureSource, Reading]], path: Path, *, dpi: float = DPI) -> int:
    """Writes one page for each picture and its reading (level "line" or "word"); returns how many.

    Raises InvalidParams for a reading without boxes: its words have no place on the page.
    """
    with path.open("wb") as file:
        pdf = _Writer(file)
        kids = [pdf.page(open_picture(source), reading, dpi) for source, reading in pages]
        pdf.finish(kids)
    return len(kids)


class _Writer:
    """Objects one after the other, and where each began."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offsets: dict[int, int] = {}
        self.next = _DESCRIPTOR + 1
        self.beyond: dict[str, int] = {}  # characters beyond 16 bits -> their codes
        file.write(b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n")

    def object(self, body: bytes, number: int | None = None) -> int:
        if number is None:
            number, self.next = self.next, self.next + 1
        self.offsets[number] = self.file.tell()
        self.file.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
        return number

    def stream(self, data: bytes, entries: bytes = b"", number: int | None = None) -> int:
        return self.object(b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data), number)

    def page(self, picture: Image.Image, reading: Reading, dpi: float) -> int:
        if reading.level == "page":
            raise InvalidParams('a searchable PDF needs places: read with level="line" or "word"')
        if picture.size != reading.size:
            raise InvalidParams(f"the picture is {picture.size}, but the reading is of one of {reading.size}")
        scale = 72 / dpi
        width, height = picture.width * scale, picture.height * scale
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=QUALITY)
        image = self.stream(
            out.getvalue(),
            b"/Type /XObject /Subtype /Image /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode "
            b"/Width %d /Height %d" % picture.size,
        )
        text = "".join(self.show(found, height, scale) for found in reading.boxes)
        drawing = f"q {width:.3f} 0 0 {height:.3f} 0 0 cm /Im Do Q\nBT 3 Tr\n{text}ET"
        content = self.stream(drawing.encode("ascii"))
        return self.object(
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 %.3f %.3f] /Contents %d 0 R /Resources << /XObject "
            b"<< /Im %d 0 R >> /Font << /F %d 0 R >> >> >>" % (_PAGES, width, height, content, image, _FONT)
        )

    def show(self, found: TextBox, page_height: float, scale: float) -> str:
        """One text, stretched over its box: glyphs are half an em wide, so Tz = 100 * width / (size * count / 2)."""
        codes = [self._code(char) for char in _visual(found.text)]
        size = found.box.height * scale
        if not codes or size <= 0 or found.box.width <= 0:
            return ""
        stretch = 100 * found.box.width * scale / (size * 0.5 * len(codes))
        x, y = found.box.x1 * scale, page_height - found.box.y2 * scale + 0.2 * size  # the base line
        shown = "".join(f"{code:04X}" for code in codes)
        return f"/F {size:.3f} Tf {stretch:.3f} Tz 1 0 0 1 {x:.3f} {y:.3f} Tm <{shown}> Tj\n"

    def _code(self, char: str) -> int:
        if ord(char) < 0x10000:
            return 0xFFFD if 0xD800 <= ord(char) < 0xE000 else ord(char)
        return self.beyond.setdefault(char, _PRIVATE + len(self.beyond) % 0x1900)

    def finish(self, kids: list[int]) -> None:
        self.object(b"<< /Type /Catalog /Pages %d 0 R >>" % _PAGES, _CATALOG)
        listed = b" ".join(b"%d 0 R" % kid for kid in kids)
        self.object(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), listed), _PAGES)
        self.object(
            b"<< /Type /Font /Subtype /Type0 /BaseFont /Invisible /Encoding /Identity-H /DescendantFonts [%d 0 R] "
            b"/ToUnicode %d 0 R >>" % (_CID_FONT, _UNICODE),
            _FONT,
        )
        self.object(
            b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Invisible /DW 500 /FontDescriptor %d 0 R "
            b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>" % _DESCRIPTOR,
            _CID_FONT,
        )
        far = [f"<{code:04X}> <{char.encode('utf-16-be').hex()}>\n" for char, code in self.beyond.items()]
        blocks = [far[i : i + 100] for i in range(0, len(far), 100)]  # the most that a block may hold
        mapped = "".join(f"{len(block)} beginbfchar\n{''.join(block)}endbfchar\n" for block in blocks)
        self.stream((_TO_UNICODE % mapped).encode("ascii"), number=_UNICODE)
        self.object(
            b"<< /Type /FontDescriptor /FontName /Invisible /Flags 4 /FontBBox [0 -200 500 800] /ItalicAngle 0 "
            b"/Ascent 800 /Descent -200 /CapHeight 800 /StemV 80 >>",
            _DESCRIPTOR,
        )
        start, count = self.file.tell(), self.next
        self.file.write(b"xref\n0 %d\n0000000000 65535 f \n" % count)
        for number in range(1, count):
            self.file.write(b"%010d 00000 n \n" % self.offsets[number])
        self.file.write(b"trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, _CATALOG, start))


def _visual(text: str) -> str:
    """Glyphs stand from left to right on a page: text that runs the other way is turned, its numbers and
    foreign words kept, and readers turn it back."""
    if not any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        return text
    pieces: list[str] = []
    forward = False
    for char in text:
        kind = unicodedata.bidirectional(char)
        forward = kind in ("L", "EN", "AN") or (forward and kind in ("CS", "ES", "NSM"))
        if (
            pieces
            and forward
            and len(pieces[-1])
            and unicodedata.bidirectional(pieces[-1][-1]) in ("L", "EN", "AN", "CS", "ES")
        ):
            pieces[-1] += char
        else:
            pieces.append(char)
    return "".join(reversed(pieces))
