"""Final answers: the option that was chosen, the value that was given, the code that was written.

What is not said plainly is None ("unresolved"): nothing is guessed from the first letter that turns up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(
    r"(?:answer|correct\s+(?:option|choice)|答案|选择|选)\s*(?:is|为|是|选)?\s*(?:option\s+)?[:：]?\s*[*_`\"'(\[（]*\s*"
    r"(?-i:([A-Z]))\b(?!'|(?<=[AI])\s+(?-i:[a-z]))",  # "the answer: A cat" names no option
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*\W*([A-Z])\b[^*\n]{0,80}\*\*\W*\Z")
_ALONE = re.compile(r"^\W*([A-Z])(?:\W*$|\s*[.:)、．]\s*\S)", re.MULTILINE)
_ANSWER = re.compile(
    r"(?:final\s+answer|the\s+answer|answer|答案)\s*(?:is|为|是)?\s*[:：]?\s*(?:\*\*)?\s*(.+?)\s*(?:\*\*)?\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"```[ \t]*([\w+.#-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def without_reasoning(text: str) -> str:
    """What follows the last </think>, for answers that still carry their reasoning."""
    return text.rsplit("</think>", 1)[-1].strip()


def options_of(question: str) -> dict[str, str]:
    """{"A": "chair", ...} of a question that lists its options as "A. chair" or "A) chair" or "(A) chair"."""
    found = re.findall(r"(?:^|[\s(])([A-Z])\s*[.):、．]\s*(.*?)(?=\s+\(?[A-Z]\s*[.):、．]|\n|$)", question)
    return {letter: text.strip().rstrip(".") for letter, text in found}


def final_choice(text: str, options: Mapping[str, str] | None = None) -> str | None:
    """The letter that the answer settles on; None if it settles on none.

    A letter that is said to be the answer counts before one that stands alone; the last one said
    counts. `options` (letter -> text) also lets an answer name its option by text: "a red car." for
    {"A": "red car"}; only if exactly one option is named in the last sentence.
    """
    text = without_reasoning(text)
    allowed = {letter.upper() for letter in options} if options else None
    for pattern in (_BOXED, _SAID, _BOLD, _ALONE):
        letters = [m.upper() for found in pattern.findall(text) if (m := _letter(found))]
        letters = [m for m in letters if allowed is None or m in allowed]
        if letters:
            distinct = set(letters)
            # "A. ..., B. ..., C. ..." line by line goes through the options; it does not choose.
            return None if pattern is _ALONE and len(distinct) > 1 else letters[-1]
    return _by_text(text, options) if options else None


def _letter(found: str) -> str | None:
    match = re.fullmatch(r"\W*(?:\\text\{)?([A-Za-z])\b.{0,80}", found.strip(), re.DOTALL)
    return match[1] if match else None


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    sentences = [s for s in re.split(r"(?<=[.!?。！？])\s+|\n", text) if s.strip()]
    last = _plain(sentences[-1]) if sentences else ""
    named = [letter for letter, option in options.items() if _plain(option) and f" {_plain(option)} " in f" {last} "]
    return named[0].upper() if len(named) == 1 else None


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def final_answer(text: str) -> str | None:
    """The value in \\boxed{...} or behind "answer:", else a text of one line; None if there is none of these."""
    text = without_reasoning(text)
    for pattern in (_BOXED, _ANSWER):
        found = pattern.findall(text)
        if found:
            return str(found[-1]).strip().strip("*").strip() or None
    return text if text and "\n" not in text and len(text) <= 200 else None


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of every fenced block, in order; the last may lack its end."""
    return [(language.lower(), code.rstrip()) for language, code in _CODE.findall(without_reasoning(text))]
