"""What the package does, on any machine, in under a minute: the small model that comes with it looks at five things.

    python examples/demo.py                                   reads, extracts, finds, counts, watches
    python examples/demo.py --model Qwen/Qwen3-VL-4B-Instruct
    python examples/demo.py photo.jpg "What is this?"         one question about a picture of your own

Every step is one call. Beside what the model says stands the truth, as examples/media/make_demo_media.py wrote it
down when it drew the pictures, from fonts, words and layouts that the model has never seen.
"""

from __future__ import annotations

import argparse
import json
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import qwen3vl
from qwen3vl.tasks.draw import draw_grounding
from qwen3vl.tasks.extraction import extract
from qwen3vl.tasks.grounding import count, locate
from qwen3vl.tasks.ocr import read
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.tasks.video import watch
from qwen3vl.train.metrics import error_rate, overlap, plain

MEDIA = Path(__file__).parent / "media"
OUT = Path(__file__).parent.parent / "out"
REAL = "Qwen/Qwen3-VL-4B-Instruct"
ENOUGH = qwen3vl.SamplingParams(max_tokens=512)  # an answer that never ends shall not stop the demo
COLUMN, LINES = 43, 20  # of what is printed side by side

Truth = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What came back and how it compares with the truth, for people; `written` is a drawing of it."""

    said: str
    verdict: str
    written: Path | None = None


@dataclass(frozen=True)
class Step:
    """One call: its name, what of demo.json it is about, how it is written, the truth in the form of `Found.said`."""

    title: str
    about: str
    call: str
    truth: Callable[[Truth], str]
    run: Callable[[qwen3vl.Generator, Truth, Path], Found]


def read_receipt(model: qwen3vl.Generator, truth: Truth, out: Path) -> Found:
    text = read(model, MEDIA / truth["file"], params=ENOUGH).text
    right = 1 - (error_rate(plain(truth["text"]), plain(text)).value or 0)
    return Found(text, f"{right:.0%} of the characters are right")


def extract_fields(model: qwen3vl.Generator, truth: Truth, out: Path) -> Found:
    form = dict.fromkeys(truth["fields"], "")
    value = extract(model, MEDIA / truth["file"], form, params=ENOUGH).value
    right = sum(str(value.get(name)) == text for name, text in truth["fields"].items())
    return Found(_listed(value), f"{right} of {len(form)} fields are right")


def find_button(model: qwen3vl.Generator, truth: Truth, out: Path) -> Found:
    screen, written = MEDIA / truth["file"], out / "demo-button.png"
    found = locate(model, screen, truth["what"], params=ENOUGH)
    draw_grounding(open_picture(screen), found).image.save(written)
    shared = max((overlap(box.box.corners, tuple(truth["box"])) for box in found.boxes), default=0.0)
    said = "\n".join(f"{box.label}: {_pixels(box.box.corners)}" for box in found.boxes)
    return Found(said or "nothing", f"the boxes overlap by {shared:.0%}", written)


def count_things(model: qwen3vl.Generator, truth: Truth, out: Path) -> Found:
    picture, written = MEDIA / truth["file"], out / "demo-count.png"
    counted = count(model, picture, truth["what"], params=ENOUGH)
    draw_grounding(open_picture(picture), counted.grounding).image.save(written)
    off = abs(counted.number - truth["number"])
    return Found(str(counted.number), f"off by {off}" if off else "right", written)


def watch_clip(model: qwen3vl.Generator, truth: Truth, out: Path) -> Found:
    moments = watch(model, MEDIA / truth["file"], truth["question"], params=ENOUGH).moments
    said, true = [(moment.start, moment.end, moment.text) for moment in moments], truth["moments"]
    if len(said) != len(true):
        return Found(_moments(said) or "never", f"moments: {len(said)}, there are {len(true)}")
    ends = [abs(mine[end] - its[end]) for mine, its in zip(said, true, strict=True) for end in (0, 1)]
    return Found(_moments(said), f"no end is off by more than {max(ends):.2f} s")


STEPS = (
    Step("Read a receipt", "receipt", 'read(model, "{file}")', lambda t: t["text"], read_receipt),
    Step(
        "Fill in a form from it",
        "receipt",
        'extract(model, "{file}", {form})',
        lambda t: _listed(t["fields"]),
        extract_fields,
    ),
    Step(
        "Find a button",
        "screen",
        'locate(model, "{file}", "{what}")',
        lambda t: f"{t['what']}: {_pixels(t['box'])}",
        find_button,
    ),
    Step("Count things", "things", 'count(model, "{file}", "{what}")', lambda t: str(t["number"]), count_things),
    Step("Tell when", "clip", 'watch(model, "{file}", "{question}")', lambda t: _moments(t["moments"]), watch_clip),
)


def tour(model: qwen3vl.Generator, out: Path = OUT) -> None:
    """All steps. One that fails says why, and the next goes on."""
    out.mkdir(parents=True, exist_ok=True)
    truths = json.loads((MEDIA / "demo.json").read_text(encoding="utf-8"))
    for number, step in enumerate(STEPS, start=1):
        truth = truths[step.about]
        form = json.dumps(dict.fromkeys(truth.get("fields", ()), ""))
        print(f"\n{number}  {step.title:<24}{step.call.format(**truth, form=form)}\n")
        started = time.perf_counter()
        try:
            found = step.run(model, truth, out)
        except qwen3vl.Qwen3VLError as error:
            said = getattr(error, "raw", "") or str(error)
            found = Found(said, f"this cannot be used ({type(error).__name__})")
        seconds = time.perf_counter() - started
        _beside(found.said, step.truth(truth))
        drawn = f"; drawn in {_near(found.written)}" if found.written else ""
        print(f"\n   -> {found.verdict}; {seconds:.1f} s{drawn}")


def ask(model: qwen3vl.Generator, picture: str, question: str) -> None:
    """One question, answered as it is written, and what the model really saw."""
    print(f"{picture}\n> {question}\n")
    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
    completion = None
    for delta in model.stream(messages, ENOUGH):
        print(delta.text, end="", flush=True)
        completion = delta.completion or completion
    assert completion is not None
    print("\n")
    report(completion)


def report(completion: qwen3vl.Completion) -> None:
    for receipt in completion.receipts:
        width, height = receipt.original_size
        print(f"picture    {receipt.source}: {width} x {height} pixels, orientation {receipt.orientation}")
        print(f"seen as    {receipt.resized_size[0]} x {receipt.resized_size[1]} pixels, {receipt.num_tokens} tokens")
    usage, timings = completion.usage, completion.timings
    rate = usage.completion_tokens / timings.decode if timings.decode else 0
    print(
        f"tokens     {usage.prompt_tokens} read ({usage.image_tokens} of the picture), "
        f"{usage.completion_tokens} written"
    )
    print(
        f"seconds    picture {timings.prepare:.2f}, vision tower {timings.vision:.2f}, prompt {timings.prefill:.2f}, "
        f"answer {timings.decode:.2f} ({rate:.0f} tokens/s)"
    )


# ---------------------------------------------------------------------------------------- printing


def _beside(said: str, truth: str) -> None:
    """Two columns, long lines folded; of an endless answer the beginning, and how much more there is."""
    left, right = (_folded(text) for text in (said, truth))
    if len(left) > LINES:
        left[LINES - 1 :] = [f"... and {len(left) - LINES + 1} more lines"]
    print(f"   {'the model says':<{COLUMN}}the truth\n   {'-' * (COLUMN - 2)}  {'-' * (COLUMN - 2)}")
    for one, other in zip_longest(left, right, fillvalue=""):
        print(f"   {one:<{COLUMN}}{other}".rstrip())


def _folded(text: str) -> list[str]:
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return [piece for line in shown.split("\n") for piece in textwrap.wrap(line, COLUMN - 2) or [""]]


def _listed(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _moments(moments: Any) -> str:
    return "\n".join(f"{start:5.2f} - {end:5.2f} s  {text}" for start, end, text in moments)


def _pixels(box: Any) -> str:
    return ", ".join(f"{value:.0f}" for value in box)


def _near(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def main() -> None:
    parser = argparse.ArgumentParser(description="What qwen3vl does, with the small model or another one.")
    parser.add_argument("picture", nargs="?", help="a picture of your own, instead of the five steps")
    parser.add_argument("question", nargs="?", default="What is in the picture?")
    parser.add_argument("--model", default="small", help="small (default), a folder, or a name on the hub")
    given = parser.parse_args()
    started = time.perf_counter()
    try:
        model = qwen3vl.load(given.model)
    except qwen3vl.Qwen3VLError as error:
        parser.exit(1, f"error: {error}\n")
    millions = sum(weight.numel() for weight in model.model.parameters()) / 1e6
    print(f"{given.model}: {millions:,.1f} million parameters, loaded in {time.perf_counter() - started:.1f} s\n")
    if given.picture:
        ask(model, given.picture, given.question)
    else:
        tour(model)
    print(f"\n{time.perf_counter() - started:.0f} s in all.")
    if given.model != REAL:
        print(
            "\nThe same calls with the real model (4B: 9 GB, downloaded once):\n\n"
            f"   make demo MODEL={REAL}\n"
            f'   qwen3vl chat {_near(MEDIA / "receipt.png")} "What was paid for the coffee?" --model {REAL}\n'
            f'   model = qwen3vl.load("{REAL}")  # in Python'
        )


if __name__ == "__main__":
    main()
