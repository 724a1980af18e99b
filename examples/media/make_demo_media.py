"""Makes what the demo shows to the model: two pictures, a screenshot, a clip, and the truth about each.

    python examples/media/make_demo_media.py

All of it comes from the held-out side of the package's generator: fonts, words, layouts and themes that no model was
trained on. Which ones depends on SEED and the installed fonts alone; the files in the repository were made once. The
receipt is the first; screen, things and clip are picked: of 29, 56 and 95 the shipped model gets 2, 15 and 4 right.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from qwen3vl.train.synthetic.receipts import print_receipt, sale
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.roll import taken
from qwen3vl.train.synthetic.sample import BoxesTruth, MomentsTruth, NumberTruth, SyntheticSample
from qwen3vl.train.synthetic.sides import rng_of
from qwen3vl.types import VideoPart

HERE = Path(__file__).parent
SEED = 2026
SCREEN, THINGS, CLIP = 131, 30, 27  # which samples of this seed: a named button, several things, one event
FORM = ("company", "date", "total")


def receipt() -> dict[str, Any]:
    """Printed, laid on white and photographed."""
    rng = rng_of("heldout", SEED, "demo receipt", 0)
    printed = print_receipt(rng, "heldout", sale(rng, "heldout", 4))
    text = ["  ".join(cell.text for cell in row.cells) for row in printed.roll.rows if row.cells]
    sheet = printed.roll.sheet((246, 244, 238), (38, 36, 44))
    taken(sheet, rng, 0.6)
    sheet.picture.save(HERE / "demo-receipt.png", optimize=True)
    return {
        "file": "demo-receipt.png",
        "text": "\n".join(text),
        "fields": {name: printed.fields[name] for name in FORM},
    }


def screen() -> dict[str, Any]:
    sample = make_sample("widget_locate", "heldout", SEED, SCREEN)
    assert isinstance(sample.truth, BoxesTruth) and len(sample.truth.items) == 1, sample.truth
    ((what, box),) = sample.truth.items
    _picture(sample).save(HERE / "demo-screen.png", optimize=True)
    return {"file": "demo-screen.png", "what": what, "box": [round(v, 1) for v in box]}


def things() -> dict[str, Any]:
    sample = make_sample("count_boxes", "heldout", SEED, THINGS)
    assert isinstance(sample.truth, NumberTruth), sample.truth
    _picture(sample).save(HERE / "demo-things.png", optimize=True)
    return {"file": "demo-things.png", "what": sample.marks[0].label, "number": int(sample.truth.value)}


def clip() -> dict[str, Any]:
    sample = make_sample("clip_moment_small", "heldout", SEED, CLIP)
    assert isinstance(sample.truth, MomentsTruth) and sample.truth.moments, sample.truth
    (part,) = sample.pictures
    assert isinstance(part, VideoPart)
    _encode(part, HERE / "demo-clip.mp4")
    question = sample.messages[-1].text.split("\n")[0]
    return {"file": "demo-clip.mp4", "question": question, "moments": [list(m) for m in sample.truth.moments]}


def _picture(sample: SyntheticSample) -> Image.Image:
    picture = sample.pictures[0].image  # type: ignore[union-attr]
    assert isinstance(picture, Image.Image)
    return picture


def _encode(part: VideoPart, path: Path) -> None:
    frames: list[Image.Image] = list(part.video)  # type: ignore[arg-type]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(part.frame_rate or 1), options={"crf": "12"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


if __name__ == "__main__":
    truth = {"receipt": receipt(), "screen": screen(), "things": things(), "clip": clip()}
    (HERE / "demo.json").write_text(json.dumps(truth, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
