"""JSON as models write it: fenced or bare, with slips of the pen, cut off in the middle.

`read_json` finds the JSON in an answer and reads it. What a person would read without doubt is read,
and each mend is said in `notes`. Nothing but ParseError is raised, when there is no JSON at all.
How the doubtful cases are decided (each is a test):

    {{"a": 1}, ...              an object opened twice: one brace is ignored
    {"a": 1, {"a": 2}           a key that the object already has opens the next object
    {"a": 1, "b": 2, "a": 3     the same, with both braces lost
    "a": [1, 2, "b": 3          a name with a colon cannot stand in a list: the list ends before it
    [1, 2                       what is open at the end is closed; a number that the end touches is
                                dropped, for its last digits may be missing; a string is kept as far as it goes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_reader import Reader, has_object, shorten
from qwen3vl.tasks.parsing_strings import unescape

__all__ = ["ReadJson", "has_object", "read_json", "shorten"]

_FENCE = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\r?\n?(.*?)(```|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"[{,]\s*\\\"")
_PLAIN = re.compile(r"[{,]\s*[\"']\w")
_LOOKS_LIKE_JSON = re.compile(r"[{\[]|\"\s*:")


@dataclass(frozen=True, slots=True)
class ReadJson:
    """What was read.

    Attributes:
        value: objects (`Object`), lists, strings, numbers, True, False, None.
        notes: what was mended or dropped, for people.
        complete: False when the answer ended inside a value.
        raw: the whole answer.
    """

    value: Any
    notes: tuple[str, ...]
    complete: bool
    raw: str


def read_json(text: str) -> ReadJson:
    """The JSON in a model's answer: its fenced blocks if there are any, and what stands beside them.

    Several values come as one list. Raises ParseError if there is none.
    """
    notes: list[str] = []
    values: list[Any] = []
    complete = True
    for piece in _pieces(text):
        if _ESCAPED.search(piece) and not _PLAIN.search(piece):
            notes.append("the JSON stood in a string of its own: its escapes were resolved")
            piece = unescape(piece)
        reader = Reader(piece)
        values += reader.top_values()
        notes += reader.notes
        complete = complete and not reader.cut
    if not values:
        raise ParseError(f"no JSON in the answer {shorten(text)}", raw=text)
    if not complete:
        notes.append("the answer ends inside its JSON: the last entry may not be whole")
    value = values[0]
    if len(values) > 1:
        notes.append(f"{len(values)} separate JSON values: read as one list")
        value = [item for v in values for item in (v if isinstance(v, list) else [v])]
    return ReadJson(value, tuple(dict.fromkeys(notes)), complete, text)


def _pieces(text: str) -> list[str]:
    # A closed fence ends in a space, so that a number before it is known to be whole.
    fences = [m[2] + (" " if m[3] else "") for m in _FENCE.finditer(text) if _LOOKS_LIKE_JSON.search(m[2])]
    if not fences:
        return [text.replace("```", "\n")]
    outside = _FENCE.sub("\n", text)
    return fences + ([outside] if re.search(r"\{\s*[\"'“]", outside) else [])
