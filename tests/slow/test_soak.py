"""A minute of the soak: random requests, aborts, bad media, callers who leave, a cache that is too small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "soak.py"


@pytest.mark.slow
def test_a_minute_of_everything_at_once() -> None:
    """The script checks blocks, memory and every outcome; here, that it really did something of each kind."""
    command = [sys.executable, str(SCRIPT), "--minutes", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    report = json.loads(done.stdout)
    assert (done.returncode, report["wrong"], done.stderr) == (0, [], "")
    assert report["outcomes"]["answered"] > 10 and report["outcomes"]["left"] > 0
    assert report["finished"] > 10 and report["aborted"] > 0
