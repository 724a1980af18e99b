"""Searchable PDFs, read back with pdfium."""

from __future__ import annotations

from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.ocr import Reading, TextBox, read
from qwen3vl.tasks.searchable import write_searchable_pdf
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer


def test_the_recording_can_be_searched(tmp_path: Path) -> None:
    picture = Image.new("RGB", (870, 1398), "white")
    reading = read(FakeGenerator(answer("ocr_line_spotting")), picture, level="line")
    assert write_searchable_pdf([(picture, reading)] * 2, tmp_path / "out.pdf") == 2
    document = pypdfium2.PdfDocument(tmp_path / "out.pdf")
    assert len(document) == 2
    page = document[1]
    assert page.get_size() == pytest.approx((435, 699))
    text = page.get_textpage()
    found = text.get_text_range().replace("\r\n", "\n")
    assert all(line in found for line in ("UNIHAKKA INTERNATIONAL SDN BHD", "Thank You & Come Again!"))
    assert text.search("TAX INVOICE").get_next() is not None
    assert page.render(scale=1).to_pil().convert("L").getextrema()[0] > 250, "the text is seen"


def test_every_script_stands_in_its_place(tmp_path: Path) -> None:
    picture = Image.new("RGB", (288, 144), "white")
    boxes = (
        TextBox("猫と犬", Box(20, 20, 120, 40)),
        TextBox("قطة", Box(20, 60, 120, 80)),
        TextBox("😀 ok", Box(20, 100, 120, 120)),
        TextBox("", Box(0, 0, 9, 9)),
    )
    reading = Reading("", boxes, "word", (288, 144), "", (), True)
    write_searchable_pdf([(picture, reading)], tmp_path / "out.pdf")
    text = pypdfium2.PdfDocument(tmp_path / "out.pdf")[0].get_textpage()
    found = text.get_text_range()
    assert all(words in found for words in ("猫と犬", "😀", "قطة"))
    left, bottom, right, top = text.get_charbox(0, loose=True)
    # 144 dots per inch: half a point for a pixel; y counts from the bottom of the page of 72 points.
    assert left == pytest.approx(10, abs=1) and right == pytest.approx(10 + 50 / 3, abs=1)
    assert 72 - 20 - 2 <= bottom < top <= 72 - 10 + 2


def test_words_without_places_are_refused(tmp_path: Path) -> None:
    picture = Image.new("RGB", (10, 10))
    with pytest.raises(InvalidParams, match="level"):
        write_searchable_pdf([(picture, Reading("x", (), "page", (10, 10), "x", (), True))], tmp_path / "a.pdf")
    with pytest.raises(InvalidParams, match=r"\(10, 10\)"):
        write_searchable_pdf([(picture, Reading("x", (), "line", (20, 10), "x", (), True))], tmp_path / "a.pdf")
