"""Tables as rows of text, from HTML, LaTeX and Markdown, and out as HTML, LaTeX, Markdown, CSV and DataFrame.

A cell that spans rows or columns is repeated in each place it covers, as pandas.read_html does.
"""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qwen3vl.errors import Qwen3VLError


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of equal length, of plain text; the first `header_rows` are the table's head."""

    rows: tuple[tuple[str, ...], ...]
    header_rows: int = 0

    def to_csv(self) -> str:
        """RFC 4180, with "\\n" line ends."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self.rows)
        return out.getvalue()

    def to_html(self) -> str:
        lines = ["<table>"]
        for number, row in enumerate(self.rows):
            tag = "th" if number < self.header_rows else "td"
            lines.append("<tr>" + "".join(f"<{tag}>{html.escape(c, quote=False)}</{tag}>" for c in row) + "</tr>")
        return "\n".join([*lines, "</table>"])

    def to_markdown(self) -> str:
        """A pipe table; without a head of its own the first row serves, as Markdown needs one."""
        cells = [[c.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>") for c in row] for row in self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        if lines:
            lines.insert(1, "|" + " --- |" * len(self.rows[0]))
        return "\n".join(lines)

    def to_latex(self) -> str:
        columns = len(self.rows[0]) if self.rows else 0
        lines = [" & ".join(_latex_escape(c) for c in row) + r" \\ \hline" for row in self.rows]
        return "\n".join([r"\begin{tabular}{|" + "l|" * columns + "}", r"\hline", *lines, r"\end{tabular}"])

    def to_dataframe(self) -> Any:
        """A pandas DataFrame of strings. Needs pandas: pip install "qwen3vl[tables]"."""
        try:
            import pandas
        except ImportError as error:
            raise Qwen3VLError('a DataFrame needs pandas: pip install "qwen3vl[tables]"') from error
        if self.header_rows == 0:
            return pandas.DataFrame(list(self.rows))
        return pandas.DataFrame(list(self.rows[self.header_rows :]), columns=list(self.rows[self.header_rows - 1]))


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as it was written: its text and how many rows and columns it covers."""

    text: str
    rowspan: int = 1
    colspan: int = 1


def grid(rows: Sequence[Sequence[Cell]], header_rows: int = 0) -> Table:
    """The full grid of rows whose cells may span.

    Worked example: [[a(rowspan 2), b], [c]] is a b / a c.
    """
    filled: dict[tuple[int, int], str] = {}
    for y, row in enumerate(rows):
        x = 0
        for cell in row:
            while (y, x) in filled:
                x += 1
            # A span beyond the table's last row, or a loop of digits, must not fill the memory.
            for dy in range(min(cell.rowspan, len(rows) - y)):
                for dx in range(min(cell.colspan, 200)):
                    filled.setdefault((y + dy, x + dx), cell.text)
            x += min(cell.colspan, 200)
    width = max((x for _, x in filled), default=-1) + 1
    return Table(tuple(tuple(filled.get((y, x), "") for x in range(width)) for y in range(len(rows))), header_rows)


# ---------------------------------------------------------------------------------------- HTML

_ROW = re.compile(r"<tr\b[^>]*>(.*?)(?=</tr|<tr\b|</table|</thead|</tbody|\Z)", re.DOTALL | re.IGNORECASE)
_CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)(?=</t[dh]|<t[dh]\b|</tr|\Z)", re.DOTALL | re.IGNORECASE)
_SPAN = re.compile(r"\b(row|col)span\s*=\s*[\"']?(\d{1,4})", re.IGNORECASE)
_NAMES = (
    "html|head|body|div|span|section|article|header|footer|main|figure|figcaption|table|thead|tbody|tfoot|tr|td|th|"
    "caption|colgroup|col|p|h1|h2|h3|h4|h5|h6|ol|ul|li|img|br|hr|b|i|u|s|em|strong|sub|sup|small|code|pre|a|blockquote|title"
)
# Only what is certainly a tag is one: text is not escaped reliably, and "a<b and c>d" is text.
TAG = re.compile(
    rf"<(?P<closing>/?)(?P<name>{_NAMES})(?P<attributes>(?:\s+[\w:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))*)\s*/?>",
    re.IGNORECASE,
)


def plain_text(markup: str) -> str:
    """Text without tags: <br> is a new line, entities resolved. What is no certain tag stays text."""
    markup = re.sub(r"<br\s*/?>", "\n", markup, flags=re.IGNORECASE)
    return html.unescape(TAG.sub("", markup)).strip()


