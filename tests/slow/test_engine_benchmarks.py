"""The engine's benchmarks run, in small widths, and print one JSON document with a ratio."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = {
    "engine_batch.py": ["--new-tokens", "3"],
    "engine_second_question.py": ["--grid", "12", "12"],
    "engine_overhead.py": ["--steps", "3", "--batch", "2"],
    "engine_fairness.py": ["--pages", "3", "--grid", "16", "16", "--seconds", "3"],
    "deterministic.py": ["--prompt", "40", "--batch", "2", "--steps", "3"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_runs(name: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--shrink", "--threads", "1", "--json", *RUNS[name]]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    document = json.loads(out)
    assert document["schema_version"] == 1 and document["ratio"] > 0 and document["edition"] == "2b shrunken"
    if name == "engine_batch.py":
        assert document["same_answers"] == document["requests"] == 16
