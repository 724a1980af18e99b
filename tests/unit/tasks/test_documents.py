"""Documents: pages, blocks in pixels, Markdown and HTML, failures of single pages, going on after a stop."""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from qwen3vl.errors import GenerationError, InvalidParams, MediaDecodeError, MediaNotFound, UnsupportedOption
from qwen3vl.tasks.blocks import ParsedPage
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.documents import USUAL, parse, parse_pages
from qwen3vl.tasks.pages import count_pages, is_pdf, pages_of
from qwen3vl.types import Request
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer
from tests.unit.tasks.test_parsing_documents import MARKDOWN


def pdf(path: Path, pages: int, size: tuple[int, int] = (200, 300)) -> Path:
    document = pypdfium2.PdfDocument.new()
    for _ in range(pages):
        document.new_page(*size)
    document.save(path)
    return path


def test_the_recording_as_a_document(tmp_path: Path) -> None:
    page = Image.new("RGB", (1376, 1920), "white")
    model = FakeGenerator(answer("docparse_html"))
    document = parse(model, page, format="html", pictures_to=tmp_path / "cut")
    assert model.prompt == "qwenvl html" and model.last.media == USUAL["html"]
    blocks = document.blocks
    assert len(blocks) == 41 and [b.order for b in blocks] == list(range(41)) and document.pages[0].complete
    assert blocks[0].box == Box(143.104, 55.68, 626.08, 144.0)
    cut = sorted((tmp_path / "cut").iterdir())
    assert [p.name for p in cut[:2]] == ["page-0001-00.png", "page-0001-01.png"] and len(cut) == 5
    assert Image.open(cut[0]).size == (round(455 * 1.376) - round(104 * 1.376), round(75 * 1.92) - round(29 * 1.92))
    markdown = document.to_markdown()
    assert f"]({cut[0].as_posix()})" in markdown and "| ROE(%) | 27.7 | 30.0 | 27.6 | 26.4 | 24.2 |" in markdown
    html = document.to_html()
    assert "<td>31211</td>" in html and "data-bbox" not in html and f'<img src="{cut[0].as_posix()}"' in html


def test_markdown_blocks() -> None:
    document = parse(FakeGenerator(MARKDOWN), Image.new("RGB", (100, 200)))
    text = document.to_markdown()
    assert text.startswith("# Title\n\nintro $x$ text\nmore\n\n| a | b |\n| --- | --- |\n| c | d |")
    assert "$$E=mc^2$$" in text and "## Sub" in text
    assert document.blocks[2].box == Box(1, 4, 30, 80)


def test_pages_of_pdfs_and_pictures(tmp_path: Path) -> None:
    book = pdf(tmp_path / "book.pdf", 3)
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    files = [tmp_path / "a.png", book, book.read_bytes()]
    assert count_pages(files) == 7 and is_pdf(book) and not is_pdf(tmp_path / "a.png")
    pages = list(pages_of(files, dpi=72, pages=[1, 4]))
    assert [(p.number, p.index) for p in pages] == [(1, 0), (4, 2)]
    assert [p.draw().size for p in pages] == [(30, 20), (200, 300)]
    assert next(pages_of(book)).draw().size == (400, 600)
    with pytest.raises(MediaNotFound, match="none"):
        list(pages_of(tmp_path / "none.pdf"))
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(MediaDecodeError, match=r"bad\.pdf"):
        list(pages_of(tmp_path / "bad.pdf"))
    with pytest.raises(InvalidParams):
        parse(FakeGenerator("x"), book, format="latex")  # type: ignore[arg-type]


def test_a_page_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (30, 20)).save(out, "PNG")
    files = [out.getvalue(), b"no picture", out.getvalue(), out.getvalue(), b"no picture either"]
    model = FakeGenerator(["# one", GenerationError("out of memory"), "# four"])
    pages = list(parse_pages(model, files))
    assert [p.number for p in pages] == [1, 2, 3, 4, 5]
    assert [bool(p.error) for p in pages] == [False, True, True, False, True]
    assert "out of memory" in (pages[2].error or "") and "picture" in (pages[1].error or "")
    assert [p.blocks[0].text for p in pages if p.blocks] == ["one", "four"]


def test_going_on_after_a_stop(tmp_path: Path) -> None:
    book, state = pdf(tmp_path / "book.pdf", 5), tmp_path / "state.jsonl"
    model = FakeGenerator([f"# page {n}" for n in range(1, 6)])
    run = parse_pages(model, book, resume=state)
    first = [next(run) for _ in range(3)]
    run.close()
    with state.open("ab") as file:
        file.write(b'{"key": "cut off by a cra')
    again = FakeGenerator(["# page 4", "# page 5"])
    seen: list[ParsedPage] = []
    document = parse(again, book, resume=state, progress=seen.append)
    assert again.num_requests == 2 and [p.blocks[0].text for p in document.pages] == [f"page {n}" for n in range(1, 6)]
    assert document.pages[:3] == tuple(first) and len(seen) == 5
    unneeded = FakeGenerator([])
    assert len(parse(unneeded, book, resume=state).pages) == 5 and unneeded.num_requests == 0
    changed = FakeGenerator(["new"] * 5)
    pdf(book, 5, (210, 300))
    parse(changed, book, resume=state)
    assert changed.num_requests == 5


def test_one_page_is_drawn_at_a_time(tmp_path: Path) -> None:
    book = pdf(tmp_path / "book.pdf", 4)
    order: list[str] = []

    def script(request: Request) -> str:
        order.append("asked")
        return "x"

    for page in parse_pages(FakeGenerator(script), book):
        order.append(f"got {page.number}")
    assert order == ["asked", "got 1", "asked", "got 2", "asked", "got 3", "asked", "got 4"]


def test_without_pixel_limits_the_page_is_asked_again(tmp_path: Path) -> None:
    model = FakeGenerator("# ok", repeat=True, refuse=lambda r: UnsupportedOption("max_pixels") if r.media else None)
    page = parse(model, pdf(tmp_path / "a.pdf", 1)).pages[0]
    assert page.blocks[0].text == "ok" and "pixel limits" in page.notes[0] and page.error is None


def test_real_pdfs_are_drawn(media: Path) -> None:
    for name, size in (("edgar.pdf", (1224, 1584)), ("skinnypage.pdf", None)):
        picture = next(pages_of(media / "documents" / "pdf" / name)).draw()
        assert picture.mode == "RGB" and (size is None or picture.size == size)
