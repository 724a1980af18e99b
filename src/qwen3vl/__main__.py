"""`python -m qwen3vl`, which torchrun wants."""

import sys

from qwen3vl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
