"""The shipped small model learns, with adapters and in minutes, to find cells that it has never seen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune_lora.py"


@pytest.mark.slow
def test_cells_are_found_afterwards(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--steps", "150", "--rate", "2e-3", "--out", str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = re.findall(r"^(?:before|after) +\S+ +(\S+)$", out, re.MULTILINE)
    assert float(after) >= float(before) + 0.2, out
