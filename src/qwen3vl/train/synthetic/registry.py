"""All tasks of the generator by name."""

from __future__ import annotations

import dataclasses
import importlib
from functools import lru_cache

from qwen3vl.errors import InvalidParams
from qwen3vl.train.synthetic.sample import Side, SyntheticSample, Task
from qwen3vl.train.synthetic.sides import rng_of

MODULES: tuple[str, ...] = (
    "beginnings",
    "lines",
    "reading",
    "forms",
    "documents",
    "charts",
    "scenes",
    "scene_questions",
    "true_false",
    "widget_tasks",
    "page_tasks",
    "phone",
    "compare",
    "clips",
    "talk",
    "interviews",
)
"""Modules of this package that hold tasks: each has TASKS: dict[str, Task]."""


@lru_cache(maxsize=1)
def tasks() -> dict[str, Task]:
    """Name -> task, in the order of MODULES; imported when first asked for."""
    found: dict[str, Task] = {}
    for name in MODULES:
        made: dict[str, Task] = importlib.import_module(f"qwen3vl.train.synthetic.{name}").TASKS
        assert not set(made) & set(found), f"{name} repeats {sorted(set(made) & set(found))}"
        found.update(made)
    return found


def task_named(name: str) -> Task:
    """Raises InvalidParams that lists the known names."""
    known = tasks()
    if name not in known:
        raise InvalidParams(f"no synthetic task {name!r}; there are {', '.join(sorted(known))}")
    return known[name]


def make_sample(task: str, side: Side, seed: int, index: int) -> SyntheticSample:
    """Sample `index` of a task: a pure function of its arguments, and of the fonts that are installed."""
    made = task_named(task)(rng_of(side, seed, task, index), side)
    assert made.task == task, (made.task, task)
    return dataclasses.replace(made, key=f"{side}/{task}/{seed}/{index}")
