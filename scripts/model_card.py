"""Writes measured numbers into the card of the small model; with --check only says whether they are there.

    qwen3vl eval synthetic --model small --count 200 --json > src/qwen3vl/small/results.json
    python scripts/eval_media.py --model small > src/qwen3vl/small/media.json          (where there are real pictures)
    python scripts/model_card.py [--check]

A number stands in the card only between the markers, and only as the JSON and the weights beside it say.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "src" / "qwen3vl" / "small"
RESULTS, MEDIA, WEIGHTS = "results.json", "media.json", "model.safetensors"
ERRORS = ("character_error", "word_error", "time_error")  # less is better
NOT_YET = "Not measured yet."


def card_of(card: str, folder: Path) -> str:
    """The card with the folder's numbers between its markers."""
    for name, shown in (
        ("model", _sizes(folder)),
        ("results", _measured(folder / RESULTS)),
        ("media", _measured(folder / MEDIA)),
    ):
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        parts = re.fullmatch(rf"(.*{re.escape(begin)}\n).*(\n{re.escape(end)}.*)", card, flags=re.DOTALL)
        if parts is None:
            raise SystemExit(f"the card has no place for {name}: {begin} ... {end}")
        card = f"{parts[1]}\n{shown}\n{parts[2]}"
    return card


def _measured(path: Path) -> str:
    return table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else NOT_YET


def _sizes(folder: Path) -> str:
    """What kind of model it is, from its config and the header of its weights."""
    if not (folder / WEIGHTS).is_file():
        return "Its weights are not here yet."
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    with (folder / WEIGHTS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    parameters = sum(math.prod(entry["shape"]) for entry in tensors)
    kinds = ", ".join(sorted({entry["dtype"] for entry in tensors}))
    tower = f"{vision['depth']} blocks of {vision['hidden_size']}"
    decoder = f"{text['num_hidden_layers']} layers of {text['hidden_size']}"
    return (
        "| parameters | vision tower | decoder | vocabulary | weights |\n| ---: | --- | --- | ---: | --- |\n"
        f"| {parameters / 1e6:.1f} M | {tower} | {decoder} | {text['vocab_size']} | "
        f"{kinds}, {(folder / WEIGHTS).stat().st_size / 2**20:.1f} MiB |"
    )


def table(document: Mapping[str, Any]) -> str:
    """The rows of `qwen3vl eval ... --json` as Markdown, and under what they were measured."""
    lines = ["| | measured | 95 % interval | aim | samples |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in document["rows"]:
        cells = [row["name"], _share(row["value"]), f"{_share(row['low'])} - {_share(row['high'])}", _aim(row)]
        lines.append(f"| {' | '.join([*cells, str(row['number'])])} |")
    return "\n".join([*lines, "", _how(document)])


def _how(document: Mapping[str, Any]) -> str:
    seconds = sum(row["seconds"] for row in document["rows"])
    answers = sum(row["number"] for row in document["rows"])
    asked = f"{document['side']} side, seed {document['seed']}, " if "side" in document else ""
    return f"Greedy, {asked}{answers} answers in {seconds:.0f} s."


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _aim(row: Mapping[str, Any]) -> str:
    if row.get("aim") is None:
        return ""
    return f"{'<=' if row['metric'] in ERRORS else '>='} {row['aim']:.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; code 1 if the card says otherwise")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    given = parser.parse_args(arguments)
    path = given.folder / "README.md"
    card = path.read_text(encoding="utf-8")
    wanted = card_of(card, given.folder)
    if given.check:
        if card != wanted:
            print(f"{path} is not what the JSON beside it says: run scripts/model_card.py", file=sys.stderr)
        return int(card != wanted)
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
