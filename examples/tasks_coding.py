"""A screenshot into a web page, a diagram into Draw.io: drawn, compared with the picture and mended.

python examples/tasks_coding.py MODEL PICTURE [html|svg|drawio|matplotlib] [OUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.coding import Target, code

SUFFIXES = {"html": ".html", "svg": ".svg", "drawio": ".drawio", "matplotlib": ".py"}


def main(model: qwen3vl.Generator, picture: Path, target: Target, out: Path) -> None:
    made = code(model, picture, target, rounds=0 if target == "matplotlib" else 2)
    for attempt in made.rounds:
        likeness = "not drawn" if attempt.similarity is None else f"likeness {attempt.similarity:.2f}"
        print(f"round {attempt.number}: {likeness}", *attempt.problems, sep="\n  ")
    file = out / f"{picture.stem}{SUFFIXES[target]}"
    file.write_text(made.source, encoding="utf-8")
    if made.rendering:
        made.rendering.save(file.with_suffix(".png"))
    print(f"{file.name}: {len(made.source)} characters", *made.notes, sep="\n  ")


if __name__ == "__main__":
    target: Target = sys.argv[3] if len(sys.argv) > 3 else "html"  # type: ignore[assignment]
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), target, Path((sys.argv[4:] or ["."])[0]))
