"""Results for other tools: JSON, COCO, YOLO, LabelMe, and supervision's Detections.

Frames: COCO and LabelMe count in pixels of the oriented picture, YOLO in parts of its sides (0..1).
Annotation tools that ignore EXIF need pictures whose orientation was applied, or
`coordinates.unorient_box`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from qwen3vl.errors import Qwen3VLError
from qwen3vl.tasks.grounding import Grounding
from qwen3vl.types import SCHEMA_VERSION


def as_json(result: Any) -> dict[str, Any]:
    """Any result of this package as one JSON document: the fields of its dataclasses, and the schema version."""
    return {"schema_version": SCHEMA_VERSION, "kind": type(result).__name__, **_plain(result)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):  # a pydantic object
        return value.model_dump(mode="json")
    if type(value).__module__.startswith("PIL."):
        return {"width": value.width, "height": value.height}  # a picture is saved beside the document, not in it
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def to_coco(results: Mapping[str, Grounding], categories: Sequence[str] | None = None) -> dict[str, Any]:
    """COCO detection format of several pictures, by file name.

    `bbox` is [x, y, width, height] in pixels; ids count from 1 in the order given; `categories`
    fixes theirs, else they come in the order in which labels first appear.
    """
    names = list(categories) if categories is not None else _labels(results.values())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, result) in enumerate(results.items(), start=1):
        images.append({"id": image_id, "file_name": name, "width": result.size[0], "height": result.size[1]})
        for found in result.boxes:
            box = found.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": _index(names, found.label) + 1,
                    "bbox": [box.x1, box.y1, box.width, box.height],
                    "area": box.width * box.height,
                    "iscrowd": 0,
                    "segmentation": [],
                    "attributes": dict(found.attributes),
                }
            )
    listed = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": listed}


def to_yolo(result: Grounding, categories: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """The text of a YOLO label file (class, centre x, centre y, width, height; 0..1) and the class names."""
    names = list(categories) if categories is not None else _labels([result])
    width, height = result.size
    lines = []
    for found in result.boxes:
        centre, box = found.box.centre, found.box
        values = (centre.x / width, centre.y / height, box.width / width, box.height / height)
        lines.append(f"{_index(names, found.label)} " + " ".join(f"{v:.6f}" for v in values))
    return "".join(line + "\n" for line in lines), names


def to_labelme(result: Grounding, image_path: str) -> dict[str, Any]:
    """A LabelMe 5 document beside the picture `image_path`; attributes become `flags`' neighbours in `description`."""
    shapes: list[dict[str, Any]] = [
        {
            "label": found.label,
            "points": [[found.box.x1, found.box.y1], [found.box.x2, found.box.y2]],
            "group_id": None,
            "description": ", ".join(f"{k}: {v}" for k, v in found.attributes.items()),
            "shape_type": "rectangle",
            "flags": {},
        }
        for found in result.boxes
    ]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePath(image_path).name,
        "imageData": None,
        "imageHeight": result.size[1],
        "imageWidth": result.size[0],
    }


def to_supervision(result: Grounding, categories: Sequence[str] | None = None) -> Any:
    """supervision.Detections with xyxy in pixels, class_id, and labels in data["class_name"]."""
    try:
        import numpy as np
        import supervision
    except ImportError as error:
        raise Qwen3VLError("Detections need the package supervision: pip install supervision") from error
    names = list(categories) if categories is not None else _labels([result])
    if not result.boxes:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([found.box.corners for found in result.boxes], dtype=np.float64),
        class_id=np.array([_index(names, found.label) for found in result.boxes]),
        data={"class_name": np.array([found.label for found in result.boxes])},
    )


def _labels(results: Any) -> list[str]:
    return list(dict.fromkeys(found.label for result in results for found in result.boxes))


def _index(names: Sequence[str], label: str) -> int:
    if label not in names:
        raise Qwen3VLError(f"the label {label!r} is not among the categories {list(names)}")
    return list(names).index(label)
