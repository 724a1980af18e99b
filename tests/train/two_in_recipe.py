"""Run by test_recipe.py under torchrun: the short stages in the folder that is given."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from qwen3vl.train.distributed import joined
from qwen3vl.train.recipe import Means, through
from tests.train.test_recipe import SHORT


def main() -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        for stage in SHORT:
            assert through(Path(sys.argv[1]), stage, Means(ranks=ranks), SHORT)


if __name__ == "__main__":
    main()
