"""Every example of a capability runs, on a model that replays recorded answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import av
import pytest
from PIL import Image

from qwen3vl.types import ToolCall
from tests.contract.test_rendering import needs_chromium
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"tasks_{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (870, 1398), (200, 190, 180)).save(path)
    return path


Printed = pytest.CaptureFixture[str]


def test_locate(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    script = [
        answer("grounding2d_ex1_dining"),
        answer("thirdparty_grounding2d_15"),
        answer("thirdparty_grounding2d_11"),
    ]
    example("locate").main(FakeGenerator(script), picture, "plate/dish, bowl", tmp_path)
    assert "23 points; 63 counted" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 27
    assert len((tmp_path / "picture.txt").read_text().splitlines()) == 27
    assert Image.open(tmp_path / "boxes.png").size == Image.open(tmp_path / "points.png").size == (870, 1398)


def test_locate_3d(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    example("locate_3d").main(FakeGenerator(answer("3d_11_autonomous_driving")), picture, "cars", tmp_path)
    assert "car: 6.9 m away" in capsys.readouterr().out and (tmp_path / "wireframes.png").exists()


def test_read(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    example("read").main(FakeGenerator(answer("ocr_line_spotting")), picture, tmp_path)
    assert "TAX INVOICE" in capsys.readouterr().out
    assert (tmp_path / "searchable.pdf").read_bytes().startswith(b"%PDF-")


def test_parse(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    for _ in range(2):  # the second time nothing is asked
        example("parse").main(FakeGenerator([answer("docparse_html")]), picture, tmp_path)
    assert capsys.readouterr().out.count("page 1: 41 blocks") == 2
    assert (tmp_path / "table-2.csv").read_text(encoding="utf-8").startswith(",2015A,2016A")
    assert "| YoY(%) | 21.3 |" in (tmp_path / "document.md").read_text(encoding="utf-8")


def test_extract(picture: Path, capsys: Printed) -> None:
    model = FakeGenerator([answer("ocr_kie_receipt"), answer("longdoc_13")])
    example("extract").main(model, picture, picture, "What are the key contributions?")
    printed = capsys.readouterr().out
    assert "UNIHAKKA INTERNATIONAL SDN BHD: RM8.75 on 01 Jun 2018" in printed and "-- pages 1 of 1" in printed


def test_watch(tmp_path: Path, capsys: Printed) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), "red"))))
        container.mux(stream.encode(None))
    example("watch").main(FakeGenerator(answer("video_13_dense_events")), tmp_path / "v.mp4", tmp_path, 30.0)
    printed = capsys.readouterr().out
    assert "23.00 -    30.00 s  trim the fat" in printed and printed.count("dropped") == 8
    assert (tmp_path / "first.mp4").stat().st_size > 0 and "00:00:23,000" in (tmp_path / "events.srt").read_text()


def test_investigate(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    call = ToolCall("image_zoom_in_tool", json.loads(answer("zoom_7_call0")))
    example("investigate").main(FakeGenerator([call, "Southampton."]), picture, "Where?", tmp_path)
    assert "Southampton." in capsys.readouterr().out and (tmp_path / "look-1.png").exists()


@needs_chromium
def test_coding(picture: Path, tmp_path: Path, capsys: Printed) -> None:
    sent = "<mxGraphModel><root><mxCell id='0'/><mxCell id='1' parent='0'/>{}</root></mxGraphModel>"
    cell = "<mxCell id='a' vertex='1' parent='{}'><mxGeometry width='80' height='40' as='geometry'/></mxCell>"
    script = [f"```xml\n{sent.format(cell.format(parent))}\n```" for parent in (9, 1, 1)]
    example("coding").main(FakeGenerator(script), picture, "drawio", tmp_path)
    printed = capsys.readouterr().out
    assert "cell 'a' has the parent '9', which does not exist" in printed and "likeness 0." in printed
    assert "parent='1'" in (tmp_path / "picture.drawio").read_text() and (tmp_path / "picture.png").exists()


def test_screen(picture: Path, capsys: Printed) -> None:
    example("screen").main(FakeGenerator(answer("mobile_7_en")), picture, "Search for Musk")
    assert "Click(at=Pixel(x=389, y=113), button='left', count=1)" in capsys.readouterr().out


def test_none_is_left_out() -> None:
    names = {path.stem.removeprefix("tasks_") for path in EXAMPLES.glob("tasks_*.py")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert names <= tested
