"""`qwen3vl train preview`: a sheet of generated samples per task, with the truth drawn in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.settings import check_choice, check_integer
from qwen3vl.types import SCHEMA_VERSION


@command
def preview(
    tasks: Annotated[list[str] | None, Argument(metavar="[TASK]...", help="Names of tasks [all].")] = None,
    out: Annotated[Path, Option(help="Folder for the sheets.")] = Path("out/previews"),
    count: Annotated[int, Option(help="Samples on each sheet.")] = 12,
    side: Annotated[str, Option(help="train, or heldout: what is never trained on.")] = "train",
    seed: Annotated[int, Option(help="Same seed, same samples.")] = 0,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Draw generated samples with their questions, answers and truth, one sheet per task.

    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    check_choice("--side", side, ("train", "heldout"))
    check_integer("--count", count, minimum=1)
    check_integer("--seed", seed, minimum=0)
    from qwen3vl.train.synthetic.preview import write_previews
    from qwen3vl.train.synthetic.sample import Side

    files = write_previews(out, tasks or None, count, seed, cast(Side, side))
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "files": [str(path) for path in files]}, indent=2))
        return
    for path in files:
        print(path)
