"""What the package does, on a machine that has no weights: makes a checkpoint, asks it about a picture.

    python examples/demo.py [PICTURE] [QUESTION]

The checkpoint has the shape of the 2B edition with every width shrunken, and random weights: all that
runs is real, but the words of the answer are noise.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import qwen3vl
from qwen3vl.model.editions import edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint

HERE = Path(__file__).parent
CHECKPOINT = HERE.parent / "out" / "demo-checkpoint"


def main(picture: str, question: str) -> None:
    if not (CHECKPOINT / "config.json").exists():
        print("Writing a checkpoint with random weights: the 2B edition's shape, every width shrunken.")
        write_random_checkpoint(edition("2b", shrink=True), CHECKPOINT)
    started = time.perf_counter()
    model = qwen3vl.load(CHECKPOINT)
    print(f"Loaded in {time.perf_counter() - started:.1f} s.\n\n{picture}\n> {question}\n")

    messages = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
    completion = None
    for delta in model.stream(messages, qwen3vl.SamplingParams(max_tokens=24)):
        print(delta.text, end="", flush=True)
        completion = delta.completion or completion
    assert completion is not None
    print("\n\nThe weights are random, so these words are noise; everything else is as with real weights.\n")
    report(completion)
    print(
        "\nWith the real weights (about 9 GB, downloaded once):\n"
        f'    qwen3vl chat "{picture}" "{question}" --model Qwen/Qwen3-VL-4B-Instruct'
    )


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


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0] if arguments else str(HERE / "media" / "receipt.png"),
        arguments[1] if len(arguments) > 1 else "What was paid for the coffee?",
    )
