"""Documents as the model writes them in answer to `qwenvl markdown`, as blocks in reading order.

Markdown with <!-- Image (x1, y1, x2, y2) --> where a picture is and <!-- Table (x1, y1, x2, y2) --> before
each table, which is a LaTeX tabular; pipe and HTML tables are read as well. Coordinates are 0..1000.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from qwen3vl.tasks.coordinates import RelativeBox
from qwen3vl.tasks.parsing_markup import Kind, RawBlock, RawPage, unfence
from qwen3vl.tasks.parsing_tables import html_table, latex_table, markdown_table

_MARK = re.compile(r"<!--\s*([A-Za-z]+)?\s*\(([-\d.\s,]*)\)\s*-->")
_CUT_MARK = re.compile(r"<!?(?:-{1,2}[^>]*)?\Z")
_TABULAR = r"\\begin\{(?P<env>tabular[x*]?|longtable)\}.*?(?:\\end\{(?P=env)\}|\Z)"
_PIECES = re.compile(
    rf"(?P<mark>{_MARK.pattern})|(?P<latex>{_TABULAR})|(?P<html><table\b.*?(?:</table>|\Z))"
    r"|(?P<code>^```.*?(?:^```[ \t]*$|\Z))|(?P<formula>^\$\$.*?(?:\$\$|\Z)|^\\\[.*?(?:\\\]|\Z))"
    r"|(?P<pipes>(?:^[ \t]*\|[^\n]*\|[ \t]*(?:\n|\Z)){2,})",
    re.DOTALL | re.MULTILINE,
)
_KINDS: dict[str, Kind] = {
    "image": "image",
    "table": "table",
    "chart": "chart",
    "formula": "formula",
    "figure": "image",
}


def read_markdown(text: str) -> RawPage:
    """The blocks of a `qwenvl markdown` answer, whole or cut. Never raises."""
    source = unfence(text)
    notes: list[str] = []
    cut = _CUT_MARK.search(source)
    if cut:
        notes.append("the answer ends inside a comment: it was dropped")
        source = source[: cut.start()]
    blocks = list(_blocks(source, notes))
    complete = not cut and not any("never closed" in note for note in notes)
    return RawPage(tuple(blocks), tuple(dict.fromkeys(notes)), complete, text)


def _blocks(source: str, notes: list[str]) -> Iterator[RawBlock]:
    at = 0
    pending: tuple[Kind, RelativeBox | None] | None = None
    for match in _PIECES.finditer(source):
        between = source[at : match.start()]
        if pending and between.strip():  # a mark whose table is missing keeps its place
            yield RawBlock(pending[0], "", pending[1])
            pending = None
        yield from _paragraphs(between)
        at = match.end()
        if match["mark"]:
            if pending:
                yield RawBlock(pending[0], "", pending[1])
            pending = _mark(match["mark"], notes)
            if pending[0] == "image":
                yield RawBlock("image", "", pending[1])
                pending = None
            continue
        yield _piece(match, pending[1] if pending else None, notes)
        pending = None
    if pending:
        yield RawBlock(pending[0], "", pending[1])
    yield from _paragraphs(source[at:])


def _mark(comment: str, notes: list[str]) -> tuple[Kind, RelativeBox | None]:
    match = _MARK.match(comment)
    assert match, comment
    kind = _KINDS.get((match[1] or "image").lower(), "text")
    numbers = [float(n) for n in re.findall(r"-?\d{1,9}(?:\.\d+)?", match[2])]
    if len(numbers) != 4:
        notes.append(f"the place {comment!r} has {len(numbers)} numbers: kept without it")
        return kind, None
    return kind, RelativeBox(*numbers)


def _piece(match: re.Match[str], box: RelativeBox | None, notes: list[str]) -> RawBlock:
    text = match[0].strip()
    if match["code"] or match["formula"]:
        kind: Kind = "code" if match["code"] else "formula"
        if not text[3:].rstrip().endswith(("```", "$$", r"\]")):
            notes.append(f"a {kind} was never closed: the answer was cut off")
        return RawBlock(kind, text, box)
    if match["pipes"]:
        return RawBlock("table", text, box, table=markdown_table(text))
    closed = r"\end{" in text if match["latex"] else "</table>" in text
    if not closed:
        notes.append("a table was never closed: the answer was cut off")
    return RawBlock("table", text, box, table=latex_table(text) if match["latex"] else html_table(text))


def _paragraphs(text: str) -> Iterator[RawBlock]:
    """Paragraphs stand between empty lines; a heading is a line of its own."""
    for part in re.split(r"\n\s*\n|(?m:^(?=#{1,6}\s))", text):
        part = part.strip("\n")
        heading = re.match(r"(#{1,6})\s+([^\n]*)\n?", part)
        if heading:
            yield RawBlock("heading", heading[2].strip().rstrip("#").rstrip(), level=len(heading[1]))
            part = part[heading.end() :]
        if part.strip():
            yield RawBlock("text", part.strip())
