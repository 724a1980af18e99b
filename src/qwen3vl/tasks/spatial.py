"""3-D grounding: boxes with nine degrees of freedom, in metres in the camera's frame.

The camera looks along +z, x is right and y is down. The model gives centre, sizes (metres) and three
angles in units of 180 degrees. The prompt calls them roll, pitch, yaw and speaks of radians; the
drawing code of cookbooks/3d_grounding.ipynb multiplies them by 180 to get degrees and turns about x by
the first, about y by the second, about z by the third, in this order: that is followed here.
Intrinsics are not part of the prompt; they only place the boxes in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.asking import ask_once, image_part
from qwen3vl.tasks.coordinates import Point
from qwen3vl.tasks.parsing_entries import Entry, read_entries
from qwen3vl.tasks.pictures import first_picture, picture_size
from qwen3vl.types import Generator, ImagePart, MediaOptions, MediaReceipt, PictureSource, SamplingParams

Metres3 = tuple[float, float, float]
SIGNS = tuple((x, y, z) for x in (1, -1) for y in (1, -1) for z in (1, -1))  # +++, ++-, +-+, ... as the cookbook
EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b).bit_count() == 1)
"""Pairs of corners that differ in one sign: the 12 edges. Corner number = 4, 2, 1 for minus in x, y, z."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera, in pixels of the user's picture: u = fx * X / Z + cx, v = fy * Y / Z + cy."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_fov(cls, size: tuple[int, int], fov: float = 60.0) -> Intrinsics:
        """The cookbook's stand-in for an unknown camera: `fov` degrees across the width and, with a
        focal length of its own, across the height; the centre in the middle."""
        if not 0 < fov < 180:
            raise InvalidParams(f"fov={fov} is outside (0, 180) degrees")
        width, height = size
        scale = 2 * math.tan(math.radians(fov) / 2)
        return cls(width / scale, height / scale, width / 2, height / 2)

    def project(self, corner: Metres3) -> Point | None:
        """Where a point in metres is seen; None behind the camera."""
        x, y, z = corner
        return Point(self.fx * x / z + self.cx, self.fy * y / z + self.cy) if z > 0 else None


@dataclass(frozen=True, slots=True)
class Box3D:
    """A box in the camera's frame: centre and size in metres, angles in degrees about x, then y, then z."""

    centre: Metres3
    size: Metres3
    angles: Metres3

    def corners(self) -> tuple[Metres3, ...]:
        """The eight corners in the order of SIGNS, in metres."""
        turned = []
        for signs in SIGNS:
            local = [sign * side / 2 for sign, side in zip(signs, self.size, strict=True)]
            x, y, z = _rotate(local[0], local[1], local[2], self.angles)
            turned.append((x + self.centre[0], y + self.centre[1], z + self.centre[2]))
        return tuple(turned)


def _rotate(x: float, y: float, z: float, angles: Metres3) -> Metres3:
    """About x, then y, then z. Worked example: 90 degrees about z takes (1, 0, 0) to (0, 1, 0)."""
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in angles)
    y, z = y * cx - z * sx, y * sx + z * cx
    x, z = x * cy + z * sy, -x * sy + z * cy
    return x * cz - y * sz, x * sz + y * cz, z


@dataclass(frozen=True, slots=True)
class LocatedBox3D:
    """A thing in space.

    Attributes:
        label: what it is.
        box: centre, size, angles.
        corners: in metres, in the order of SIGNS.
        projected: the corners in pixels of the user's picture; None when one of them is behind the camera.
        attributes: what else the model said of it.
    """

    label: str
    box: Box3D
    corners: tuple[Metres3, ...]
    projected: tuple[Point, ...] | None
    attributes: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Grounding3D:
    """What `locate_3d` found; the other fields as in grounding.Grounding."""

    boxes: tuple[LocatedBox3D, ...]
    intrinsics: Intrinsics
    size: tuple[int, int]
    raw: str
    notes: tuple[str, ...]
    complete: bool
    receipts: tuple[MediaReceipt, ...] = ()


def locate_3d(
    model: Generator,
    image: PictureSource | ImagePart,
    what: str,
    *,
    intrinsics: Intrinsics | None = None,
    fov: float = 60.0,
    prompt: str | None = None,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Grounding3D:
    """3-D boxes of `what` ("cars"). Without `intrinsics` a camera of `fov` degrees is assumed and noted.

    Raises ParseError if the answer has no boxes of nine numbers and is no empty list.
    """
    picture = image_part(image)
    answer = ask_once(model, [picture, prompt or prompt_3d(what)], params, media)
    entries = read_entries(answer.text)
    size = picture_size(picture.image, first_picture(answer.receipts))
    notes = [*answer.notes, *entries.notes]
    if intrinsics is None:
        notes.append(f"no intrinsics given: drawn as if seen by a camera of {fov:g} degrees")
    camera = intrinsics or Intrinsics.from_fov(size, fov)
    boxes = [_located(entry, camera, notes) for entry in entries.items if entry.kind == "box_3d"]
    if dropped := len(entries.items) - len(boxes):
        notes.append(f"{dropped} entries without nine numbers were dropped")
    return Grounding3D(tuple(boxes), camera, size, entries.raw, tuple(notes), entries.complete, answer.receipts)


def _located(entry: Entry, camera: Intrinsics, notes: list[str]) -> LocatedBox3D:
    n = entry.numbers
    box = Box3D((n[0], n[1], n[2]), (abs(n[3]), abs(n[4]), abs(n[5])), (n[6] * 180, n[7] * 180, n[8] * 180))
    if min(n[3:6]) < 0:
        notes.append(f"{entry.label!r} had a negative size: its amount was taken")
    corners = box.corners()
    seen = [camera.project(corner) for corner in corners]
    projected = tuple(p for p in seen if p is not None)
    return LocatedBox3D(entry.label, box, corners, projected if len(projected) == 8 else None, entry.attributes)


def prompt_3d(what: str) -> str:
    """The cookbook's question."""
    one = what[:-1] if what.endswith("s") and not what.endswith("ss") else what
    return (
        f"Find all {what} in this image. For each {one}, provide its 3D bounding box. The output format required "
        'is JSON: `[{"bbox_3d":[x_center, y_center, z_center, x_size, y_size, z_size, roll, pitch, yaw],'
        '"label":"category"}]`.'
    )
