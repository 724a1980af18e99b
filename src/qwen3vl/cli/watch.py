"""`qwen3vl watch`: moments, events and summaries of videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from qwen3vl.cli.options import LookOptions, command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import TaskOptions, media_of
from qwen3vl.errors import InvalidParams

if TYPE_CHECKING:
    from qwen3vl.tasks.video import Watching

SHORTEST_CLIP = 1.0  # seconds around an instant


@command
def watch(
    video: Annotated[str, Argument(metavar="VIDEO", help="A video: file or URL.")],
    question: Annotated[
        str | None, Argument(metavar="[QUESTION]", help="Which moments; without it, all events.")
    ] = None,
    summary: Annotated[bool, Option("--summary", help="Describe the video as text instead.")] = False,
    sheet: Annotated[Path | None, Option(metavar="OUT.png", help="A sheet with a picture of each moment.")] = None,
    srt: Annotated[Path | None, Option(metavar="OUT.srt", help="The moments as SubRip subtitles.")] = None,
    vtt: Annotated[Path | None, Option(metavar="OUT.vtt", help="The moments as WebVTT subtitles.")] = None,
    clips: Annotated[Path | None, Option(metavar="DIR", help="Cut each moment out as a video, without sound.")] = None,
    *,
    options: TaskOptions,
    look: LookOptions,
) -> None:
    """Find moments in a video: start and end in seconds, checked against its length.

    \b
        qwen3vl watch match.mp4 "when does a goal fall?" --sheet goals.png --clips goals
        00:41.20 - 00:47.00  The striker shoots into the left corner.
        qwen3vl watch cooking.mp4 --srt events.srt
        qwen3vl watch cooking.mp4 --summary

    Exit codes: 0 done, 1 the work failed, 2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    if summary and (question or sheet or srt or vtt or clips):
        raise InvalidParams("--summary has no moments: leave out the question, --sheet, --srt, --vtt and --clips")
    params, media = options.params(), media_of(look)
    output.check_drawing(sheet, "--sheet", [video])
    output.check_out(srt, "--srt", [video], ("srt",))
    output.check_out(vtt, "--vtt", [video], ("vtt",))
    output.check_folder(clips, "--clips")
    output.check_video_file(video, local=bool(sheet or clips))
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.subtitles import to_srt, to_vtt
    from qwen3vl.tasks.video import summarize
    from qwen3vl.tasks.video import watch as ask

    with asking(options) as asker:
        if summary:
            found = summarize(asker.generator, video, params=params, media=media)
        else:
            found = ask(asker.generator, video, question, params=params, media=media)
    notes, written = list(found.notes), list[Path]()
    if srt:
        output.save_text(to_srt(found.moments), srt, written)
    if vtt:
        output.save_text(to_vtt(found.moments), vtt, written)
    _cut(found, video, sheet, clips, notes, written)
    if not options.as_json:
        for line in [found.text] if summary else [f"{_span(m.start, m.end)}  {m.text}" for m in found.moments]:
            output.say(line)
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)


def _cut(
    found: Watching, video: str, sheet: Path | None, clips: Path | None, notes: list[str], written: list[Path]
) -> None:
    from qwen3vl.cli.task_output import save_picture
    from qwen3vl.tasks.clips import contact_sheet, cut_clip

    if (sheet or clips) and not found.moments:
        notes.append("there are no moments: no sheet and no clips were made")
        return
    if sheet:
        save_picture(contact_sheet(video, found.moments), sheet, written)
    for number, moment in enumerate(found.moments if clips else (), start=1):
        assert clips is not None
        start, end = moment.start, moment.end
        if end <= start:
            start, end = max(0.0, start - SHORTEST_CLIP / 2), start + SHORTEST_CLIP / 2
            notes.append(f"{_span(moment.start, moment.end)} has no length: the clip is {SHORTEST_CLIP:g} s around it")
        path = clips / f"moment-{number:03d}.mp4"
        cut_clip(video, start, end, path)
        written.append(path)


def _span(start: float, end: float) -> str:
    """41.2, 107.0 -> "00:41.20 - 01:47.00"."""

    def clock(seconds: float) -> str:
        hundredths = round(seconds * 100)
        return f"{hundredths // 6000:02d}:{hundredths % 6000 // 100:02d}.{hundredths % 100:02d}"

    return f"{clock(start)} - {clock(end)}"
