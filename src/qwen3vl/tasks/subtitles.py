"""Moments as subtitles: SubRip (SRT) and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable

from qwen3vl.tasks.parsing_time import Event

SHORTEST = 0.5  # seconds a cue stays on the screen; players drop cues without length


def to_srt(events: Iterable[Event]) -> str:
    """SubRip: numbered cues, "HH:MM:SS,mmm --> HH:MM:SS,mmm"."""
    return "".join(
        f"{number}\n{_clock(e.start, ',')} --> {_clock(_end(e), ',')}\n{_text(e)}\n\n"
        for number, e in enumerate(events, start=1)
    )


def to_vtt(events: Iterable[Event]) -> str:
    """WebVTT: "HH:MM:SS.mmm --> HH:MM:SS.mmm"; &, < and > are escaped as the format wants."""
    cues = (f"{_clock(e.start, '.')} --> {_clock(_end(e), '.')}\n{_escape(_text(e))}\n\n" for e in events)
    return "WEBVTT\n\n" + "".join(cues)


def _end(event: Event) -> float:
    return max(event.end, event.start + SHORTEST)


def _text(event: Event) -> str:
    # An empty line would end the cue, "-->" would begin another.
    lines = [line.strip() for line in event.text.replace("-->", "->").splitlines() if line.strip()]
    return "\n".join(lines) or "..."


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    """3723.5 -> 01:02:03,500"""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
