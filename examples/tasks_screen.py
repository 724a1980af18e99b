"""One step on a phone: what the model would do, as a typed action in the pixels of the real screen.

python examples/tasks_screen.py MODEL SCREENSHOT.png "Open the settings"
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.agent.actions import mobile_request, read_step
from qwen3vl.tasks.pictures import picture_size


def main(model: qwen3vl.Generator, screenshot: Path, task: str) -> None:
    request = mobile_request(task, screenshot)
    answer = model.generate(request.messages, request.params)
    step = read_step(answer, picture_size(screenshot), "mobile")
    print(f"{step.thought}\n{step.intent}\n{step.action}")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
