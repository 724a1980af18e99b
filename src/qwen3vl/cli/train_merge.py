"""`qwen3vl train merge`: a checkpoint and its adapter as one plain folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.types import SCHEMA_VERSION


@command
def merge(
    adapter: Annotated[Path, Argument(metavar="ADAPTER", help="A folder with adapter_model.safetensors.")],
    out: Annotated[Path, Argument(metavar="OUT", help="A new or empty folder.")],
    model: Annotated[str | None, Option(help="What was adapted: folder or hub name [the adapter says it].")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Add a LoRA adapter to the weights that it was trained on, and write a checkpoint like any other.

    \b
        qwen3vl train merge run/model merged
        qwen3vl chat --model merged photo.jpg "What is this?"

    Adapters of transformers + peft are as good as those of `qwen3vl train run --lora`.
    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.model.hub import locate
    from qwen3vl.train.lora import base_of, export_merged

    name = model or base_of(adapter)
    export_merged(locate(name), adapter, out)
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "model": str(out), "base": name, "adapter": str(adapter)}
        print(json.dumps(document, indent=2))
    else:
        print(f"{out}: {name} with {adapter} merged")
