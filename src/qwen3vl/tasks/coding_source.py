"""The code in an answer: the last block that is of the kind that was asked for, fenced or bare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_answers import without_reasoning
from qwen3vl.tasks.parsing_json import shorten

Target = Literal["html", "drawio", "matplotlib", "svg"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """languages: what the model writes behind ```; opens, closes: how bare code of this kind begins and ends."""

    languages: tuple[str, ...]
    opens: re.Pattern[str]
    closes: re.Pattern[str] | None


def _markup(names: str, opens: str = "") -> tuple[re.Pattern[str], re.Pattern[str]]:
    opens = opens or rf"<(?:{names})\b(?![^<>]*/>)"
    return re.compile(opens, re.IGNORECASE), re.compile(rf"</(?:{names})\s*>", re.IGNORECASE)


KINDS: dict[Target, _Kind] = {
    "html": _Kind(("html", "htm", "xhtml"), *_markup("html", r"<!DOCTYPE\s+html[^>]*>(?:\s*<html\b)?|<html\b")),
    "drawio": _Kind(("drawio", "xml", "mxgraph", "mxfile"), *_markup("mxfile|mxGraphModel")),
    "svg": _Kind(("svg", "xml"), *_markup("svg", r"(?:<\?xml[^>]*>\s*(?:<!DOCTYPE[^>]*>\s*)?)?<svg\b(?![^<>]*/>)")),
    "matplotlib": _Kind(
        ("python", "py", "python3"), re.compile(r"^(?:import|from)\s+(?:matplotlib|numpy|pandas)\b", re.MULTILINE), None
    ),
}
_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+.#-]*)[^\n]*\n", re.MULTILINE)
_FENCE_END = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """The code; notes say where it was found if not in a block of its own; `complete` is False when it was cut off."""

    text: str
    notes: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    text: str
    start: int  # of the code, in the answer
    closed: bool


def read_source(answer: str, target: Target) -> Source:
    """The code of an answer. Raises ParseError where there is none."""
    text = without_reasoning(answer)
    kind = KINDS[target]
    blocks = list(_blocks(text))
    named = [b for b in blocks if b.language in kind.languages and _fits(b, kind)]
    fitting = named or [b for b in blocks if kind.opens.search(b.text)]
    if not fitting:
        return _bare(text, kind, target, answer)
    block = fitting[-1]
    notes = [] if named else [f"the code stood in a block called {block.language or 'nothing'!r}"]
    if len(fitting) > 1:
        notes.append(f"{len(fitting)} blocks of code: the last one was taken")
    return _whole(block, text, kind, notes)


def _fits(block: _Block, kind: _Kind) -> bool:
    """A block named xml may be of another kind; one named html need not begin with <html>."""
    return bool(block.text.strip()) and (block.language != "xml" or bool(kind.opens.search(block.text)))


def _blocks(text: str) -> Iterator[_Block]:
    at = 0
    while opening := _FENCE.search(text, at):
        ending = _FENCE_END.search(text, opening.end())
        end = ending.start() if ending else len(text)
        yield _Block(opening[1].lower(), text[opening.end() : end].rstrip(), opening.end(), ending is not None)
        at = ending.end() if ending else len(text)


def _whole(block: _Block, text: str, kind: _Kind, notes: list[str]) -> Source:
    """The block; a line of ``` inside a page (a sample of Markdown, say) is not its end."""
    source = block.text
    if kind.closes is None or not kind.opens.search(source):
        return _judged(source, block.closed, notes)
    closings = list(kind.closes.finditer(source))
    if not closings and (later := kind.closes.search(text, block.start)):
        notes.append("the code holds a fence of its own: it was read on to its closing tag")
        return Source(text[block.start : later.end()], tuple(notes), True)
    return _judged(source, bool(closings), notes)


def _judged(source: str, complete: bool, notes: list[str]) -> Source:
    if not complete:
        notes.append("the code ends in the middle: the answer was cut off")
    return Source(source, tuple(notes), complete)


def _bare(text: str, kind: _Kind, target: Target, answer: str) -> Source:
    openings = list(kind.opens.finditer(text))
    if not openings:
        raise ParseError(f"no {target} code in the answer {shorten(text)}", raw=answer)
    if kind.closes is None:  # nothing shows where bare Python ends
        return Source(text[openings[0].start() :].rstrip(), ("the code stood in no block: taken to the end",), True)
    closings = list(kind.closes.finditer(text))
    notes = ["the code stood in no block"]
    if not closings:
        return _judged(text[openings[0].start() :].rstrip(), False, notes)
    start = _start_of_last(openings, closings)
    return Source(text[start : closings[-1].end()], tuple(notes), True)


def _start_of_last(openings: list[re.Match[str]], closings: list[re.Match[str]]) -> int:
    """Where the element that ends with the last closing tag begins; they may nest (mxGraphModel in mxfile)."""
    depth = 0
    events = sorted([(m.start(), -1) for m in closings] + [(m.start(), 1) for m in openings], reverse=True)
    for at, step in events:
        depth -= step
        if step == 1 and depth <= 0:
            return at
    return openings[0].start()
