"""`qwen3vl locate-in-video`: boxes over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import command
from qwen3vl.cli.task_model import asking
from qwen3vl.cli.task_options import PictureLook, TaskOptions
from qwen3vl.errors import InvalidParams


@command
def locate_in_video(
    video: Annotated[str, Argument(metavar="VIDEO", help="A video file.")],
    query: Annotated[str, Argument(metavar="WHAT", help='What to find: "the red car".')],
    fps: Annotated[float, Option(help="Frames to look at per second.")] = 1.0,
    max_frames: Annotated[int, Option(help="More frames than this are an error: take a smaller --fps.")] = 64,
    out: Annotated[Path | None, Option(metavar="OUT.mp4", help="Write the video with the boxes drawn.")] = None,
    *,
    options: TaskOptions,
    look: PictureLook,
) -> None:
    """Follow things through a video: a box for each frame that was looked at.

    \b
        qwen3vl locate-in-video drive.mp4 "the red car" --fps 2 --out boxes.mp4
        1.50 s  red car  120.0 88.4 300.2 190.7

    Boxes are left, top, right, bottom in pixels of the upright frames. Exit codes: 0 done, 1 the work failed,
    2 wrong usage.
    """
    from qwen3vl.cli import task_output as output

    if not fps > 0 or max_frames < 1:
        raise InvalidParams(f"--fps {fps:g} and --max-frames {max_frames} must be above 0")
    params, media = options.params(), look.media()
    output.check_out(out, "--out", [video], ("mp4", "mkv", "mov"))
    output.check_video_file(video, local=True)
    from qwen3vl.tasks.clips import overlay_video, sample_frames
    from qwen3vl.tasks.export import as_json
    from qwen3vl.tasks.video import locate_in_video as ask

    frames, times = sample_frames(video, fps, max_frames)
    with asking(options) as asker:
        found = ask(asker.generator, frames, times, query, params=params, media=media)
        notes, written = list(found.notes), list[Path]()
        if out:
            asker.waiting.stage("Drawing")
            overlay_video(video, found, out)
            written.append(out)
    if not options.as_json:
        output.say_table([(f"{b.time:.2f} s", b.label, output.show_box(b.box)) for b in found.boxes])
        number, seen = output.counted(len(found.boxes), "box", "boxes"), output.counted(len(times), "frame", "frames")
        output.say(f"{number} in {seen} of {video} ({found.size[0]} x {found.size[1]})")
    output.finish(asker, as_json(found), notes, written, as_json=options.as_json)
