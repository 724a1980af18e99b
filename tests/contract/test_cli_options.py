"""Every option arrives where it is honoured; a fake model records what it was asked."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli.options import DEFAULT_MAX_TOKENS, LookOptions, ModelOptions, SamplingOptions
from qwen3vl.errors import ContextTooLong, GenerationError
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import Choice, Completion, Delta, ImagePart, Message, TextPart, VideoPart
from qwen3vl.vlm import load as real_load
from tests.contract.cli_runner import Runner
from tests.fixtures.pictures import scene
from tests.fixtures.videos import constant_clip


class FakeModel:
    """Answers "fine", reasoning "hm"; fails with `failure`, or when more than `room` tokens are asked for."""

    name = "fake"

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.messages: list[Message] = []
        self.params = SamplingParams()
        self.media = MediaOptions()
        self.failure: Exception | None = None
        self.room: int | None = None

    def load(self, model: str, **options: Any) -> FakeModel:
        self.loaded = {"model": model, **options}
        return self

    def stream(self, messages: list[Message], params: SamplingParams, *, media: MediaOptions, progress: Any) -> Any:
        self.messages, self.params, self.media = messages, params, media
        if self.room is not None and (params.max_tokens or 1) > self.room:
            raise ContextTooLong("too long")
        return self._answer()

    def _answer(self) -> Iterator[Delta]:
        yield Delta(reasoning="hm")
        if self.failure is not None:
            raise self.failure
        yield Delta(text="fi")
        yield Delta(text="ne")
        yield Delta(completion=Completion((Choice("fine", "stop", reasoning="hm"),), model=self.name))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    model = FakeModel()
    monkeypatch.setattr("qwen3vl.vlm.load", model.load)
    return model


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    scene(64, 48).save(tmp_path / "a picture.png")
    return tmp_path / "a picture.png"


SAMPLING = {
    "max_tokens": 7,
    "min_tokens": 3,
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 9,
    "min_p": 0.125,
    "presence_penalty": 1.5,
    "frequency_penalty": -0.5,
    "repetition_penalty": 1.25,
    "seed": 11,
    "thinking_budget": 5,
    "loop_guard": "rewind",
}
LOOK = {
    "min_pixels": 5000,
    "max_pixels": 90000,
    "fps": 1.5,
    "num_frames": 6,
    "min_frames": 2,
    "max_frames": 8,
    "total_pixels": 1000000,
    "video_start": 0.5,
    "video_end": 1.5,
    "timestamps": "index",
    "video_markers": "transformers5",
}


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(("name", "value"), SAMPLING.items())
def test_sampling_option(run: Runner, fake: FakeModel, name: str, value: float) -> None:
    assert run("chat", flag(name), value, "hello").code == 0
    expected = {"max_tokens": DEFAULT_MAX_TOKENS} | {name: value}
    assert fake.params == SamplingParams(**expected)


@pytest.mark.parametrize(("name", "value"), LOOK.items())
def test_look_option(run: Runner, fake: FakeModel, name: str, value: Any) -> None:
    assert run("chat", flag(name), value, "hello").code == 0
    assert fake.media == MediaOptions(**{name: value})


def test_flags_and_repeated_options(run: Runner, fake: FakeModel) -> None:
    done = run("chat", "--json", "-n", 3, "--logprobs", "--top-logprobs", 2, "--stop", "a b", "--stop", "c", "hello")
    assert done.code == 0
    assert (fake.params.n, fake.params.logprobs, fake.params.top_logprobs) == (3, True, 2)
    assert fake.params.stop == ("a b", "c")
    run("chat", "--cap-frame-pixels", "hello")
    assert fake.media == MediaOptions(cap_frame_pixels=True)


def test_model_options(run: Runner, fake: FakeModel) -> None:
    given = {"source": "modelscope", "revision": "v1", "device": "cpu", "dtype": "float32", "max_context": 99}
    given |= {"kv_memory": "3GiB", "kv_dtype": "int8", "vision_cache": "9MiB", "attention": "sdpa", "quantize": "int4"}
    words = [word for name, value in given.items() for word in (flag(name), value)]
    run("chat", "--model", "m", *words, "--deterministic", "hello")
    given["deterministic"] = True
    assert {"model": "m", **given}.items() <= fake.loaded.items()
    assert fake.loaded["lazy"] is True
    assert {f.name for f in fields(ModelOptions)} == {"model", "device_map", *given}
    run("chat", "--device-map", "auto", "hello")
    assert fake.loaded["device_map"] == "auto" and fake.loaded["quantize"] is None
    assert set(inspect.signature(real_load).parameters) - {f.name for f in fields(ModelOptions)} == {
        *("policy", "lazy", "progress")  # not for people at a terminal
    }


def test_the_lists_above_are_complete() -> None:
    others = {"preset", "stop", "n", "logprobs", "top_logprobs"}
    assert {f.name for f in fields(SamplingOptions)} == SAMPLING.keys() | others
    assert {f.name for f in fields(LookOptions)} == LOOK.keys() | {"cap_frame_pixels"}


def test_presets_and_what_stands_above_them(run: Runner, fake: FakeModel) -> None:
    run("chat", "--preset", "vl", "hello")
    assert fake.params == SamplingParams.preset("vl")
    run("chat", "--preset", "vl", "--top-k", 5, "--max-tokens", 9, "hello")
    assert fake.params == SamplingParams.preset("vl", top_k=5, max_tokens=9)


def test_a_default_bound_gives_way_to_the_context_and_a_stated_one_does_not(run: Runner, fake: FakeModel) -> None:
    fake.room = 100
    assert run("chat", "hello").code == 0
    assert fake.params.max_tokens is None
    refused = run("chat", "--max-tokens", 101, "hello")
    assert refused.code == 2
    assert "too long" in refused.err


def test_system_and_media_in_order(run: Runner, fake: FakeModel, picture: Path, tmp_path: Path) -> None:
    clip = constant_clip(tmp_path / "clip.mp4", 4)
    disguised = tmp_path / "no ending"
    disguised.write_bytes(picture.read_bytes())
    done = run("chat", "--system", "be brief", clip, picture, "What?", "--image", disguised, "--video", clip)
    assert done.code == 0
    system, user = fake.messages
    assert system == Message("system", (TextPart("be brief"),))
    assert user.content == (
        VideoPart(str(clip)),
        ImagePart(str(picture)),
        ImagePart(str(disguised)),
        VideoPart(str(clip)),
        TextPart("What?"),
    )


def test_question_from_standard_input(run: Runner, fake: FakeModel, picture: Path) -> None:
    assert run("chat", picture, "-", stdin="two\nlines\n").out == "fine\n"
    assert fake.messages[-1].text == "two\nlines"
    empty = run("chat", "-", stdin="\n")
    assert (empty.code, empty.err) == (2, "error: the question is empty\n")


def test_reasoning_is_apart_from_the_answer(run: Runner, fake: FakeModel) -> None:
    assert run("chat", "hello").err == ""  # stderr is no terminal here
    shown = run("chat", "--show-reasoning", "hello")
    assert (shown.out, shown.err) == ("fine\n", "hm\n\n")
    assert run("chat", "--json", "hello").document["reasoning"] == "hm"


@pytest.mark.parametrize(
    "arguments",
    [
        ("chat", "--no-such-option", "hello"),
        ("chat", "--fps", "many", "hello"),
        ("chat", "--temperature", "-1", "hello"),
        ("chat", "--temperature", "nan", "hello"),
        ("chat", "--preset", "nonsense", "hello"),
        ("chat", "--dtype", "float8", "hello"),
        ("chat", "--source", "elsewhere", "hello"),
        ("chat", "--max-context", "0", "hello"),
        ("chat", "--quantize", "int3", "hello"),
        ("chat", "--quantize", "int4", "--device", "cuda", "hello"),
        ("chat", "--quantize", "int4", "--device-map", "auto", "hello"),
        ("locate", "a.png", "cars", "--quantize", "int8", "--dtype", "bfloat16"),
        ("chat", "--attention", "eager", "hello"),
        ("chat", "--device-map", "balanced", "hello"),
        ("chat", "--max-tokens", "0", "hello"),
        ("chat", "--fps", "1", "--num-frames", "3", "hello"),
        ("chat", "--min-pixels", "9", "--max-pixels", "8", "hello"),
        ("chat", "--load", "absent.json", "hello"),
        ("chat", "  "),
        ("chat", "https://example.com/what"),
        ("no-such-command",),
        ("random-checkpoint", "--edition", "3b", "--out", "x"),
        ("random-checkpoint", "--edition", "4b"),
        ("random-checkpoint", "--edition", "4b", "--experts", "8", "--out", "x"),
        ("random-checkpoint", "--edition", "4b", "--text-layers", "0", "--out", "x"),
        ("random-checkpoint", "--edition", "4b", "--dtype", "int8", "--out", "x"),
    ],
)
def test_wrong_usage(run: Runner, fake: FakeModel, arguments: tuple[str, ...]) -> None:
    refused = run(*arguments)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.startswith("error: ")
    assert refused.err.count("\n") == 1
    assert not fake.loaded
    document = run(*arguments, "--json").document if arguments[0] != "no-such-command" else None
    assert document is None or document["error"]["message"]


@pytest.mark.parametrize(
    "arguments", [("chat", "-n", "2", "hello"), ("chat", "--logprobs", "hello"), ("chat", "--json")]
)
def test_what_needs_json_or_a_question(run: Runner, fake: FakeModel, arguments: tuple[str, ...]) -> None:
    refused = run(*arguments, stdin="")
    assert refused.code == 2
    assert "needs" in refused.err
    assert not fake.loaded


def test_a_failed_run_in_both_forms(run: Runner, fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.failure = GenerationError("the run\nbroke")
    failed = run("chat", "hello")
    assert (failed.code, failed.out, failed.err) == (1, "", "error: the run broke\n")
    failed = run("chat", "--json", "hello")
    assert failed.document == {"schema_version": 1, "error": {"type": "GenerationError", "message": "the run broke"}}
    monkeypatch.setenv("QWEN3VL_TRACEBACK", "1")
    assert "Traceback" in run("chat", "hello").err


def test_ctrl_c(run: Runner, fake: FakeModel) -> None:
    fake.failure = KeyboardInterrupt()  # type: ignore[assignment]
    assert run("chat", "hello").code == 130


def test_a_closed_pipe_is_quiet() -> None:
    program = (  # a fake in the place of qwen3vl.vlm saves the import of torch
        "import sys, types; from qwen3vl.types import Choice, Completion, Delta; "
        "stream = lambda *_, **__: (d for d in (Delta('fine'), Delta(completion=Completion((Choice('', 'stop'),))))); "
        "fake = types.SimpleNamespace(load=lambda *_, **__: types.SimpleNamespace(stream=stream)); "
        "sys.modules['qwen3vl.vlm'] = fake; "
        "sys.stdin.read(); from qwen3vl.cli.main import main; sys.exit(main(['chat', 'hello']))"
    )
    pipe = subprocess.PIPE
    chat = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert chat.stdin and chat.stdout and chat.stderr
    chat.stdout.close()
    chat.stdin.close()  # now it begins
    assert chat.stderr.read() == ""
    assert chat.wait() == 141


def test_version(run: Runner) -> None:
    assert run("--version").out == "qwen3vl 0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from qwen3vl.cli.main import main; code = main(sys.argv[1:]); "
        "print([m for m in ('torch', 'numpy', 'PIL', 'rich', 'av', 'tokenizers') if m in sys.modules], code)"
    )
    for arguments in ([], ["--help"], ["chat", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, env=os.environ, check=True
        )
        assert done.stdout.endswith("[] 0\n")
        assert "Usage: qwen3vl" in done.stdout
