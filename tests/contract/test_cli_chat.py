"""`qwen3vl chat` and `random-checkpoint` with a real (shrunken, random) checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3vl import vlm
from qwen3vl.cli.conversation import Conversation
from qwen3vl.processor.processor import Processor
from qwen3vl.types import ImagePart, Message, TextPart, VideoPart
from tests import models
from tests.contract.cli_runner import Runner
from tests.fixtures.pictures import scene
from tests.fixtures.videos import constant_clip


@cache
def processor_of(folder: str) -> Processor:
    return Processor.from_folder(folder)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    class Cached:  # reading the official tokenizer takes longer than these answers
        from_folder = staticmethod(lambda folder: processor_of(str(folder)))

    monkeypatch.setattr(vlm, "Processor", Cached)
    return Runner(capsys, monkeypatch)


@pytest.fixture(scope="module")
def folder() -> Path:
    return models.folder("4b")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "table.jpg"
    exif = scene(1, 1).getexif()
    exif[0x0112] = 6
    scene(160, 96).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return constant_clip(tmp_path_factory.mktemp("media") / "clip.mp4", 30)


def ask(folder: Path, *arguments: object) -> list[object]:
    return ["chat", "--model", folder, "--max-tokens", 8, *arguments]


def test_the_answer_is_the_handles(run: Runner, folder: Path, picture: Path) -> None:
    done = run(*ask(folder, picture, "What is this?"))
    expected = vlm.load(folder).chat("What is this?", images=[picture], max_tokens=8)
    assert done.code == 0
    assert done.out == expected.text + "\n"
    assert done.err == "note: the answer was cut after 8 tokens (see --max-tokens)\n"
    document = run(*ask(folder, picture, "What is this?", "--json")).document
    assert document["text"] == expected.text
    assert document["token_ids"] == list(expected.token_ids)


def test_json_is_one_document_with_a_fixed_form(run: Runner, folder: Path, picture: Path, clip: Path) -> None:
    done = run(*ask(folder, picture, clip, "What?", "--json", "--logprobs", "--top-logprobs", 2, "--num-frames", 4))
    document = done.document
    assert done.err == ""
    assert list(document) == [
        *("schema_version", "model", "text", "reasoning", "tool_calls", "finish_reason", "stop_reason"),
        *("token_ids", "logprobs", "usage", "timings", "receipts"),
    ]
    assert document["schema_version"] == 1
    assert document["model"] == str(folder)
    assert (document["finish_reason"], document["stop_reason"]) == ("length", None)
    logprobs = document["logprobs"]
    assert [token["token_id"] for token in logprobs] == document["token_ids"]
    assert all(
        token["top"][0]["token_id"] == token["token_id"] and len(token["top"]) == 2 for token in document["logprobs"]
    )
    image, video = document["receipts"]
    assert (image["kind"], image["original_size"], image["orientation"]) == ("image", [160, 96], 6)
    assert (video["kind"], video["frame_indices"]) == ("video", [0, 10, 19, 29])
    usage = document["usage"]
    assert (usage["image_tokens"], usage["video_tokens"]) == (image["num_tokens"], video["num_tokens"])
    assert usage["completion_tokens"] == 8
    assert document["timings"].keys() == {"prepare", "vision", "prefill", "decode", "first_token"}


def test_several_answers(run: Runner, folder: Path) -> None:
    arguments = ask(folder, "Hello", "--json", "-n", 3, "--temperature", 2, "--seed", 5)
    document = run(*arguments).document
    assert [choice["index"] for choice in document["choices"]] == [0, 1, 2]
    assert len({choice["text"] for choice in document["choices"]}) == 3
    assert document["text"] == document["choices"][0]["text"]
    assert run(*arguments).document["choices"] == document["choices"]


def test_verbose_tells_what_the_model_saw(run: Runner, folder: Path, picture: Path, clip: Path) -> None:
    done = run(
        *ask(folder, picture, clip, "What?", "--verbose", "--fps", 5, "--min-pixels", 4096, "--max-pixels", 8192)
    )
    lines = done.err.splitlines()
    assert lines[0] == f"{picture}: 160 x 96, orientation 6 -> 64 x 96, grid 1 x 6 x 4, 6 tokens"
    assert lines[1].startswith(f"{clip}: 128 x 96, 3.00 s -> ")
    assert lines[2].startswith("  15 frames at 0.00 0.20 ")
    assert lines[2].endswith(" 2.90 s, the last one twice")
    assert " ... " in lines[2]
    assert lines[3].startswith("prompt ")
    assert ", 0 from cache" in lines[3]
    assert lines[4] == "answer 8 tokens, ended by length"
    assert lines[5].startswith("time: prepare ")


def test_options_change_what_the_model_sees(run: Runner, folder: Path, picture: Path) -> None:
    def prompt_tokens(*arguments: object) -> int:
        return run(*ask(folder, picture, "What?", "--json", *arguments)).document["usage"]["prompt_tokens"]

    plain = prompt_tokens()
    assert prompt_tokens("--min-pixels", 100000) > plain
    assert prompt_tokens("--system", "Answer briefly.") > plain


def test_a_default_bound_on_the_answer_fits_the_context(run: Runner, folder: Path) -> None:
    document = run("chat", "--model", folder, "--max-context", 30, "--json", "Hello").document
    usage = document["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 30
    assert document["finish_reason"] == "length"


# ----------------------------------------------------------------------------------------- bad input


def bad_pictures(at: Path) -> dict[str, Path]:
    whole = at / "whole.jpg"
    scene(320, 240).save(whole)
    paths = {name: at / name for name in ("absent.jpg", "empty.png", "truncated.jpg", "text.png", "strip.png")}
    paths["empty.png"].touch()
    paths["truncated.jpg"].write_bytes(whole.read_bytes()[:2000])
    paths["text.png"].write_text("This is no picture.")
    scene(1, 4000).save(paths["strip.png"])
    return paths


@pytest.mark.parametrize("name", ["absent.jpg", "empty.png", "truncated.jpg", "text.png", "strip.png"])
def test_bad_picture(run: Runner, folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vlm, "load_model", None)  # nothing may come so far
    path = bad_pictures(tmp_path)[name]
    failed = run(*ask(folder, path, "What is this?"))
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith(f"error: {path}: ")
    assert failed.err.count("\n") == 1
    error = run(*ask(folder, path, "What is this?", "--json")).document["error"]
    assert error["type"].startswith("Media")
    assert f"error: {error['message']}\n" == failed.err


def test_a_missing_last_file_is_not_taken_for_the_question(run: Runner, folder: Path, picture: Path) -> None:
    failed = run(*ask(folder, picture, "photo.jpg"))
    assert failed.code == 1
    assert "photo.jpg: no such file" in failed.err
    failed = run(*ask(folder, picture, "what", "is", "this?"))
    assert failed.code == 1
    assert "what: no such file (only the last argument is the question" in failed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-context", 4, "Hello, you there"), "the context holds 4"),
        (("--max-context", 30, "--max-tokens", 30, "Hello"), "the context holds 30"),
        (("--thinking-budget", 5, "Hello"), "thinking_budget"),
    ],
)
def test_refused_before_the_weights(
    run: Runner, folder: Path, arguments: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "load_model", None)
    refused = run("chat", "--model", folder, *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, copy_function=os.link))


def rewrite(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()  # a hard link to the shared folder's file
    save_file(tensors, path, metadata={"format": "pt"})


NORM = "model.language_model.norm.weight"


def missing_shard(folder: Path, shard: Path) -> None:
    tensors = load_file(shard)
    shard.unlink()
    names = {name: f"model-0000{1 + (name == NORM)}-of-00002.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    del tensors[NORM]
    save_file(tensors, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})


def misshaped(folder: Path, shard: Path) -> None:
    rewrite(shard, lambda tensors: tensors.update({NORM: torch.ones(3)}))


def unexpected(folder: Path, shard: Path) -> None:
    rewrite(shard, lambda tensors: tensors.update({"model.surplus": torch.ones(3)}))


def unknown_model_type(folder: Path, shard: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "qwen9_vl"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_shard, "model-00002-of-00002.safetensors"),
        (misshaped, NORM),
        (unexpected, "model.surplus"),
        (unknown_model_type, "qwen9_vl"),
    ],
)
def test_bad_checkpoint(run: Runner, folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    damage(broken, next(broken.glob("*.safetensors")))
    failed = run(*ask(broken, "Hello"))
    assert (failed.code, failed.out) == (1, "")
    assert message in failed.err
    assert failed.err.count("\n") == 1


@pytest.mark.parametrize("model", ["no/such-model", "./no-such-folder"])
def test_no_checkpoint(run: Runner, model: str) -> None:
    failed = run("chat", "--model", model, "Hello")
    assert (failed.code, failed.out) == (1, "")
    assert f"error: {model}" in failed.err
    assert "random-checkpoint" in failed.err


def test_an_unknown_device(run: Runner, folder: Path) -> None:
    refused = run(*ask(folder, "--device", "toaster", "Hello"))
    assert (refused.code, refused.err) == (2, "error: device 'toaster' is not known\n")


# -------------------------------------------------------------------------- lines instead of a terminal


def test_questions_from_a_pipe(run: Runner, folder: Path, picture: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    lines = ["What is this?", f"/image {tmp_path / 'absent.jpg'}", "And now?", f"/save {saved}", "/nonsense"]
    done = run(*ask(folder, picture, "--system", "Be brief.", "--verbose"), stdin="\n".join(lines))
    assert done.code == 1  # two lines failed
    assert "/nonsense is no command" in done.err
    assert "absent.jpg: " in done.err
    assert f"{saved}: 4 turns written" in done.err
    talk = Conversation.load(saved)
    assert talk.system == "Be brief."
    assert talk.turns[0] == Message("user", (ImagePart(str(picture)), TextPart("What is this?")))
    assert talk.turns[2] == Message("user", (TextPart("And now?"),))
    assert done.out == f"{talk.turns[1].text}\n{talk.turns[3].text}\n"


def test_a_saved_conversation_goes_on(run: Runner, folder: Path, picture: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    at_once = run(*ask(folder, picture), stdin=f"What is this?\nAnd now?\n/save {second}\n")
    run(*ask(folder, picture), stdin=f"What is this?\n/save {first}\n")
    later = run(*ask(folder, "--load", first, "And now?"))
    assert later.code == at_once.code == 0
    assert later.out == Conversation.load(second).turns[-1].text + "\n"
    assert at_once.out.endswith("\n" + later.out)


def test_settings_and_commands(run: Runner, folder: Path, clip: Path, tmp_path: Path) -> None:
    lines = [
        *("/set max_tokens 3", "/set num_frames 4", f"/video {clip}", "What?", "/receipt", "/clear", "/receipt"),
        *(
            "/set top_p 7",
            "/preset nonsense",
            "/set max_tokens",
            "/system Be brief.",
            "Hello",
            "/help",
            "/exit",
            "never",
        ),
    ]
    done = run(*ask(folder), stdin="\n".join(lines))
    assert f"{clip}: 128 x 96, 3.00 s, " in done.err
    assert "answer 3 tokens, ended by length" in done.err
    assert "4 frames at" in done.err
    assert "nothing has been answered yet" in done.err
    assert "error: top_p=7" in done.err
    assert "error: unknown preset 'nonsense'" in done.err
    assert "after 8 tokens" in done.err  # back to what the command line says
    assert "/save FILE" in done.err
    assert done.err.count("note: the answer was cut") == 2


def test_save_destroys_nothing(run: Runner, folder: Path, picture: Path) -> None:
    before = picture.read_bytes()
    done = run(*ask(folder), stdin=f"/save {picture}\n")
    assert done.code == 1
    assert "exists already" in done.err
    assert picture.read_bytes() == before


TOOL_CALL = '{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}'
FRAMES = '{"role": "user", "content": [{"type": "video", "video": ["a.png", "b.png"]}]}'


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"messages": 3}', '{"messages": [{"role": "user", "colour": 1}]}'),
        *(f'{{"messages": [{message}]}}' for message in (TOOL_CALL, FRAMES)),
    ],
)
def test_a_file_that_is_no_conversation(run: Runner, folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "talk.json").write_text(text)
    refused = run(*ask(folder, "--load", tmp_path / "talk.json", "Hello"))
    assert refused.code == 2
    assert refused.err.startswith(f"error: {tmp_path / 'talk.json'}: ")


# --------------------------------------------------------------------------------- random-checkpoint


def test_random_checkpoint_of_a_thinking_edition(run: Runner, tmp_path: Path) -> None:
    out = tmp_path / "new" / "checkpoint"
    write = ["random-checkpoint", "--edition", "30b-a3b", "--thinking", "--shrink", "--text-layers", 2]
    done = run(*write, "--vision-layers", 3, "--experts", 4, "--seed", 3, "--dtype", "float32", "--out", out)
    assert done.code == 0
    assert f"qwen3vl chat --model {out}" in done.out
    config = json.loads((out / "config.json").read_text())
    assert (config["text_config"]["num_hidden_layers"], config["text_config"]["num_experts"]) == (2, 4)
    assert config["vision_config"]["depth"] == 3
    again = run(*write, "--out", out)
    assert (again.code, again.err) == (1, f"error: {out}: is not empty; give a new folder\n")
    answer = run(*ask(out, "Hello", "--json", "--thinking-budget", 2)).document
    assert answer["reasoning"]
    assert answer["usage"]["reasoning_tokens"] >= 2


def test_videos_are_kept_in_a_saved_conversation(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clip.parent)
    talk = Conversation("Be brief.")
    talk.turns = [
        Message("user", (VideoPart(clip.name), TextPart("What?"))),
        Message("assistant", (TextPart("A clip."),), reasoning="Well."),
    ]
    talk.stopped = [1]
    talk.save(tmp_path / "talk.json", "m")
    loaded = Conversation.load(tmp_path / "talk.json")
    assert loaded.turns[0].content[0] == VideoPart(str(clip))
    assert loaded.turns[1] == talk.turns[1]
    assert (loaded.system, loaded.stopped) == ("Be brief.", [1])
