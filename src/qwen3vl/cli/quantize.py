"""`qwen3vl quantize`: a checkpoint with int8 or int4 weights, in a folder that loads at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.settings import check_choice
from qwen3vl.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from qwen3vl.model.calibration import MatrixError


@command
def quantize(
    model: Annotated[str, Argument(help="A checkpoint: a folder or a repository name.")],
    out: Annotated[Path, Option(help="A new or empty folder.")],
    to: Annotated[str, Option(help="int4 (a third of bfloat16) or int8 (half of it, nearly without loss).")] = "int4",
    vision: Annotated[str, Option(help="The vision tower: int8, or none to leave it in float32.")] = "int8",
    calibrate: Annotated[
        list[Path] | None,
        Option(help="A picture, or a .jsonl file of conversations as for training; may be repeated. With int4."),
    ] = None,
    source: Annotated[str, Option(help="Hub of names: huggingface or modelscope.")] = "huggingface",
    revision: Annotated[str | None, Option(help="Branch, tag or commit on the hub.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write the checkpoint with quantised weights.

    \b
        qwen3vl quantize Qwen/Qwen3-VL-4B-Instruct --to int4 --out 4b-int4
        qwen3vl quantize my-model --out my-int4 --calibrate scan1.png --calibrate scan2.png

    The folder is mapped into memory when it is loaded: a few milliseconds, and shared between processes. With
    --calibrate the original model reads those pictures first, and the int4 weights are chosen to do best on them.
    """
    check_choice("--to", to, ("int4", "int8"))
    check_choice("--vision", vision, ("int8", "none"))
    check_choice("--source", source, ("huggingface", "modelscope"))
    from qwen3vl.quantized import quantize as write

    with Waiting("Quantising") as bar:
        done = write(
            model,
            out,
            to=to,  # type: ignore[arg-type]
            vision=None if vision == "none" else "int8",
            calibrate=calibrate or (),
            source=source,  # type: ignore[arg-type]
            revision=revision,
            progress=bar.stage,
        )
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "folder": str(out), "bytes": done.num_bytes}
        document |= {"bytes_before": done.num_bytes_before, "errors": [asdict(error) for error in done.errors]}
        print(json.dumps(document, indent=2))
        return
    size, before = done.num_bytes / 1e6, done.num_bytes_before / 1e6
    print(f"{out}: {to} weights, vision tower {vision}, {size:,.0f} MB from {before:,.0f} MB")
    if done.errors:
        _show_errors(done.errors)
    print(f'  qwen3vl chat --model {out} photo.jpg "What is in this picture?"')


def _show_errors(errors: tuple[MatrixError, ...]) -> None:
    """The mean over the layers, one line for each kind of matrix."""
    kinds: dict[str, list[MatrixError]] = {}
    for error in errors:
        kinds.setdefault(error.name.rpartition(".")[2], []).append(error)
    print("error of the products on what it was calibrated with (root mean square, estimated):")
    for kind, several in kinds.items():
        plain, calibrated = (sum(getattr(e, n) for e in several) / len(several) for n in ("plain", "calibrated"))
        print(f"  {kind:13} {calibrated:.2%} instead of {plain:.2%}")