def html_table(markup: str) -> Table:
    """The table in HTML that may lack closing tags or end anywhere."""
    rows: list[list[Cell]] = []
    header_rows = 0
    for match in _ROW.finditer(markup):
        cells = []
        kinds = []
        for kind, attributes, inside in _CELL.findall(match[1]):
            spans = {side.lower(): max(1, int(n)) for side, n in _SPAN.findall(attributes)}
            cells.append(Cell(plain_text(inside), spans.get("row", 1), spans.get("col", 1)))
            kinds.append(kind.lower())
        head = markup.lower().rfind("<thead", 0, match.start()) > markup.lower().rfind("</thead", 0, match.start())
        if cells and header_rows == len(rows) and (head or all(k == "th" for k in kinds)):
            header_rows += 1
        if cells:
            rows.append(cells)
    return grid(rows, header_rows)


# --------------------------------------------------------------------------------------- LaTeX

_TABULAR = re.compile(r"\\begin\{(?:tabular[x*]?|array|longtable)\}")
_RULES = re.compile(r"\\(?:hline|toprule|midrule|bottomrule|cline\{[^}]*\}|cmidrule(?:\([^)]*\))?\{[^}]*\})")
_STYLE = re.compile(r"\\(?:textbf|textit|text|emph|mathbf|mathrm|underline|makecell|shortstack)\{([^{}]*)\}")


def latex_table(source: str) -> Table:
    """The first tabular in LaTeX; the end may be missing."""
    begin = _TABULAR.search(source)
    body = source[begin.end() :] if begin else source
    while begin and (group := re.match(r"\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\[[^\]]*\])", body)):
        body = body[group.end() :]
    body, *ended = re.split(r"\\end\{(?:tabular[x*]?|array|longtable)\}", body, maxsplit=1)
    if not ended:
        body = re.sub(r"\\(?:[a-z]+(?:\{[^{}]*)?)?\Z", "", body)  # a command that the answer ends in
    rows = []
    for line in _split(body, "\\\\"):
        line = _RULES.sub("", line)
        if line.strip():
            rows.append([_latex_cell(cell) for cell in _split(line, "&")])
    return grid(_uncover(rows), 0)


def _split(text: str, mark: str) -> list[str]:
    r"""The text split at `mark` outside braces; "\&" is no "&"."""
    parts, depth, at, start = [], 0, 0, 0
    while at < len(text):
        if text.startswith(mark, at) and depth <= 0:
            parts.append(text[start:at])
            at = start = at + len(mark)
            continue
        if text[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return [*parts, text[start:]]


def _latex_cell(text: str) -> Cell:
    text, rows, columns = text.strip(), 1, 1
    for name in ("multicolumn", "multirow", "multicolumn"):
        match = re.match(
            rf"\\{name}\s*\{{\s*(-?\d{{1,3}})\s*\}}\s*\{{[^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*\}}\s*\{{(.*)\}}\s*$",
            text,
            re.DOTALL,
        )
        if match:
            count, text = max(1, abs(int(match[1]))), match[2].strip()
            rows, columns = (rows, count) if name == "multicolumn" else (count, columns)
    return Cell(_latex_text(text), rows, columns)


def _latex_text(text: str) -> str:
    while (styled := _STYLE.sub(r"\1", text)) != text:
        text = styled
    return re.sub(r"\\([&%$#_{}])", r"\1", text).replace(r"\\", "\n").strip()


def _uncover(rows: list[list[Cell]]) -> list[list[Cell]]:
    """LaTeX leaves empty cells under a \\multirow; HTML, and so `grid`, has none there."""
    covered: dict[tuple[int, int], bool] = {}
    result = []
    for y, row in enumerate(rows):
        kept, x = [], 0
        for cell in row:
            if not (covered.get((y, x)) and not cell.text):
                kept.append(cell)
            for dy in range(1, min(cell.rowspan, len(rows) - y)):
                for dx in range(min(cell.colspan, 200)):
                    covered[y + dy, x + dx] = True
            x += cell.colspan
        result.append(kept)
    return result


def _latex_escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("\n", " ")


# ------------------------------------------------------------------------------------ Markdown


def markdown_table(source: str) -> Table:
    """A pipe table; the row of dashes makes the row before it the head."""
    rows: list[list[Cell]] = []
    header_rows = 0
    for line in source.strip().splitlines():
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if rows and not header_rows and all(re.fullmatch(r":?-+:?", c) for c in cells):
            header_rows = len(rows)
        else:
            rows.append([Cell(c.replace("<br>", "\n")) for c in cells])
    return grid(rows, header_rows)
