"""`qwen3vl bench` on a shrunken model: that it measures, not what."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3vl.bench import measure as measuring
from qwen3vl.bench.measure import Plan
from qwen3vl.cli import bench as command
from tests import models
from tests.contract.cli_runner import Runner

QUICK = ("--prompt", 20, "--steps", 3, "--rounds", 2, "--size", "256x256")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(command, "_set_threads", lambda count: None)
    monkeypatch.setattr(measuring, "Plan", lambda *given: Plan(*given, probe_bytes=1 << 20))
    return Runner(capsys, monkeypatch)


@pytest.mark.parametrize("given", [("--quantize", "int4", "--kv-dtype", "int8"), ()], ids=["int4", "plain"])
def test_random_weights(run: Runner, given: tuple[str, ...]) -> None:
    cut = ("--edition", "2b", "--shrink", "--text-layers", 1, "--vision-layers", 1)
    done = run("bench", "--random", *cut, *QUICK, *given, "--json")
    document = done.document
    assert (done.code, document["weights"]) == (0, "int4" if given else "bfloat16")
    assert document["layers"] == "1 decoder layers, 1 vision blocks"
    for name, units, count in (("prefill", "tokens", 20), ("decode", "tokens", 1), ("vision", "patches", 256)):
        figure = document[name]
        assert figure[units] == count and figure["seconds"] > 0 and figure["share_of_peak"] > 0
        assert figure[f"{units}_per_s"] == pytest.approx(count / figure["seconds"], rel=1e-2)
    parts = document["first_token"]["parts_s"]
    assert 0 < sum(parts.values()) <= document["first_token"]["seconds"]
    assert document["peaks"]["read_gb_per_s"] > 0


def test_a_folder_as_a_table(run: Runner) -> None:
    done = run("bench", "--model", models.folder("4b"), *QUICK)
    assert done.code == 0, done.err
    assert "4 decoder layers, 6 vision blocks, float32 weights" in done.out
    lines = [line.split()[0] for line in done.out.splitlines() if line.endswith("%")]
    assert lines == ["prefill", "decode", "vision", "first"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--edition", "2b"), "--edition needs --random"),
        (("--random", "--model", "m"), "--random excludes --model"),
        (("--random", "--device", "cuda"), "--random excludes --device"),
        (("--random", "--edition", "3b"), "3b"),
        (("--random", "--size", "1024"), "1024x768"),
        (("--random", "--steps", 0), "--steps"),
        (("--random", "--quantize", "int4", "--dtype", "float16"), "float16"),
    ],
)
def test_wrong_usage(run: Runner, arguments: tuple[object, ...], word: str) -> None:
    done = run("bench", *arguments)
    assert done.code == 2 and word in done.err


def test_pictures_differ_and_fit(tmp_path: Path) -> None:
    from PIL import Image

    one, other = (measuring.picture(320, 200, seed) for seed in (0, 1))
    assert one != other
    (tmp_path / "a.jpg").write_bytes(one)
    assert Image.open(tmp_path / "a.jpg").size == (320, 200)
