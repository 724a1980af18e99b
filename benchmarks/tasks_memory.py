"""Memory of `parse` on a long PDF and of `watch` on a long video, with a model that only replays an answer.

    python benchmarks/tasks_memory.py [--pages 500] [--minutes 120] [--out benchmarks/results/tasks_memory.json]

Peak resident memory is read after 10 pages and at the end: constant memory means that the two are close.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pypdfium2
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

from qwen3vl.tasks.clips import contact_sheet
from qwen3vl.tasks.documents import parse_pages
from qwen3vl.tasks.video import watch


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def long_pdf(path: Path, pages: int) -> None:
    """Pages with a picture of noise each, so that no page can be shared."""
    document = pypdfium2.PdfDocument.new()
    rng = np.random.default_rng(0)
    for _ in range(pages):
        page = document.new_page(612, 792)
        picture = Image.fromarray(rng.integers(0, 255, (200, 150, 3), dtype=np.uint8))
        bitmap = pypdfium2.PdfBitmap.from_pil(picture)
        image = pypdfium2.PdfImage.new(document)
        image.set_bitmap(bitmap)
        image.set_matrix(pypdfium2.PdfMatrix().scale(500, 700).translate(50, 50))
        page.insert_obj(image)
        page.gen_content()
        page.close()
    document.save(path)
    document.close()


def long_video(path: Path, minutes: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for second in range(minutes * 60):
            grey = second % 256
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (320, 240), (grey, grey, grey)))))
        container.mux(stream.encode(None))


def parse_book(folder: Path, pages: int) -> Iterator[tuple[str, float]]:
    long_pdf(folder / "book.pdf", pages)
    model = FakeGenerator(answer("docparse_html"), repeat=True, remember=False)
    began, blocks, early = time.perf_counter(), 0, 0.0
    parsed = parse_pages(
        model, folder / "book.pdf", format="html", pictures_to=folder / "cut", resume=folder / "state.jsonl"
    )
    for page in parsed:
        blocks += len(page.blocks)
        early = peak_mib() if page.number == 10 else early
    yield "pages", pages
    yield "blocks", blocks
    yield "pictures", len(list((folder / "cut").iterdir()))
    yield "seconds_per_page", (time.perf_counter() - began) / pages
    yield "peak_mib_after_10_pages", early
    yield "peak_mib_at_the_end", peak_mib()


def watch_video(folder: Path, minutes: int) -> Iterator[tuple[str, float]]:
    long_video(folder / "long.mp4", minutes)
    before, began = peak_mib(), time.perf_counter()
    seen = watch(FakeGenerator(answer("video_13_dense_events")), folder / "long.mp4", duration=minutes * 60)
    contact_sheet(folder / "long.mp4", seen.moments).save(folder / "sheet.png")
    yield "minutes", minutes
    yield "moments", len(seen.moments)
    yield "seconds", time.perf_counter() - began
    yield "peak_mib_before", before
    yield "peak_mib_at_the_end", peak_mib()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pages", type=int, default=500)
    arguments.add_argument("--minutes", type=int, default=120)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        book = dict(parse_book(Path(folder), options.pages))
        video = dict(watch_video(Path(folder), options.minutes))
    result = json.dumps({"parse": book, "watch": video}, indent=1)
    print(result)
    if options.out:
        options.out.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
