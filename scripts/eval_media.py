"""Asks a model about real pictures whose truth is known: receipts, web pages, true-or-false drawings.

    python scripts/eval_media.py --model small > src/qwen3vl/small/media.json
    python scripts/eval_media.py --model small --count 10 --show

The pictures are those of the folder that the tests know as QWEN3VL_MEDIA (see CONTRIBUTING.md); nothing of them is in
the repository, and no model of ours is trained on them. Prints one JSON document with rows like those of
`qwen3vl eval synthetic --json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

import qwen3vl
from qwen3vl.tasks.extraction import extract_prompt
from qwen3vl.tasks.ocr import PAGE_PROMPT
from qwen3vl.train.evaluation import TaskResult, evaluate_task, value_of
from qwen3vl.train.synthetic.answers_text import fields_answer
from qwen3vl.train.synthetic.sample import ChoiceTruth, FieldsTruth, SyntheticSample, TextTruth, asked
from qwen3vl.train.synthetic.true_false import QUESTIONS, TRUE_FALSE
from qwen3vl.train.synthetic.widget_tasks import clicked

TARGETS = 4  # of a web page
LONGEST_NAME = 30  # of a target: a whole paragraph is no name
Samples = Iterator[SyntheticSample]


def receipts(folder: Path) -> Samples:
    """Company, date, address and total of scanned receipts (SROIE)."""
    for key, picture in _receipts(folder):
        fields = json.loads(key.read_text(encoding="utf-8"))
        question = asked(picture, extract_prompt(dict.fromkeys(fields, "")))
        yield SyntheticSample("receipts", question, fields_answer(fields), FieldsTruth(fields), key=key.name)


def receipt_lines(folder: Path) -> Samples:
    """All text of the same receipts, in the order in which their truth lists the lines."""
    for key, picture in _receipts(folder):
        boxes = key.with_name(key.name.replace(".key.json", ".box.csv"))
        lines = [line.split(",", 8)[8] for line in boxes.read_text(encoding="utf-8").splitlines() if line]
        text = "\n".join(lines)
        yield SyntheticSample("receipt lines", asked(picture, PAGE_PROMPT), text, TextTruth(text), key=key.name)


def _receipts(folder: Path) -> Iterator[tuple[Path, Image.Image]]:
    for key in sorted((folder / "documents" / "sroie").glob("*.key.json")):
        yield key, _picture(key.with_name(key.name.replace(".key.json", ".jpg")))


def web_pages(folder: Path) -> Samples:
    """A click on what is named on the screenshot of a page; a few targets of each, always the same."""
    place = folder / "pictures" / "webpages"
    for page in json.loads((place / "grounding.json").read_text(encoding="utf-8")):
        picture = _picture(place / Path(page["image"]).name)
        named = [
            e for e in page["elements"]
            if e["unique"] and 0 < len(e["name"]) <= LONGEST_NAME and _inside(e["box"], picture.size)
        ]  # fmt: skip
        for element in random.Random(page["page"]).sample(named, min(TARGETS, len(named))):
            yield clicked("web pages", picture, f'Click "{element["name"]}".', tuple(map(float, element["box"])))


def _inside(box: Sequence[float], size: tuple[int, int]) -> bool:
    return 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


def drawings(folder: Path) -> Samples:
    """Sentences about drawn boxes and towers (NLVR)."""
    place = folder / "pictures" / "nlvr"
    for line in (place / "dev.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        question = asked(_picture(place / item["image"]), QUESTIONS[0].format(item["sentence"].rstrip(".") + "."))
        yield SyntheticSample("drawings", question, item["label"], ChoiceTruth(item["label"], TRUE_FALSE))


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


SETS: dict[str, tuple[Callable[[Path], Samples], str]] = {
    "receipts: fields": (receipts, "fields"),
    "receipts: character error": (receipt_lines, "character_error"),
    "web pages: click on what is named": (web_pages, "success"),
    "drawings: true or false": (drawings, "accuracy"),
}


def measure(model: qwen3vl.Generator, folder: Path, count: int | None, show: bool) -> list[dict[str, Any]]:
    """A row for each set, of its first `count` samples. Raises SystemExit if a request failed: that is no score."""
    rows = []
    for name, (samples, metric) in SETS.items():
        result = evaluate_task(model, name, islice(samples(folder), count), show_mistakes=5 if show else 0)
        if result.errors:
            raise SystemExit(f"{name}: requests failed: {result.failures}")
        rows.append(_row(name, metric, result))
        print(f"{name}: {rows[-1]['value']} of {result.number}, {result.failures}", file=sys.stderr)
        for mistake in result.mistakes:
            print(f"   {mistake.sample.answer!r}\n   {mistake.said!r}", file=sys.stderr)
    return rows


def _row(name: str, metric: str, result: TaskResult) -> dict[str, Any]:
    v = value_of(metric, [scored.metrics[metric] for scored in result.scored])
    return {
        "name": name, "metric": metric, "value": v.value, "low": v.low, "high": v.high, "aim": None,
        "number": v.number, "perfect": result.perfect, "seconds": round(result.seconds, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--quantize", choices=("int8", "int4"))
    parser.add_argument("--folder", type=Path, default=os.environ.get("QWEN3VL_MEDIA"))
    parser.add_argument("--count", type=int, help="samples of each set [default: all]")
    parser.add_argument("--show", action="store_true", help="mistakes, on stderr")
    given = parser.parse_args()
    if given.folder is None or not given.folder.is_dir():
        parser.error("give --folder, or set QWEN3VL_MEDIA: the real pictures are not in the repository")
    model = qwen3vl.load(given.model, quantize=given.quantize)
    rows = measure(model, given.folder, given.count, given.show)
    print(json.dumps({"model": given.model, "quantize": given.quantize, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
