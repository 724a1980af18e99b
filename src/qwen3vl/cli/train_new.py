"""`qwen3vl train new`: the folder of a new small model, to be trained from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.output import tell
from qwen3vl.cli.waiting import Waiting
from qwen3vl.types import SCHEMA_VERSION


@command
def new(
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A new or empty folder.")],
    size: Annotated[
        str, Option(help="tiny (2 M parameters, for trying things out), small (4 M), medium (10 M) or large (15 M).")
    ] = "small",
    vocab_size: Annotated[
        int | None, Option(help="Tokens, control tokens included [default: 2048; tiny 1024].")
    ] = None,
    seed: Annotated[int, Option(help="Same seed, same weights and tokenizer.")] = 0,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a new small model of the true architecture: random weights, a tokenizer of its own.

    \b
        qwen3vl train new my-model --size tiny
        qwen3vl train run synthetic:count --model my-model --out run --lr 1e-3 --steps 2000
        qwen3vl eval synthetic --tasks count --model run/model

    Its tokenizer learns from the prompts and answers of the synthetic tasks, for which some hundreds of pictures are
    drawn: that takes a minute. Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    with Waiting("Drawing texts") as bar:
        from qwen3vl.train.small import make_small

        notes = make_small(folder, size, vocab_size=vocab_size, seed=seed, progress=bar.stage)
    from qwen3vl.model.checkpoint import find_tensors

    number = sum(tensor.num_bytes for tensor in find_tensors(folder).values()) // 4
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "folder": str(folder), "size": size, "parameters": number}
        print(json.dumps({**document, "notes": list(notes)}, ensure_ascii=False, indent=2))
        return
    for note in notes:
        tell(f"note: {note}")
    print(f"{folder}: {size}, {number / 1e6:.1f} M parameters; it knows nothing yet. Train it:")
    print(f"  qwen3vl train run synthetic:all --model {folder} --out run --lr 1e-3 --steps 20000")
