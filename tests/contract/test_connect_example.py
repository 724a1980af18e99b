"""examples/remote_server.py against the loopback server."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.fixtures.openai_server import OpenAIServer, Reply, Seen, completion, models, stream_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "remote_server.py"


def test_remote_server(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.body.get("stream"):
            return stream_of("A receipt.")
        asked = seen.body["messages"][-1]["content"][-1]["text"]
        return completion("A title" if "title" in asked else '[{"bbox_2d": [0, 0, 500, 1000], "label": "total"}]')

    example = runpy.run_path(str(EXAMPLE))
    pictures = [str(example["PICTURE"]), str(EXAMPLE.parent / "none.png")]
    with OpenAIServer(answer, models("vllm")) as server:
        example["main"](server.url, "m", pictures)
    shown = capsys.readouterr().out
    assert "understands the vllm dialect" in shown and "A receipt." in shown and "total: Box(" in shown
    assert f"{pictures[0]}: A title" in shown and f"{pictures[1]}: " in shown and "No such file" in shown
