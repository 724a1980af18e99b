"""Times and events in the answers about videos. Seconds (float) from the start of the video.

"00:23.50" 23.5 · "01:02:03" 3723.0 · "12.5" "12.5s" "<12.5 seconds>" 12.5 · "1m30s" 90.0
"00:23.00 - 00:48.00", "12.5s to 14s", [12.5, 14]   ranges
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_entries import cut_repeats
from qwen3vl.tasks.parsing_json import read_json, shorten

_CLOCK = r"\d{1,4}(?:[:：]\d{1,2}){1,2}(?:[.,]\d+)?"
_UNITS = r"(?:\d+\s*h\s*)?(?:\d+\s*m(?:in)?\s*)?\d+(?:\.\d+)?\s*(?:seconds?|secs?|s\b|秒)"
_ONE = rf"(?:{_CLOCK}|{_UNITS}|\d+(?:\.\d+)?)"
_TIME = re.compile(rf"<?\s*({_ONE})\s*(?:seconds?|secs?|s\b|秒)?\s*>?", re.IGNORECASE)
_SURE = rf"(?:{_CLOCK}|{_UNITS})"
_TO = r"\s*>?\s*(?:-|–|—|~|～|to\b|until\b|and\b|至|到)\s*<?\s*"
_RANGE = re.compile(rf"^\W*({_ONE}){_TO}({_ONE})\s*(?:seconds?|secs?|s\b|秒)?\W*$", re.IGNORECASE)
_LINE = re.compile(
    rf"^\W*(?:from\s+|从)?({_SURE})(?:{_TO}({_ONE})\s*(?:seconds?|secs?|s\b|秒)?)?\W*?[\s:：\-–\]>)*]+(\S.*)$",
    re.IGNORECASE,
)
_SPAN = re.compile(rf"(?<![\d:.])({_SURE})(?:{_TO}({_SURE}))?", re.IGNORECASE)
_CUT_TIME = re.compile(r":\s*[\"'][\d:.\s-]+\Z")
_START = ("start_time", "start", "begin", "start_timestamp", "from", "start_sec", "begin_time")
_END = ("end_time", "end", "finish", "end_timestamp", "to", "end_sec", "stop")
_RANGE_KEYS = ("timestamp", "timestamps", "time", "time_range", "range", "segment", "interval", "moment", "span")
_TEXT = ("event", "description", "text", "caption", "label", "content", "sentence", "activity", "action", "summary")


@dataclass(frozen=True, slots=True)
class Event:
    """What happens from `start` to `end`, in seconds from the start of the video; equal for an instant."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Events:
    """The events of an answer in its order. See `parsing_entries.Entries` for the other fields."""

    items: tuple[Event, ...]
    repeats: int
    notes: tuple[str, ...]
    complete: bool
    raw: str


def parse_time(value: Any) -> float:
    """Seconds. mm:ss.ff and HH:MM:SS(.ff) by the number of colons. Raises ParseError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _TIME.fullmatch(str(value).strip().strip("[]()\"'"))
    if match is None:
        raise ParseError(f"{value!r} is no time", raw=str(value))
    text = match[1].replace("：", ":")
    if ":" in text:
        seconds = 0.0
        for part in text.split(":"):
            seconds = seconds * 60 + float(part.replace(",", "."))
        return seconds
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z秒]?)", text.lower())
    return sum(float(number) * {"h": 3600, "m": 60}.get(unit, 1) for number, unit in parts)


def parse_range(value: Any) -> tuple[float, float]:
    """(start, end) of "a - b", [a, b] or {"start": a, "end": b}; of one time, twice that time. Raises ParseError."""
    if isinstance(value, list) and len(value) in (1, 2):
        return parse_time(value[0]), parse_time(value[-1])
    if isinstance(value, dict):
        ends = [next((value[k] for k in keys if value.get(k) is not None), None) for keys in (_START, _END)]
        if ends[0] is not None:
            return parse_time(ends[0]), parse_time(ends[1] if ends[1] is not None else ends[0])
    match = _RANGE.match(str(value))
    if match:
        return parse_time(match[1]), parse_time(match[2])
    return parse_time(value), parse_time(value)


def read_events(text: str) -> Events:
    """The events of an answer: {"a - b": text}, [{"start_time", "end_time", "event"}], or lines of text.

    Raises ParseError if no time is in it (and it is no empty list).
    """
    notes: list[str] = []
    complete = True
    found: list[Event] = []
    empty = False
    try:
        read = read_json(text)
        notes, complete = list(read.notes), read.complete
        found = list(_walk(read.value, notes))
        empty = read.value in ([], {}) or not complete
    except ParseError:
        pass
    if found and not complete and (not found[-1].text or _CUT_TIME.search(text)):
        notes.append(f"an event that the answer ends in was dropped: {found.pop()}")
    elif not found and not empty:
        found = [] if "{" in text else list(_lines(text)) or list(_prose(text, notes))
    if not found and not empty:
        raise ParseError(f"no times in the answer {shorten(text)}", raw=text)
    items, repeats = cut_repeats(found, lambda e: e)
    if repeats:
        notes.append(f"{repeats} repeated events were cut")
    return Events(tuple(items), repeats, tuple(dict.fromkeys(notes)), complete, text)


def _walk(value: Any, notes: list[str]) -> Iterator[Event]:
    if isinstance(value, list):
        if len(value) == 2 and not any(isinstance(v, (dict, list)) for v in value) and _try_range(value):
            yield Event(*parse_range(value), "")
            return
        for item in value:
            yield from _lines(item) if isinstance(item, str) else _walk(item, notes)
    if not isinstance(value, dict):
        return
    event = _event(value)
    if event:
        yield event
        return
    for key, inner in getattr(value, "pairs", None) or value.items():
        span = _try_range(key)
        if span is not None:
            texts = inner if isinstance(inner, list) else [inner]
            for text in texts:
                yield Event(*span, _text_of(text))
        elif isinstance(inner, (dict, list)):
            yield from _walk(inner, notes)
        elif key in (*_START, *_END, *_RANGE_KEYS):
            notes.append(f"an event was dropped: {key!r} is {inner!r}")


def _event(value: dict[str, Any]) -> Event | None:
    """{"start_time", "end_time", "event"} or {"timestamp": "a - b", "description"}."""
    spans = [value] if any(k in value for k in _START) else [value[k] for k in _RANGE_KEYS if k in value]
    for span in spans:
        if (times := _try_range(span)) is not None:
            return Event(*times, _text_of(value))
    return None


def _text_of(value: Any) -> str:
    if isinstance(value, dict):
        value = next((value[k] for k in _TEXT if isinstance(value.get(k), str)), "")
    return "" if value is None else str(value).strip()


def _try_range(value: Any) -> tuple[float, float] | None:
    try:
        return parse_range(value)
    except ParseError:
        return None


def _prose(text: str, notes: list[str]) -> Iterator[Event]:
    """Times in sentences: "The goal falls at 01:05."; the sentence is the event's text."""
    for line in re.split(r"(?<=[.!?。！？])\s+|\n", text):
        for match in _SPAN.finditer(line):
            notes.append("the times were taken from running text")
            start = parse_time(match[1])
            yield Event(start, parse_time(match[2]) if match[2] else start, line.strip())


def _lines(text: str) -> Iterator[Event]:
    """Lines such as "- 00:23 - 00:48: trims the beef"."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            start = parse_time(match[1])
            yield Event(start, parse_time(match[2]) if match[2] else start, match[3].strip(" *"))
