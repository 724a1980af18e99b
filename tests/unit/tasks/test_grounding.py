"""locate, point, count: the prompts, the mapping to the user's pixels, and what is exported."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from qwen3vl.errors import (
    InvalidParams,
    MediaDecodeError,
    MediaError,
    MediaForbidden,
    MediaNotFound,
    MediaTooLarge,
    ParseError,
    Qwen3VLError,
)
from qwen3vl.tasks.coordinates import Box, Point
from qwen3vl.tasks.export import as_json, to_coco, to_labelme, to_supervision, to_yolo
from qwen3vl.tasks.grounding import count, locate, locate_prompt, point, point_prompt
from qwen3vl.tasks.pictures import open_picture, picture_size
from qwen3vl.types import Generator, ImagePart, MediaReceipt
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer, recorded


def picture(width: int = 1000, height: int = 500) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def test_the_fake_is_a_generator() -> None:
    assert isinstance(FakeGenerator("x"), Generator)


def test_prompts_are_the_cookbooks() -> None:
    assert locate_prompt("plate/dish, scallop, wine bottle, tv, bowl, spoon, air conditioner, coconut drink, cup, "
                         "chopsticks, person") == recorded("grounding2d_ex1_dining")["prompt"]  # fmt: skip
    assert locate_prompt("vehicle", {"type": "car, bus, truck, bicycle, ...", "color": "vehicle_color"}) == (
        'locate every instance that belongs to the following categories: "vehicle". For each vehicle, report bbox '
        "coordinates, vehicle type and vehicle color in JSON format like this: "
        '{"bbox_2d": [x1, y1, x2, y2], "label": "vehicle", "type": "car, bus, truck, bicycle, ...", '
        '"color": "vehicle_color"}'
    )
    assert point_prompt("the free space on the white table on the right") == recorded("spatial_11")["prompt"]
    assert point_prompt("every person", {"role": "player/referee"}).startswith(
        "Locate every person with points, report their point coordinates and role(player/referee) in JSON format like"
    )
    with pytest.raises(InvalidParams):
        locate_prompt(" , ")


def test_locate_maps_the_recording_to_the_users_pixels() -> None:
    model = FakeGenerator(answer("grounding2d_ex1_dining"))
    found = locate(model, picture(640, 479), "plate/dish, scallop")
    assert len(found.boxes) == 27 and found.size == (640, 479) and not found.notes and found.complete
    assert found.boxes[0].label == "plate/dish"
    assert found.boxes[0].box == Box(74 * 640 / 1000, 361 * 479 / 1000, 324 * 640 / 1000, 808 * 479 / 1000)
    assert isinstance(model.parts[0], ImagePart) and "plate/dish, scallop" in model.prompt
    assert found.raw == answer("grounding2d_ex1_dining")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    picture(400, 300).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_by_receipt_and_by_header_agree(orientation: int) -> None:
    receipt = MediaReceipt("image", "x", "", (400, 300), (384, 288), (1, 18, 24), 108, orientation)
    want = (300, 400) if orientation >= 5 else (400, 300)
    assert picture_size(turned(orientation), receipt) == picture_size(turned(orientation)) == want
    assert open_picture(turned(orientation)).size == want
    reply = '[{"bbox_2d": [0, 0, 500, 1000], "label": "a"}]'
    found = locate(FakeGenerator(reply, receipts=[receipt]), "https://example.com/a.jpg", "a")
    assert found.boxes[0].box == Box(0, 0, want[0] / 2, want[1]) and found.receipts == (receipt,)


def test_where_pictures_come_from(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    Image.new("LA", (3, 2), (0, 0)).save(path)
    assert open_picture(path).getpixel((0, 0)) == (255, 255, 255)
    assert (
        picture_size(path.as_uri()) == picture_size(str(path)) == picture_size(np.zeros((2, 3, 3), np.uint8)) == (3, 2)
    )
    with pytest.raises(MediaNotFound, match="nowhere"):
        picture_size("nowhere.png")
    with pytest.raises(MediaForbidden, match="download"):
        picture_size("https://example.com/a.png")


def test_real_exif_pictures_look_the_same(media: Path) -> None:
    for shape in ("Landscape", "Portrait"):
        files = sorted((media / "pictures" / "exif_orientation").rglob(f"*{shape}_[1-8].*"))
        assert len(files) >= 8
        sizes = {picture_size(f) for f in files}
        assert len(sizes) == 1 and {open_picture(f).size for f in files} == sizes


def test_damaged_pictures_are_media_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    picture(64, 64).save(out, "PNG")
    for cut in range(1, len(out.getvalue()), 7):
        with contextlib.suppress(MediaError):
            open_picture(out.getvalue()[:cut])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaTooLarge):
        open_picture(out.getvalue())
    with pytest.raises(MediaDecodeError, match="no picture"):
        open_picture(b"text")


def test_mends_are_noted() -> None:
    reply = '[{"bbox_2d": [600, 10, 400, 1010], "label": "a"}, {"point_2d": [1, 2], "label": "b"}]'
    found = locate(FakeGenerator(reply), picture(), "a")
    assert found.boxes[0].box == Box(400, 5, 600, 500) and len(found.boxes) == 1
    assert ["no box" in found.notes[0], "swapped" in found.notes[1], "outside" in found.notes[2]] == [True] * 3
    cut = locate(
        FakeGenerator('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox', finish_reason="length"), picture(), "a"
    )
    assert not cut.complete and "max_tokens" in cut.notes[0] and len(cut.boxes) == 1


def test_points_and_attributes() -> None:
    found = point(
        FakeGenerator(answer("thirdparty_grounding2d_15")), picture(3840, 2160), "players", attributes=["role"]
    )
    assert len(found.points) == 23 and found.points[0].point == Point(40 * 3.84, 625 * 2.16)
    assert found.points[9].attributes["role"] == "referee"
    boxes = point(FakeGenerator('[{"bbox_2d": [0, 0, 100, 100]}]'), picture(), "x")
    assert boxes.points[0].point == Point(50, 25) and "centre" in boxes.notes[0]
    xml = point(FakeGenerator('<points x1="500" y1="500">pin</points>'), picture(), "pin", prompt="as XML")
    assert xml.points[0].point == Point(500, 250) and xml.points[0].label == "pin"


def test_count_has_its_evidence() -> None:
    counted = count(FakeGenerator(answer("thirdparty_grounding2d_11")), picture(), "car, bus")
    assert counted.number == 63 == len(counted.grounding.boxes)
    assert count(FakeGenerator("[]"), picture(), "car").number == 0
    with pytest.raises(ParseError):
        count(FakeGenerator("I cannot see any."), picture(), "car")


REPLY = (
    '[{"bbox_2d": [100, 200, 300, 600], "label": "a", "color": "red"}, {"bbox_2d": [0, 0, 1000, 1000], "label": "b"}]'
)


def test_exports() -> None:
    found = locate(FakeGenerator(REPLY), picture(), "a, b")
    coco = to_coco({"x.png": found})
    assert coco["images"] == [{"id": 1, "file_name": "x.png", "width": 1000, "height": 500}]
    assert coco["annotations"][0]["bbox"] == [100, 100, 200, 200] and coco["annotations"][0]["area"] == 40000
    assert [a["category_id"] for a in coco["annotations"]] == [1, 2] and coco["categories"][1]["name"] == "b"
    text, names = to_yolo(found)
    assert text == "0 0.200000 0.400000 0.200000 0.400000\n1 0.500000 0.500000 1.000000 1.000000\n" and names == [
        "a",
        "b",
    ]
    labelme = to_labelme(found, "folder/x.png")
    assert labelme["imagePath"] == "x.png" and labelme["shapes"][0]["points"] == [[100, 100], [300, 300]]
    assert labelme["shapes"][0]["description"] == "color: red"
    with pytest.raises(Qwen3VLError, match="'b' is not among"):
        to_yolo(found, ["a"])
    document = json.loads(json.dumps(as_json(found)))
    assert document["schema_version"] == 1 and document["boxes"][0]["box"] == {
        "x1": 100,
        "y1": 100,
        "x2": 300,
        "y2": 300,
    }


def test_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    found = locate(FakeGenerator(REPLY), picture(), "a, b")
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(Qwen3VLError, match="pip install supervision"):
        to_supervision(found)
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=lambda **fields: fields))
    fields = to_supervision(found)
    assert fields["xyxy"].tolist() == [[100, 100, 300, 300], [0, 0, 1000, 500]]
    assert fields["class_id"].tolist() == [0, 1] and fields["data"]["class_name"].tolist() == ["a", "b"]
