"""From errors to exit codes and messages.

0 done | 1 the work failed | 2 wrong usage | 130 stopped by Ctrl-C | 141 nobody reads the output any more
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from typer import Exit

from qwen3vl.cli.output import tell
from qwen3vl.errors import InvalidRequest, ParseError, Qwen3VLError
from qwen3vl.types import SCHEMA_VERSION

FAILED, USAGE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


@contextmanager
def reporting(as_json: bool = False) -> Iterator[None]:
    """Turn what a command raises on purpose into one line on stderr, and with --json a document on stdout.

    Anything else is a mistake in this package and keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(PIPE_CLOSED) from None
    except Exception as error:
        if not expected(error):
            raise
        raise Exit(report(error, as_json)) from None


def expected(error: Exception) -> bool:
    """Whether this can happen with a package that has no mistake in it: bad input, a full disk, no memory left."""
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's
    return isinstance(error, (Qwen3VLError, OSError)) or out_of_memory


def report(error: Exception, as_json: bool = False) -> int:
    """Print an error; QWEN3VL_TRACEBACK=1 shows where it comes from. -> its exit code."""
    if os.environ.get("QWEN3VL_TRACEBACK") == "1":
        traceback.print_exception(error)
    report_text(type(error).__name__, str(error), as_json, error.raw if isinstance(error, ParseError) else "")
    return USAGE if isinstance(error, InvalidRequest) else FAILED


def report_text(kind: str, message: str, as_json: bool = False, raw: str = "") -> None:
    """`message` in one line, whatever it holds; and the answer of the model that it is about."""
    line = " ".join(message.split()) or kind
    if as_json:
        answer = {"raw": raw} if raw else {}
        document = {"schema_version": SCHEMA_VERSION, "error": {"type": kind, "message": line, **answer}}
        print(json.dumps(document, ensure_ascii=False, indent=2), flush=True)
    elif raw:
        tell(f"The model answered:\n{raw}\n")
    print(f"error: {line}", file=sys.stderr, flush=True)
