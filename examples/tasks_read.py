"""The text of a picture: all of it, its lines with boxes, and a PDF that can be searched.

python examples/tasks_read.py MODEL PICTURE [OUT_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.draw import draw_reading
from qwen3vl.tasks.ocr import read
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.tasks.searchable import write_searchable_pdf


def main(model: qwen3vl.Generator, picture: Path, out: Path) -> None:
    reading = read(model, picture, level="line")
    for line in reading.boxes:
        print(line.text)
    draw_reading(open_picture(picture), reading).image.save(out / "lines.png")
    write_searchable_pdf([(picture, reading)], out / "searchable.pdf")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), Path((sys.argv[3:] or ["."])[0]))
