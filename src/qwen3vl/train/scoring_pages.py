"""Metrics of tables and documents; see scoring.py."""

from __future__ import annotations

from qwen3vl.errors import ParseError
from qwen3vl.tasks import documents
from qwen3vl.tasks.blocks import ParsedPage
from qwen3vl.tasks.parsing import html_table
from qwen3vl.train import metrics as measure
from qwen3vl.train.metrics import Metric, PixelBox, plain
from qwen3vl.train.replay import Replay
from qwen3vl.train.scoring_asked import OVERLAP, Asked, Metrics, right
from qwen3vl.train.synthetic import sample as truths
from qwen3vl.train.teds import teds


def table(truth: truths.TableTruth, asked: Asked, answer: str) -> Metrics:
    tables = _tables(_page(asked, answer), asked.format)
    if not tables:
        raise ParseError("no table in the answer", raw=answer)
    wanted = _comparable(truth.html, asked.format)
    likeness = teds(wanted, tables[0])
    return {
        "teds": Metric(likeness, 1),
        "teds_structure": Metric(teds(wanted, tables[0], structure_only=True), 1),
        "exact": right(likeness == 1),
    }


def page(truth: truths.PageTruth, asked: Asked, answer: str) -> Metrics:
    read = _page(asked, answer)
    said: list[tuple[str, PixelBox]] = [(b.kind, b.box.corners if b.box else (0.0, 0.0, 0.0, 0.0)) for b in read.blocks]
    wanted = [(kind, box) for kind, _, box in truth.blocks]

    def fits(a: tuple[str, PixelBox], b: tuple[str, PixelBox]) -> bool:
        return a[0] == b[0] and measure.overlap(a[1], b[1]) >= OVERLAP

    if asked.format == "markdown":  # has places for pictures and tables only
        said, wanted = ([item for item in items if item[0] in ("table", "image")] for items in (said, wanted))
    texts = [plain(t) for kind, t, _ in truth.blocks if kind != "table"]
    letters = plain(" ".join(filter(None, texts)))
    spoken = plain(" ".join(b.text for b in read.blocks if b.kind != "table"))
    found = {
        "character_error": measure.error_rate(letters, spoken),
        "f1": measure.f1(len(measure.most_pairs(wanted, said, fits)), len(wanted), len(said)),
    }
    tables = [_comparable(t, asked.format) for kind, t, _ in truth.blocks if kind == "table"]
    if tables:
        drawn = _tables(read, asked.format)
        likeness = sum(teds(a, b) for a, b in zip(tables, drawn, strict=False))
        found["teds"] = Metric(likeness, max(len(tables), len(drawn)))
    return found


def _page(asked: Asked, answer: str) -> ParsedPage:
    return documents.parse(Replay(answer).generator, [asked.picture], format=asked.format).pages[0]


def _tables(read: ParsedPage, format: documents.Format) -> list[str]:
    found = [b for b in read.blocks if b.kind == "table" and b.table is not None]
    return [b.html if format == "html" else b.table.to_html() for b in found if b.table is not None]


def _comparable(markup: str, format: documents.Format) -> str:
    """Markdown's tables are read as full grids, so the truth becomes one too."""
    return markup if format == "html" else html_table(markup).to_html()
