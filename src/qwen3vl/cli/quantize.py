"""`qwen3vl quantize`: a checkpoint with int8 or int4 weights, in a folder that loads at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import check_choice
from qwen3vl.types import SCHEMA_VERSION


@command
def quantize(
    model: Annotated[str, Argument(help="A checkpoint: a folder or a repository name.")],
    out: Annotated[Path, Option(help="A new or empty folder.")],
    to: Annotated[str, Option(help="int4 (a third of bfloat16) or int8 (half of it, nearly without loss).")] = "int4",
    vision: Annotated[str, Option(help="The vision tower: int8, or none to leave it in float32.")] = "int8",
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the checkpoint with quantised weights.

    The folder is mapped into memory when it is loaded: a few milliseconds, and shared between processes.
    """
    check_choice("--to", to, ("int4", "int8"))
    check_choice("--vision", vision, ("int8", "none"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidParams(f"{out}: exists and is not an empty folder")
    from qwen3vl.model.checkpoint import load_model
    from qwen3vl.model.hub import locate
    from qwen3vl.model.quantize import Quantization
    from qwen3vl.model.quantized_folder import quantization_of, save_quantized

    source = locate(model)
    if quantization_of(source) is not None:
        raise InvalidParams(f"{source}: is quantised already; quantise the original checkpoint")
    how = Quantization(8 if to == "int8" else 4, 8 if vision == "int8" else None)
    with Waiting("Quantising") as bar:
        loaded = load_model(source, quantize=how, progress=lambda done, of: bar.stage("Quantising", done, of))
        bar.stage("Writing")
        save_quantized(loaded, how, source, out)
    before, after = (sum(p.stat().st_size for p in f.glob("*.safetensors")) for f in (source, out))
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "folder": str(out), "bytes": after, "bytes_before": before}
        print(json.dumps(document, indent=2))
        return
    print(f"{out}: {to} weights, vision tower {vision}, {after / 1e6:,.0f} MB from {before / 1e6:,.0f} MB")
    print(f'  qwen3vl chat --model {out} photo.jpg "What is in this picture?"')
