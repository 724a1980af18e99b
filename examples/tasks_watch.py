"""The events of a video in seconds: as subtitles, as a contact sheet, the first one as a clip.

python examples/tasks_watch.py MODEL VIDEO.mp4 [OUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.clips import contact_sheet, cut_clip
from qwen3vl.tasks.subtitles import to_srt, to_vtt
from qwen3vl.tasks.video import watch


def main(model: qwen3vl.Generator, video: Path, out: Path, duration: float | None = None) -> None:
    seen = watch(model, video, duration=duration)
    for moment in seen.moments:
        print(f"{moment.start:8.2f} - {moment.end:8.2f} s  {moment.text}")
    for note in seen.notes:
        print(f"note: {note}")
    (out / "events.srt").write_text(to_srt(seen.moments), encoding="utf-8")
    (out / "events.vtt").write_text(to_vtt(seen.moments), encoding="utf-8")
    if seen.moments:
        contact_sheet(video, seen.moments).save(out / "sheet.png")
        cut_clip(video, seen.moments[0].start, seen.moments[0].end, out / "first.mp4")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), Path((sys.argv[3:] or ["."])[0]))
