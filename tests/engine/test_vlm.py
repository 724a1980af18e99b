"""The handle: loading, asking in every form, and refusals that come before any model work."""

from __future__ import annotations

import asyncio
import inspect
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import qwen3vl
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.errors import (
    CheckpointNotFound,
    ContextTooLong,
    InvalidMessage,
    InvalidParams,
    MediaDecodeError,
    MediaForbidden,
    MediaNotFound,
    MediaTooLarge,
    UnsupportedOption,
    WeightsError,
)
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.types import Completion, Generator, ImagePart, Message, Request, SamplingParams, TextPart
from qwen3vl.vlm import VLM
from tests import models

BLOCK = EngineSettings().block_size
SHORT = SamplingParams(max_tokens=4)


@pytest.fixture(scope="module")
def model() -> VLM:
    return qwen3vl.load(models.folder("4b"), device="cpu")


@pytest.fixture(scope="module")
def unloadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose weights cannot be read: whoever needs them fails."""
    folder = tmp_path_factory.mktemp("unloadable") / "model"
    shutil.copytree(models.folder("4b"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"these are no weights")
    return folder


def png(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


# ------------------------------------------------------------------------------------------ protocol


def test_it_is_a_generator(model: VLM) -> None:
    assert isinstance(model, Generator)


@pytest.mark.parametrize("name", [n for n in vars(Generator) if not n.startswith("_")])
def test_its_methods_take_what_generators_take(name: str) -> None:
    """More options may be taken, by name and with a default; the others stand in the same order."""
    asked = inspect.signature(getattr(Generator, name)).parameters
    mine = inspect.signature(getattr(VLM, name)).parameters
    assert [p for p in mine if p in asked] == list(asked)
    for key, parameter in mine.items():
        if key in asked:
            assert (parameter.kind, parameter.default) == (asked[key].kind, asked[key].default), key
        else:
            assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty, key


# -------------------------------------------------------------------------------------------- asking


def test_chat_is_generate_with_the_cards_order(model: VLM) -> None:
    """Pictures, then the question, behind the system prompt."""
    reply = model.chat("What?", images=[png(seed=1), png(seed=2)], system="Be brief.", max_tokens=5)
    parts = (ImagePart(png(seed=1)), ImagePart(png(seed=2)), TextPart("What?"))
    messages = [Message("system", (TextPart("Be brief."),)), Message("user", parts)]
    assert reply.token_ids == model.generate(messages, SamplingParams(max_tokens=5)).token_ids
    assert reply.usage.prompt_tokens == model.count_tokens(messages)
    assert reply.model == str(models.folder("4b"))


def test_chat_goes_on_from_a_history(model: VLM) -> None:
    first = model.chat("What?", images=[png()], max_tokens=4)
    question = Message("user", (ImagePart(png()), TextPart("What?")))
    second = model.chat("And now?", history=[question, first.as_message()], max_tokens=4)
    messages = [question, first.as_message(), Message("user", (TextPart("And now?"),))]
    assert second.token_ids == model.generate(messages, SHORT).token_ids
    assert second.usage.cached_tokens >= first.usage.prompt_tokens // BLOCK * BLOCK  # prefixes are whole blocks
    assert second.receipts[0].cache in ("prefix", "vision")


def test_settings_by_name(model: VLM) -> None:
    assert len(model.chat("Go.", preset="vl", max_tokens=3, seed=1).token_ids) == 3
    with pytest.raises(InvalidParams, match=r"max_token.*the settings are preset, temperature"):
        model.chat("Go.", max_token=3)
    with pytest.raises(InvalidParams, match="give params or max_tokens"):
        model.chat("Go.", params=SHORT, max_tokens=3)
    with pytest.raises(InvalidParams, match="are lists"):
        model.chat("Go.", images="a.png")  # type: ignore[arg-type]


def test_many_keep_their_order_and_their_errors(model: VLM, tmp_path: Path) -> None:
    requests = [
        Request("One.", SHORT, id="a"),
        Request([Message("user", (ImagePart(tmp_path / "none.png"),))], SHORT, id="b"),
        Request([{"role": "user", "content": "Two.", "colour": 1}], SHORT, id="c"),
        Request("Three.", SamplingParams(max_tokens=2), id="d"),
        Request("Four.", SamplingParams(regex="a")),
    ]
    replies = list(model.generate_many(iter(requests)))
    assert [reply.id for reply in replies] == ["a", "b", "c", "d", None]
    errors = [None, MediaNotFound, InvalidMessage, None, UnsupportedOption]
    assert [reply.error and type(reply.error) for reply in replies] == errors
    assert [len(replies[i].token_ids) for i in (0, 3)] == [4, 2]
    with pytest.raises(MediaNotFound, match=r"none\.png"):
        _ = replies[1].text


def test_what_is_streamed(model: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for pieces reads along; who asks for a Completion waits for the end."""
    streamed: list[bool] = []
    add = Engine.add

    def noted(engine: Engine, work: Work) -> None:
        streamed.append(work.streamed)
        add(engine, work)

    monkeypatch.setattr(Engine, "add", noted)

    async def asynchronous() -> None:
        await model.agenerate("Write.", SHORT)
        async for _ in model.astream("Write.", SHORT):
            pass

    model.generate("Write.", SHORT)
    model.chat("Write.", params=SHORT)
    list(model.generate_many([Request("Write.", SHORT)]))
    assert streamed == [False] * 3
    list(model.stream("Write.", SHORT))
    asyncio.run(asynchronous())
    assert streamed[3:] == [True, False, True]


