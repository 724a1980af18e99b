"""A PDF or pictures of pages as Markdown and HTML, with tables as CSV and the pictures cut out.

    python examples/tasks_parse.py MODEL BOOK.pdf [OUT_FOLDER]

Run it again after a stop: pages that are done are not asked for again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.documents import parse
from qwen3vl.tasks.draw import draw_page
from qwen3vl.tasks.pages import pages_of


def main(model: qwen3vl.Generator, file: Path, out: Path) -> None:
    document = parse(
        model,
        file,
        format="html",
        pictures_to=out / "pictures",
        resume=out / "pages.jsonl",
        progress=lambda page: print(f"page {page.number}: {len(page.blocks)} blocks {page.error or ''}"),
    )
    (out / "document.md").write_text(document.to_markdown(), encoding="utf-8")
    (out / "document.html").write_text(document.to_html(), encoding="utf-8")
    tables = [block.table for block in document.blocks if block.table]
    for number, table in enumerate(tables, start=1):
        (out / f"table-{number}.csv").write_text(table.to_csv(), encoding="utf-8")
    first = next(pages_of(file)).draw()
    draw_page(first, document.pages[0]).image.save(out / "page-1.png")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), Path((sys.argv[3:] or ["."])[0]))
