"""Boxes, points and a count in the pixels of a picture, a drawing of them, and files for other tools.

python examples/tasks_locate.py MODEL PICTURE "red cars, people" [OUT_FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.draw import draw_grounding, draw_points
from qwen3vl.tasks.export import as_json, to_coco, to_yolo
from qwen3vl.tasks.grounding import count, locate, point
from qwen3vl.tasks.pictures import open_picture


def main(model: qwen3vl.Generator, picture: Path, what: str, out: Path) -> None:
    found = locate(model, picture, what, attributes=["color"])
    for thing in found.boxes:
        x1, y1, x2, y2 = (round(v) for v in thing.box.corners)
        print(f"{thing.label:20} {x1:5} {y1:5} {x2:5} {y2:5}  {dict(thing.attributes)}")
    draw_grounding(open_picture(picture), found).image.save(out / "boxes.png")
    (out / "boxes.json").write_text(json.dumps(as_json(found), ensure_ascii=False, indent=1), encoding="utf-8")
    (out / "coco.json").write_text(json.dumps(to_coco({picture.name: found})), encoding="utf-8")
    (out / f"{picture.stem}.txt").write_text(to_yolo(found)[0], encoding="utf-8")

    places = point(model, picture, what)
    draw_points(open_picture(picture), places).image.save(out / "points.png")
    print(f"{len(places.points)} points; {count(model, picture, what).number} counted")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path((sys.argv[4:] or ["."])[0]))