def test_without_blocking_the_event_loop(model: VLM) -> None:
    async def both() -> tuple[Completion, list[Any], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        whole = await model.agenerate("Write.", SHORT)
        pieces = [piece async for piece in model.astream("Write.", SHORT)]
        ticking.cancel()
        return whole, pieces, ticks

    whole, pieces, ticks = asyncio.run(both())
    assert whole.text == "".join(piece.text for piece in pieces) == pieces[-1].completion.text
    assert len(whole.token_ids) == 4 and ticks > 4


def test_many_tasks_at_once(model: VLM) -> None:
    async def ask() -> list[Completion]:
        return list(await asyncio.gather(*(model.agenerate(f"Number {i}.", SHORT) for i in range(4))))

    alone = [model.generate(f"Number {i}.", SHORT).token_ids for i in range(4)]
    assert [reply.token_ids for reply in asyncio.run(ask())] == alone


# ------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"quantize": "int3"}, InvalidParams),
        ({"quantize": "int8", "dtype": "bfloat16"}, UnsupportedOption),
        ({"quantize": "int4", "device_map": "auto"}, UnsupportedOption),
        ({"attention": "eager"}, UnsupportedOption),
        ({"max_context": 0}, InvalidParams),
        ({"kv_memory": "much"}, InvalidParams),
        ({"kv_dtype": "int4"}, InvalidParams),
    ],
)
def test_options_that_cannot_be_honoured_are_named(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=str(next(iter(option)))):
        qwen3vl.load(models.folder("4b"), **option)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        qwen3vl.load(tmp_path / "none")


def test_dtype() -> None:
    handle = qwen3vl.load(models.folder("4b"), device="cpu", dtype="bfloat16")
    assert handle.model.dtype == torch.bfloat16
    assert len(handle.chat("What?", images=[png()], max_tokens=3).token_ids) == 3


def test_the_prompt_and_the_answer_fit_max_context() -> None:
    handle = qwen3vl.load(models.folder("4b"), device="cpu", max_context=40)
    num_tokens = handle.count_tokens("Write.")
    reply = handle.generate("Write.", SamplingParams(ignore_eos=True))  # no max_tokens: to the end of the context
    assert num_tokens + len(reply.token_ids) == 40 and reply.finish_reason == "length"
    with pytest.raises(ContextTooLong, match=f"{num_tokens} tokens .* {41 - num_tokens}: together 41, .* holds 40"):
        handle.generate("Write.", SamplingParams(max_tokens=41 - num_tokens))


# --------------------------------------------------------------------- refusals before any model work


BAD: dict[str, tuple[Callable[[Path], Any], type[Exception]]] = {
    "missing": (lambda folder: folder / "none.png", MediaNotFound),
    "a folder": (lambda folder: folder, MediaNotFound),
    "empty": (lambda folder: write(folder, "a.png", b""), MediaDecodeError),
    "text": (lambda folder: write(folder, "b.png", b"hello"), MediaDecodeError),
    "truncated": (lambda folder: write(folder, "c.png", png(300, 300)[:5000]), MediaDecodeError),
    "a strip": (lambda folder: png(4000, 1), MediaTooLarge),
    "over http": (lambda folder: "http://127.0.0.1/a.png", MediaForbidden),
}


def write(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures(case: str, unloadable: Path, tmp_path: Path) -> None:
    make, error = BAD[case]
    handle = qwen3vl.load(unloadable, lazy=True)
    with pytest.raises(error):
        handle.stream([Message("user", (ImagePart(make(tmp_path)), TextPart("What?")))])


def test_other_refusals_need_no_weights_either(unloadable: Path) -> None:
    handle = qwen3vl.load(unloadable, lazy=True, max_context=64)
    with pytest.raises(ContextTooLong, match="the context holds 64"):
        handle.generate("word " * 200)
    with pytest.raises(ContextTooLong, match=r"needs room for 1000: together .* holds 64"):
        handle.generate("A word.", SamplingParams(max_tokens=1000))
    with pytest.raises(InvalidMessage, match="colour"):
        handle.generate([{"role": "user", "content": "A word.", "colour": 1}])
    with pytest.raises(UnsupportedOption, match="regex"):
        handle.generate("A word.", SamplingParams(regex="a"))
    with pytest.raises(UnsupportedOption, match="thinking_budget"):
        handle.generate("A word.", SamplingParams(thinking_budget=1))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):  # a good request does need them
        handle.generate("A word.", SHORT)


def test_weights_are_read_at_once_unless_lazy(unloadable: Path) -> None:
    with pytest.raises(WeightsError):
        qwen3vl.load(unloadable)


def test_the_policy_is_the_handles(tmp_path: Path) -> None:
    handle = qwen3vl.load(models.folder("4b"), device="cpu", policy=MediaPolicy.server(), lazy=True)
    with pytest.raises(MediaForbidden):
        handle.chat("What?", images=[write(tmp_path, "a.png", png())])


@pytest.mark.parametrize("deterministic", [False, True])
def test_quantised_weights_answer(deterministic: bool) -> None:
    """int8 gives mostly the same tokens; with our kernels the same bits in company."""
    requests = [Request(f"Number {i}.", SamplingParams(max_tokens=6, logprobs=True)) for i in range(3)]
    with qwen3vl.load(models.folder("4b"), quantize="int8", deterministic=deterministic) as quantised:
        together = list(quantised.generate_many(requests))
        alone = [quantised.generate(r.messages, r.params) for r in requests]
    if deterministic:
        assert [reply.first.logprobs for reply in together] == [reply.first.logprobs for reply in alone]
    assert all(len(reply.token_ids) == 6 for reply in together)
