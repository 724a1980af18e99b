"""Boxes in space, in metres, drawn as wireframes.

python examples/tasks_locate_3d.py MODEL PICTURE cars [OUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.draw import draw_3d
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.tasks.spatial import Intrinsics, locate_3d

# Of the car camera of cookbooks/3d_grounding.ipynb; leave it out to assume a camera of 60 degrees.
CAMERA = Intrinsics(fx=1266.417, fy=1266.417, cx=816.267, cy=491.507)


def main(model: qwen3vl.Generator, picture: Path, what: str, out: Path) -> None:
    found = locate_3d(model, picture, what, intrinsics=CAMERA)
    for thing in found.boxes:
        distance = sum(v * v for v in thing.box.centre) ** 0.5
        print(f"{thing.label}: {distance:.1f} m away, sizes {thing.box.size} m")
    draw_3d(open_picture(picture), found).image.save(out / "wireframes.png")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path((sys.argv[4:] or ["."])[0]))
