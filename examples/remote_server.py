"""Ask a model behind any OpenAI-compatible server: a streamed answer, boxes, several pictures at once.

    python examples/remote_server.py BASE_URL MODEL [PICTURE ...]

For example, with a vLLM on this machine (`vllm serve Qwen/Qwen3-VL-4B-Instruct`):

    python examples/remote_server.py http://127.0.0.1:8000/v1 Qwen/Qwen3-VL-4B-Instruct table.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import qwen3vl
from qwen3vl.tasks.grounding import locate

PICTURE = Path(__file__).parent / "media" / "receipt.png"


def main(base_url: str, name: str, pictures: list[str]) -> None:
    with qwen3vl.connect(base_url, name, concurrency=4) as model:
        print(f"{model} understands the {model.dialect.name} dialect.\n")

        question = [qwen3vl.Message("user", (qwen3vl.ImagePart(pictures[0]), qwen3vl.TextPart("What is this?")))]
        for delta in model.stream(question, qwen3vl.SamplingParams(max_tokens=200)):
            print(delta.text, end="", flush=True)
            if delta.completion is not None:
                print(f"\n\n{delta.completion.usage.completion_tokens} tokens\n")

        found = locate(model, pictures[0], "line of text")
        for box in found.boxes:
            print(f"{box.label}: {box.box} in {found.size[0]} x {found.size[1]} pixels")

        title = "Give this picture a title of at most six words."
        requests = [qwen3vl.Request([_ask(title, picture)], id=picture) for picture in pictures]
        for completion in model.generate_many(requests):  # in order, four at a time
            print(f"{completion.id}: {completion.error or completion.text}")


def _ask(question: str, picture: str) -> qwen3vl.Message:
    return qwen3vl.Message("user", (qwen3vl.ImagePart(picture), qwen3vl.TextPart(question)))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or [str(PICTURE)])
