"""Teach a model to find white blood cells in micrographs with LoRA, and measure before and after.

python examples/finetune_lora.py --model MODEL [--pictures FOLDER] [--label "white blood cell=WBC"] [--out FOLDER]

FOLDER holds pictures with Pascal VOC files beside them (a.jpg, a.xml), such as the BCCD data set of blood cells;
without it micrographs are drawn. Every fourth picture is held out. What is learnt is an adapter of a few megabytes
in OUT/run/model; OUT/merged is the model with it merged, a folder like any other.
"""

from __future__ import annotations

import argparse
import json
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

import qwen3vl
from qwen3vl.errors import ParseError
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.hub import locate as locate_checkpoint
from qwen3vl.processor.processor import Processor
from qwen3vl.tasks.grounding import locate, locate_prompt
from qwen3vl.train.data_specs import open_source
from qwen3vl.train.examples import Encoder
from qwen3vl.train.lora import export_merged
from qwen3vl.train.loss import batch_loss
from qwen3vl.train.metrics import f1, most_pairs, overlap
from qwen3vl.train.reports import Progress
from qwen3vl.train.run import HeldOutLoss, TrainRun, train
from qwen3vl.train.settings import LoraSettings, TrainSettings
from qwen3vl.train.synthetic.answers import boxes_answer, reading_order

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Micrograph:
    """A picture and the boxes of what is to be found in it, in its pixels."""

    path: Path
    size: tuple[int, int]
    boxes: tuple[Corners, ...]


def read_voc(folder: Path, name: str) -> list[Micrograph]:
    """Pictures of a folder with the boxes called `name` in their Pascal VOC files; those without any are left out."""
    found = []
    for path in sorted(folder.glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        corners = [
            tuple(float(thing.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax"))
            for thing in root.iter("object")
            if thing.findtext("name") == name
        ]
        picture = path.with_suffix(".jpg")
        with Image.open(picture) as image:
            size = image.size
        if corners:
            found.append(Micrograph(picture, size, tuple(corners)))  # type: ignore[arg-type]
    return found


def draw(folder: Path, count: int, seed: int = 0) -> list[Micrograph]:
    """Drawn micrographs: pale red discs, and one or two large cells with a violet nucleus among them."""
    folder.mkdir(parents=True, exist_ok=True)
    random_, found = random.Random(seed), []
    for i in range(count):
        size = (320, 240)
        image = Image.new("RGB", size, (225, 215, 205))
        pen = ImageDraw.Draw(image)
        for _ in range(random_.randint(8, 14)):
            x, y, r = random_.randint(0, 319), random_.randint(0, 239), random_.randint(16, 22)
            pen.ellipse((x - r, y - r, x + r, y + r), (214, 150, 150), (190, 120, 125))
        boxes = []
        for left in random_.sample((10, 115, 220), random_.randint(1, 2)):
            x, y, r = left + random_.randint(36, 60), random_.randint(45, 195), random_.randint(28, 36)
            pen.ellipse((x - r, y - r, x + r, y + r), (196, 170, 205))
            pen.ellipse((x - r // 2, y - r // 2, x + r * 2 // 3, y + r // 2), (90, 40, 140))
            boxes.append((float(x - r), float(y - r), float(x + r), float(y + r)))
        path = folder / f"drawn-{i:03}.png"
        image.save(path)
        found.append(Micrograph(path, size, tuple(boxes)))
    return found


def write_data(path: Path, micrographs: Sequence[Micrograph], label: str) -> str:
    """One conversation a line: the question of `qwen3vl locate`, the answer with boxes 0-1000. -> the file's name."""
    lines = []
    for each in micrographs:
        items = [(label, box) for box in reading_order(each.boxes, lambda box: box)]
        asked = [{"type": "image", "image": str(each.path.resolve())}, {"type": "text", "text": locate_prompt(label)}]
        answer = {"role": "assistant", "content": boxes_answer(items, each.size)}
        lines.append(json.dumps({"messages": [{"role": "user", "content": asked}, answer]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def held_out_loss(folder: Path, data: str, settings: TrainSettings) -> float:
    """Mean loss over the tokens of the answers."""
    source = open_source((data,), None, settings, "heldout")
    encoder = Encoder(Processor.from_folder(folder), settings.media)
    model = load_model(folder, dtype="float32")
    loss = HeldOutLoss(model, source, 1000, encoder, batch_loss, settings)
    return loss(Progress())["loss"]


def held_out_f1(
    folder: Path, micrographs: Sequence[Micrograph], label: str, settings: TrainSettings, max_tokens: int
) -> float:
    """F1 of boxes with an overlap of at least 0.5, over all pictures together."""
    model = qwen3vl.load(folder)
    pairs = truth = said = 0
    params = qwen3vl.SamplingParams(max_tokens=max_tokens)
    for each in micrographs:
        try:
            found = [b.box.corners for b in locate(model, each.path, label, params=params, media=settings.media).boxes]
        except ParseError:  # no coordinates in the answer: nothing found
            found = []
        pairs += len(most_pairs(each.boxes, found, lambda a, b: overlap(a, b) >= 0.5))
        truth, said = truth + len(each.boxes), said + len(found)
    return f1(pairs, truth, said).value or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--label", default="white blood cell=WBC", help="what to ask for = its name in the VOC files")
    parser.add_argument("--drawn", type=int, default=80, help="micrographs to draw where there are no pictures")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--max-pixels", type=int, default=320 * 256)
    parser.add_argument("--max-tokens", type=int, default=200, help="of an answer")
    parser.add_argument("--out", type=Path, default=Path("finetuned"))
    options = parser.parse_args()

    label, _, name = options.label.partition("=")
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    micrographs = read_voc(options.pictures, name or label) if options.pictures else draw(out / "drawn", options.drawn)
    learnt, held_out = [m for i, m in enumerate(micrographs) if i % 4], micrographs[::4]
    print(
        f"{len(learnt)} pictures to learn from, {len(held_out)} held out, {sum(len(m.boxes) for m in held_out)} boxes"
    )

    settings = TrainSettings(
        lora=LoraSettings(rank=options.rank, alpha=2 * options.rank, targets=("attention", "mlp", "mergers", "vision")),
        language_lr=options.rate,
        mergers_lr=options.rate,
        vision_lr=options.rate,
        steps=options.steps,
        tokens_per_batch=2048,
        media=qwen3vl.MediaOptions(min_pixels=32 * 32, max_pixels=options.max_pixels),
    )
    data, test = write_data(out / "train.jsonl", learnt, label), write_data(out / "test.jsonl", held_out, label)
    base = locate_checkpoint(options.model)
    train(TrainRun(data=(data,), model=str(base), out=out / "run", settings=settings))
    export_merged(base, out / "run" / "model", out / "merged")

    print(f"{'':8}{'loss':>8}{'F1':>8}")
    for when, folder in (("before", base), ("after", out / "merged")):
        loss = held_out_loss(folder, test, settings)
        score = held_out_f1(folder, held_out, label, settings, options.max_tokens)
        print(f"{when:8}{loss:8.3f}{score:8.2f}")


if __name__ == "__main__":
    main()
