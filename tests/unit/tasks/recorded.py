"""The recorded answers of the real models (tests/fixtures/recorded)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "fixtures" / "recorded"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def recorded(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def answer(name: str) -> str:
    return recorded(name)["output"]


# The broken answer of the food example in omni_recognition: nine entries, the sixth opened twice.
BROKEN_OMNI = """```json
[
	{"bbox_2d": [32, 118, 310, 402], "name_zh": "小笼包", "name_en": "Soup dumplings"},
	{"bbox_2d": [322, 96, 560, 371], "name_zh": "春卷", "name_en": "Spring rolls"},
	{"bbox_2d": [571, 80, 812, 344], "name_zh": "烧卖", "name_en": "Shumai"},
	{"bbox_2d": [820, 101, 990, 366], "name_zh": "虾饺", "name_en": "Shrimp dumplings"},
	{"bbox_2d": [18, 420, 268, 690], "name_zh": "叉烧包", "name_en": "Barbecue pork bun"},
	{
	{"bbox_2d": [280, 404, 520, 672], "name_zh": "肠粉", "name_en": "Rice noodle rolls"},
	{"bbox_2d": [534, 398, 760, 668], "name_zh": "凤爪", "name_en": "Chicken feet"},
	{"bbox_2d": [772, 390, 988, 655], "name_zh": "蛋挞", "name_en": "Egg tarts"},
	{"bbox_2d": [240, 700, 700, 980], "name_zh": "炒面", "name_en": "Fried noodles"}
]
```"""
