"""`qwen3vl train check`: every bad line of a training file, and what is learnt of a good one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option

from qwen3vl.cli.failures import FAILED
from qwen3vl.cli.options import LookOptions, command
from qwen3vl.cli.waiting import Waiting
from qwen3vl.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from qwen3vl.train.checking import CheckedExample, Summary
    from qwen3vl.train.examples import Encoder


@command
def check(
    data: Annotated[list[Path], Argument(metavar="DATA...", help="JSONL files, or JSON lists.")],
    model: Annotated[
        str | None, Option(help="Folder or hub name whose tokenizer and template count [those of the 4B Instruct].")
    ] = None,
    data_root: Annotated[
        Path | None, Option(help="Folder that names of pictures and videos start from [the data file's own].")
    ] = None,
    quick: Annotated[bool, Option("--quick", help="Read only the headers of pictures and videos.")] = False,
    tokens_per_batch: Annotated[int | None, Option(help="Longer conversations are bad.")] = None,
    ignore_key: Annotated[list[str] | None, Option(help="A key that means nothing; may be repeated.")] = None,
    show: Annotated[int, Option(help="How many conversations to show with their masks.")] = 1,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
    *,
    look: LookOptions,
) -> None:
    """Check training data: name every bad line, count the rest, and show what is learnt.

    What is learnt is green where there are colours, and stands between [[ and ]] where there are none.
    Exit codes: 0 all lines are good, 1 some are bad, 2 wrong usage.
    """
    from qwen3vl.train.checking import Summary, check_file

    encoder = _encoder(model, look)
    summary = Summary()
    bad: list[CheckedExample] = []
    shown: list[CheckedExample] = []
    with Waiting("Checking") as bar:
        for path in data:
            for checked in check_file(
                path,
                encoder,
                root=data_root,
                ignored_keys=tuple(ignore_key or ()),
                decode=not quick,
                max_tokens=tokens_per_batch,
            ):
                summary.add(checked)
                bar.stage(f"Checking {path.name}: {summary.conversations + summary.bad}")
                if checked.error is not None:
                    bad.append(checked)
                elif len(shown) < show:
                    shown.append(checked)
    if as_json:
        print(json.dumps(_document(summary, bad), ensure_ascii=False, indent=2))
    else:
        _print(summary, bad, shown, encoder)
    if bad:
        raise Exit(FAILED)


def _encoder(model: str | None, look: LookOptions) -> Encoder:
    from qwen3vl.model.hub import locate
    from qwen3vl.model.random_checkpoint import ASSETS
    from qwen3vl.processor.processor import Processor
    from qwen3vl.train.examples import Encoder

    return Encoder(Processor.from_folder(ASSETS if model is None else locate(model)), look.media())


def _print(summary: Summary, bad: list[CheckedExample], shown: list[CheckedExample], encoder: Encoder) -> None:
    from rich.console import Console
    from rich.text import Text

    from qwen3vl.train.checking import masked_text

    console = Console(highlight=False, soft_wrap=True)
    for checked in shown:
        assert checked.example is not None
        text = Text()
        for piece, learnt in masked_text(encoder(checked.example), encoder.processor.tokenizer):
            plain = learnt and not console.is_terminal
            text.append(f"[[{piece}]]" if plain else piece, style="bold green" if learnt else "dim")
        console.print(Text(f"{checked.where}: {checked.tokens} tokens, {checked.labels} of them learnt", style="bold"))
        console.print(text)
    for checked in bad:
        console.print(Text(f"bad: {checked.error}", style="red"))
    for line in _summary_lines(summary):
        console.print(Text(line))


def _summary_lines(summary: Summary) -> list[str]:
    lines = [
        f"{summary.conversations:,} good conversations, {summary.bad:,} bad lines",
        f"{summary.tokens:,} tokens, {summary.labels:,} of them learnt; {summary.pictures:,} pictures, "
        f"{summary.videos:,} videos",
    ]
    if summary.longest is not None:
        lines.append(f"longest: {summary.longest.tokens:,} tokens ({summary.longest.where})")
    return lines


def _document(summary: Summary, bad: list[CheckedExample]) -> dict[str, Any]:
    counts = asdict(summary)
    longest = summary.longest
    counts["longest"] = None if longest is None else {"where": longest.where, "tokens": longest.tokens}
    errors = [{"where": checked.where, "error": checked.error} for checked in bad]
    return {"schema_version": SCHEMA_VERSION, **counts, "errors": errors}
