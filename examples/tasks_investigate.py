"""A question that needs a closer look: the model zooms in, and what it really looked at is kept.

python examples/tasks_investigate.py MODEL PICTURE "Where was the picture taken?" [OUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.investigation import investigate


def main(model: qwen3vl.Generator, picture: Path, question: str, out: Path) -> None:
    found = investigate(model, picture, question, max_steps=6)
    for number, (look, thought) in enumerate(zip(found.looks, found.thoughts, strict=False), start=1):
        print(f"{number}. {look.label}  {thought}")
        look.image.save(out / f"look-{number}.png")
    print(found.answer or "unresolved")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path((sys.argv[4:] or ["."])[0]))
