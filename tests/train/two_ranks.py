"""Run by test_distributed.py under torchrun: train as a JSON description says."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from qwen3vl.train.distributed import joined
from qwen3vl.train.run import TrainRun, train
from qwen3vl.train.settings import TrainSettings


def main() -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")):  # once for all runs
        for name in sys.argv[1:]:
            asked = json.loads(Path(name).read_text())
            go_on = asked.pop("go_on", False)
            for folder in asked.pop("forget", ()):
                shutil.rmtree(folder, ignore_errors=True)
            settings = TrainSettings.from_json(asked.pop("settings"))
            run = TrainRun(**{**asked, "out": Path(asked["out"]), "data": tuple(asked["data"]), "settings": settings})
            train(run, go_on=go_on)


if __name__ == "__main__":
    main()
