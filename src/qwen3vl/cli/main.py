"""The command line: `qwen3vl COMMAND`. Importing it imports neither torch nor numpy nor Pillow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from qwen3vl import __version__
from qwen3vl.cli.ask import ask
from qwen3vl.cli.bench import bench
from qwen3vl.cli.chat import chat
from qwen3vl.cli.coding import code
from qwen3vl.cli.count import count
from qwen3vl.cli.eval import app as eval_app
from qwen3vl.cli.extract import extract
from qwen3vl.cli.failures import USAGE, report_text
from qwen3vl.cli.investigate import investigate
from qwen3vl.cli.locate import locate
from qwen3vl.cli.locate_3d import locate_3d
from qwen3vl.cli.locate_in_video import locate_in_video
from qwen3vl.cli.parse import parse
from qwen3vl.cli.point import point
from qwen3vl.cli.quantize import quantize
from qwen3vl.cli.random_checkpoint import random_checkpoint
from qwen3vl.cli.read import read
from qwen3vl.cli.train import app as train_app
from qwen3vl.cli.watch import watch

app = typer.Typer(
    help="Qwen3-VL: ask about pictures and videos.",
    rich_markup_mode=None,  # rich costs more than all other imports of --help together
    pretty_exceptions_enable=False,
    add_completion=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "chat": chat,
    "locate": locate,
    "point": point,
    "count": count,
    "locate-3d": locate_3d,
    "read": read,
    "parse": parse,
    "extract": extract,
    "ask": ask,
    "watch": watch,
    "locate-in-video": locate_in_video,
    "code": code,
    "investigate": investigate,
    "quantize": quantize,
    "random-checkpoint": random_checkpoint,
    "bench": bench,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(eval_app, name="eval")
app.add_typer(train_app, name="train")

# typer may carry click inside itself, where it has no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. -> the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an answer may hold what the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    if given[:1] == ["--version"]:
        print(f"qwen3vl {__version__}")
        return 0
    try:
        return app(given or ["--help"], prog_name="qwen3vl", standalone_mode=False) or 0
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        message: str = error.format_message()  # type: ignore[attr-defined]
        where = context.command_path if context is not None else "qwen3vl"
        report_text("UsageError", f"{message} (see {where} --help)", "--json" in given)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
