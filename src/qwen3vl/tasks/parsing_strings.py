"""Strings and bare words inside the JSON that models write.

The hard case is a quote inside a string that was not escaped: a quote ends the string only if what
follows fits the place it stands in. Worked example (also a test):
    {"text": "He said "yes", then left", "n": 1}   ->   He said "yes", then left
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Role = Literal["key", "value", "item"]

QUOTES = "\"'“”‘’"
MAX_INNER_QUOTES = 60  # in one string; more means that the quotes cannot be told apart
_CLOSING = {"“": '”"', "”": '”"', "‘": "’'", "’": "’'"}
_QUOTED_KEY = r"[\"'“][^\"'“”\n]{1,80}[\"'”]\s*[:：]"
_BARE_KEY = r"[A-Za-z_]\w*[\"']?\s*:\s*[\"'\[{\d-]"
_CUT_KEY = r"[\"'“][^\"'“”\n]{0,80}[\"'”]?\s*\Z"
KEY_AHEAD = re.compile(rf"\s*(?:{_QUOTED_KEY}|{_BARE_KEY})")
QUOTED_KEY_AHEAD = re.compile(rf"\s*{_QUOTED_KEY}")
_FITS = {
    "key": re.compile(r"\s*[:：=]"),
    "value": re.compile(
        rf"\s*(?:\Z|[}}\])]|[,，]\s*(?:\Z|[{{}}\]]|{_QUOTED_KEY}|{_BARE_KEY}|{_CUT_KEY})|{_QUOTED_KEY}|\n\s*{_BARE_KEY})"
    ),
    "item": re.compile(r"\s*(?:\Z|[}\])]|[,，]\s*(?:\Z|[\"'“{\[\](\d-]|true|false|null|True|False|None)|[:：])"),
}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|.|\Z)", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\", "/": "/", "": ""}
# "\frac" is valid JSON for a form feed and "rac": no text has form feeds, so LaTeX is what was meant.
_LATEX_NAMES = (
    r"(?:[bf][a-zA-Z]{2,}|times|theta|tau|text(?:bf|it|rm)?|tan|triangle|nabla|neq|notin|rho|right(?:arrow)?|rangle)"
    r"(?![a-zA-Z])"
)
_LATEX = re.compile(_LATEX_NAMES)
LATEX_HAZARD = re.compile(rf"(?<!\\)\\{_LATEX_NAMES}")


@dataclass(frozen=True, slots=True)
class StringRead:
    """A string and where reading goes on; `cut` if the text ended inside it."""

    value: str
    end: int
    cut: bool = False
    note: str | None = None


def read_string(text: str, at: int, role: Role) -> StringRead:
    """The string whose opening quote stands at `at`."""
    closing = _CLOSING.get(text[at], text[at])
    step = re.compile(rf"(?:\\.|[^\\{re.escape(closing)}])*", re.DOTALL)
    first_end, position = -1, at + 1
    for inner in range(MAX_INNER_QUOTES):
        end = step.match(text, position).end()  # type: ignore[union-attr]
        if end >= len(text) or text[end] == "\\":
            return _unended(text, at, first_end)
        if _FITS[role].match(text, end + 1):
            return _ended(text, at, end, inner)
        if role != "key" and _opens_key(text, end):
            content = text[at + 1 : end].rstrip(" \t\r\n{}[],")
            return StringRead(unescape(content), at + 1 + len(content), note="a string was not closed")
        first_end = end if first_end < 0 else first_end
        position = end + 1
        if role == "key":
            break
    return StringRead(unescape(text[at + 1 : first_end]), first_end + 1)


def _ended(text: str, at: int, end: int, inner: int) -> StringRead:
    value = unescape(text[at + 1 : end])
    if inner == 1 and len(value) > 1 and value.endswith(text[at]):
        return StringRead(value[:-1], end + 1, note="a quote too many was ignored")
    return StringRead(value, end + 1, note="quotes inside a string were not escaped" if inner else None)


def _unended(text: str, at: int, first_end: int) -> StringRead:
    if first_end >= 0 and "\n" in text[first_end:].strip():
        return StringRead(unescape(text[at + 1 : first_end]), first_end + 1)
    return StringRead(unescape(text[at + 1 :].rstrip("\\")), len(text), cut=True)


def _opens_key(text: str, at: int) -> bool:
    return text[max(0, at - 40) : at].rstrip()[-1:] in tuple("{,") and bool(QUOTED_KEY_AHEAD.match(text, at))


def unescape(text: str) -> str:
    """JSON's escapes resolved; a backslash that escapes nothing stays (LaTeX in `text_content`)."""
    if "\\" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[:1] == "u" and len(code) >= 5:
            units = [int(part, 16) for part in code[1:].replace("\\u", " ").split()]
            return b"".join(u.to_bytes(2, "big") for u in units).decode("utf-16-be", "replace")
        if code in tuple("bftnr") and _LATEX.match(text, match.start() + 1):
            return match.group(0)
        return _SIMPLE.get(code, match.group(0))

    return _ESCAPE.sub(replace, text)
