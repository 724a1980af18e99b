"""What comes back from the handle is what the model computes: tokens, text, logprobs, counts, receipts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import qwen3vl
from qwen3vl import reference
from qwen3vl.engine.memory import kv_bytes_per_token
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.service import Service
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.errors import InvalidParams, UnsupportedOption
from qwen3vl.types import Completion, Delta, ImagePart, MediaOptions, Message, SamplingParams, TextPart, ToolCall
from qwen3vl.vlm import VLM
from tests import models

SMALL = MediaOptions(min_pixels=1024)
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Look closer.", "parameters": {"type": "object", "properties": {}}},
}
EOS = 151645
BLOCK = EngineSettings().block_size


@pytest.fixture(scope="module")
def model() -> VLM:
    return qwen3vl.load(models.folder("4b"), device="cpu")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    from qwen3vl.model.editions import edition
    from qwen3vl.model.random_checkpoint import write_random_checkpoint

    folder = tmp_path_factory.mktemp("thinking") / "model"
    write_random_checkpoint(edition("4b", shrink=True), folder, thinking=True, dtype=torch.float32)
    return qwen3vl.load(folder, device="cpu")


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    """No test sees another's cache."""
    for name in ("model", "thinking"):
        if name in request.fixturenames:
            request.getfixturevalue(name).forget()


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ask(question: str, *pictures: Image.Image) -> Message:
    return Message("user", (*map(ImagePart, pictures), TextPart(question)))


def greedy(num_tokens: int, **settings: Any) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, **settings)


def expected_ids(model: VLM, messages: Sequence[Message], num_tokens: int, media: MediaOptions | None = SMALL) -> Any:
    inputs = model.processor(messages, media=media)
    return tuple(
        reference.generate_greedy(model.model, inputs, num_tokens, eos_ids=model.processor.tokenizer.eos_token_ids)
    )


def whole_blocks(num_tokens: int) -> int:
    """Prefixes are shared in whole blocks: of 27 computed tokens the next prompt finds 16."""
    return num_tokens // BLOCK * BLOCK


def shown(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


# ----------------------------------------------------------------------------------- tokens and text


def test_the_answer_is_the_references(model: VLM) -> None:
    messages = [ask("你好, what is this?", picture(1), picture(2, (64, 64)))]
    reply = model.generate(messages, greedy(12), media=SMALL)
    assert reply.token_ids == expected_ids(model, messages, 12)
    assert reply.finish_reason == "length"
    assert reply.text == model.processor.tokenizer.decode(reply.token_ids)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (model.count_tokens(messages, media=SMALL), 12)
    assert (reply.usage.image_tokens, reply.usage.cached_tokens) == (6 + 4, 0)
    assert [receipt.grid_thw for receipt in reply.receipts] == [(1, 4, 6), (1, 4, 4)]
    assert reply.timings.vision > 0 and reply.timings.prefill > 0 and reply.timings.decode > 0


def test_streamed_pieces_join_to_the_text(model: VLM) -> None:
    *pieces, last = model.stream("Write.", greedy(40, temperature=2.0, seed=3))
    assert last.completion is not None and last.finish_reason == "length"
    assert shown(pieces) == last.completion.text == model.processor.tokenizer.decode(last.completion.token_ids)
    assert all(piece.text for piece in pieces)


def test_half_characters_are_never_shown(model: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a 🫠 b 🧿 龘龘 c"
    ids = model.processor.tokenizer.encode(text, allow_special=False)
    halves = [i for i in ids if "\ufffd" in model.processor.tokenizer.token_bytes(i).decode(errors="replace")]
    assert len(halves) > 4  # such characters take several tokens
    script(model, monkeypatch, [*ids, EOS])
    pieces = [piece.text for piece in model.stream("Write.", greedy(99))]
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    script(model, monkeypatch, ids[: ids.index(halves[1])])  # the length ends it inside a character
    num_tokens = ids.index(halves[1])
    reply = model.generate("Write.", greedy(num_tokens))
    assert reply.text == model.processor.tokenizer.decode(ids[:num_tokens]) and reply.text.endswith("\ufffd")


def test_a_stop_string_ends_the_answer_before_it(model: VLM) -> None:
    whole = model.generate("Write.", greedy(16)).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    reply = model.generate("Write.", greedy(16, stop=(stop,)))
    assert reply.text == whole[: whole.index(stop)]
    assert (reply.finish_reason, reply.choices[0].stop_reason) == ("stop", stop)
    assert reply.choices[0].raw_text.endswith(stop) or stop in reply.choices[0].raw_text
    pieces = list(model.stream("Write.", greedy(16, stop=(stop,))))
    assert shown(pieces) == reply.text


def test_an_end_token_ends_the_answer(model: VLM) -> None:
    reply = model.generate("Write.", greedy(16, logit_bias={EOS: 1000.0}))
    assert (reply.text, reply.token_ids, reply.finish_reason) == ("", (EOS,), "stop")
    reply = model.generate("Write.", greedy(6, logit_bias={EOS: 1000.0}, ignore_eos=True))
    assert (reply.token_ids, reply.finish_reason) == ((EOS,) * 6, "length")
    reply = model.generate("Write.", greedy(6, logit_bias={EOS: 1000.0}, min_tokens=4))
    assert len(reply.token_ids) == 5 and reply.token_ids.index(EOS) == 4


def test_seeds(model: VLM) -> None:
    """The same seed gives the same text in whatever order requests come."""
    ask_with = {seed: greedy(10, temperature=1.5, seed=seed) for seed in (1, 2, 3)}
    first = {seed: model.generate("Write.", params).text for seed, params in ask_with.items()}
    model.generate("Something else.", greedy(2))
    again = {seed: model.generate("Write.", ask_with[seed]).text for seed in (3, 1, 2)}
    assert first == again and len(set(first.values())) == 3
    without = {model.generate("Write.", greedy(10, temperature=1.5)).text for _ in range(3)}
    assert len(without) == 3


def test_several_answers(model: VLM) -> None:
    params = greedy(8, temperature=1.5, seed=11, n=3)
    reply = model.generate([ask("Write.", picture(1))], params, media=SMALL)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.text for choice in reply.choices}) == 3
    assert reply.usage.completion_tokens == 24
    alone = model.generate([ask("Write.", picture(1))], greedy(8, temperature=1.5, seed=11), media=SMALL)
    assert alone.token_ids == reply.choices[0].token_ids
    pieces = list(model.stream([ask("Write.", picture(1))], params, media=SMALL))
    for choice in reply.choices:
        assert "".join(piece.text for piece in pieces if piece.index == choice.index) == choice.text


def test_greedy_answers_are_alike_and_right(model: VLM) -> None:
    """The second of `n` answers starts behind the prompt again, not behind the first answer."""
    messages = [ask("Write.", picture(1))]
    reply = model.generate(messages, greedy(8, n=2), media=SMALL)
    expected = expected_ids(model, messages, 8)
    assert [choice.token_ids for choice in reply.choices] == [expected, expected]


def test_logprobs_are_those_of_the_raw_logits(model: VLM) -> None:
    params = greedy(6, temperature=1.3, top_k=5, repetition_penalty=1.4, seed=2, logprobs=True, top_logprobs=3)
    messages = [ask("Write.", picture(1))]
    reply = model.generate(messages, params, media=SMALL)
    inputs = model.processor(messages, media=SMALL)
    logits_TV = reference.all_logits(model.model, inputs, reply.token_ids)[inputs.num_tokens - 1 : -1]
    logprobs_TV = logits_TV.log_softmax(-1)
    assert reply.choices[0].logprobs is not None
    for row, token_id, reported in zip(logprobs_TV, reply.token_ids, reply.choices[0].logprobs, strict=True):
        assert reported.token_id == token_id
        assert reported.logprob == pytest.approx(row[token_id].item(), abs=1e-4)
        top = row.topk(3)
        assert [token for token, _ in reported.top] == top.indices.tolist()
        assert [value for _, value in reported.top] == pytest.approx(top.values.tolist(), abs=1e-4)


# --------------------------------------------------------------------------------------- the cache


def test_a_second_turn_reads_only_what_is_new(model: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of ordinary text, so that the answer's text encodes to its tokens again."""
    answer = model.processor.tokenizer.encode("A red house.", allow_special=False)
    first = [ask("What is this?", picture(1))]
    script(model, monkeypatch, [*answer, EOS])
    reply = model.generate(first, greedy(9), media=SMALL)
    assert reply.text == "A red house."
    monkeypatch.undo()

    towers = counted_towers(model, monkeypatch)
    second = [*first, reply.as_message(), ask("And its colour?")]
    following = model.generate(second, greedy(5), media=SMALL)
    assert following.usage.cached_tokens == whole_blocks(first_prompt(model, first) + len(answer)) > 0
    assert towers == [] and [receipt.cache for receipt in following.receipts] == ["prefix"]
    assert following.token_ids == expected_ids(model, second, 5)

    towers.clear()
    third = [*second, following.as_message(), ask("And this?", picture(2))]
    last = model.generate(third, greedy(5), media=SMALL)
    assert towers == [[(4, 6)]]  # the new picture only
    assert [receipt.cache for receipt in last.receipts] == ["prefix", None]
    assert last.usage.cached_tokens >= whole_blocks(following.usage.prompt_tokens)
    assert last.token_ids == expected_ids(model, third, 5)


def test_pictures_of_the_same_size_do_not_share(model: VLM) -> None:
    questions = [[ask("What is this?", picture(seed))] for seed in (1, 2, 1)]
    replies = [model.generate(question, greedy(6), media=SMALL) for question in questions]
    assert [reply.token_ids for reply in replies] == [expected_ids(model, question, 6) for question in questions]
    assert [reply.receipts[0].cache for reply in replies] == [None, None, "prefix"]
    assert [reply.usage.cached_tokens for reply in replies] == [0, 0, whole_blocks(replies[2].usage.prompt_tokens)]


def test_the_same_picture_at_another_place_is_read(model: VLM) -> None:
    moved = Message("user", (TextPart("Look: "), ImagePart(picture(1)), TextPart("What is this?")))
    model.generate([ask("What is this?", picture(1))], greedy(2), media=SMALL)
    reply = model.generate([moved], greedy(6), media=SMALL)
    assert reply.receipts[0].cache == "vision" and reply.usage.cached_tokens == 0  # its features, not its place
    assert reply.token_ids == expected_ids(model, [moved], 6)


def test_other_settings_of_a_picture_are_another_picture(model: VLM) -> None:
    question = [ask("What is this?", picture(1, (128, 96)))]
    for media in (SMALL, MediaOptions(min_pixels=1024, max_pixels=4096)):
        reply = model.generate(question, greedy(6), media=media)
        assert reply.token_ids == expected_ids(model, question, 6, media) and reply.receipts[0].cache is None


def test_a_stream_that_is_given_up_leaves_a_sound_cache(model: VLM) -> None:
    question = [ask("Write.", picture(1))]
    for num_pieces in (0, 1, 4):
        stream = model.stream(question, greedy(20), media=SMALL)
        for _, _ in zip(range(num_pieces), stream, strict=False):
            pass
        stream.close()
        other = [ask("Write.", picture(1)), Message("assistant", (TextPart("No."),)), ask("Then?")]
        for messages in (question, other):
            reply = model.generate(messages, greedy(6), media=SMALL)
            assert reply.token_ids == expected_ids(model, messages, 6)


def test_requests_go_on_beside_an_unread_stream(model: VLM) -> None:
    question, other = [ask("Write.", picture(1))], [ask("Write.", picture(2))]
    stream = model.stream(question, greedy(12), media=SMALL)
    begun = next(stream)
    assert model.generate(other, greedy(6), media=SMALL).token_ids == expected_ids(model, other, 6)
    *_, last = [begun, *stream]
    assert last.completion is not None and last.completion.token_ids == expected_ids(model, question, 12)


def test_forgetting_frees_the_cache(model: VLM) -> None:
    question = [ask("Write.", picture(1))]
    replies = [model.generate(question, greedy(2), media=SMALL) for _ in range(2)]
    model.forget()
    replies.append(model.generate(question, greedy(2), media=SMALL))
    assert [reply.usage.cached_tokens for reply in replies] == [0, BLOCK, 0]
    assert [reply.receipts[0].cache for reply in replies] == [None, "prefix", None]


# ------------------------------------------------------------------------------ reasoning and tools


class Scripted:
    """A sampler that always says the same; stands in for BatchSampler."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: Iterator[int] = iter(ids)

    def sample(self, logits_BV: torch.Tensor, samplers: Any, forced: Sequence[int | None]) -> list[SampledToken]:
        return [SampledToken(next(self._ids) if token_id is None else token_id) for token_id in forced]


def script(model: VLM, monkeypatch: pytest.MonkeyPatch, ids: Sequence[int]) -> None:
    monkeypatch.setattr(model._service.ask(lambda engine: engine), "sampler", Scripted(ids))


def answer_with(model: VLM, monkeypatch: pytest.MonkeyPatch, text: str, **options: Any) -> Completion:
    script(model, monkeypatch, [*model.processor.tokenizer.encode(text, allow_special=True), EOS])
    return model.generate("Write.", greedy(99), **options)


def test_reasoning_is_split_from_the_answer(thinking: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = answer_with(thinking, monkeypatch, "Hm, well.\n</think>\n\nYes.")
    assert (reply.reasoning, reply.text, reply.finish_reason) == ("Hm, well.", "Yes.", "stop")
    assert reply.usage.reasoning_tokens == len(thinking.processor.tokenizer.encode("Hm, well.\n", allow_special=True))
    assert reply.as_message() == Message("assistant", (TextPart("Yes."),), "Hm, well.")


def test_reasoning_that_does_not_end_leaves_no_text(thinking: VLM) -> None:
    reply = thinking.generate("Write.", greedy(8))
    assert (reply.text, reply.usage.reasoning_tokens) == ("", 8) and reply.reasoning


@pytest.mark.parametrize("budget", [0, 5])
def test_a_thinking_budget_closes_the_reasoning(thinking: VLM, budget: int) -> None:
    free = thinking.generate("Write.", greedy(30))
    reply = thinking.generate("Write.", greedy(30, thinking_budget=budget))
    closing = tuple(thinking.processor.tokenizer.encode("\n</think>\n\n", allow_special=True))
    assert reply.token_ids[: budget + len(closing)] == free.token_ids[:budget] + closing
    assert len(reply.token_ids) == 30 and reply.text
    inputs = thinking.processor("Write.")
    logits_TV = reference.all_logits(thinking.model, inputs, reply.token_ids)
    rest = logits_TV[inputs.num_tokens - 1 + budget + len(closing) : -1].argmax(-1).tolist()
    assert tuple(rest) == reply.token_ids[budget + len(closing) :]  # the forced tokens were read like others


def test_a_thinking_budget_closes_each_of_several_answers(thinking: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they take each other's blocks and are computed again."""
    closing = tuple(thinking.processor.tokenizer.encode("\n</think>\n\n", allow_special=True))
    per_token = kv_bytes_per_token(thinking.config.text, torch.float32)
    tight = EngineSettings(block_size=4, kv_memory=14 * 4 * per_token)
    service = Service(thinking.processor, thinking.config, lambda: thinking.model, settings=tight)
    preempted = []
    scheduler = service.ask(lambda engine: engine.scheduler)
    preempt = scheduler.preempt
    monkeypatch.setattr(scheduler, "preempt", lambda sequence: (preempted.append(sequence.order), preempt(sequence)))
    params = greedy(26, thinking_budget=10, n=3, temperature=1.5, seed=4, ignore_eos=True)
    with VLM(service) as cramped:
        reply = cramped.generate("Write.", params)
    assert preempted
    roomy = thinking.generate("Write.", params)
    assert [choice.token_ids for choice in reply.choices] == [choice.token_ids for choice in roomy.choices]
    for choice in reply.choices:
        assert choice.token_ids[10 : 10 + len(closing)] == closing and choice.reasoning and choice.text
    assert len({choice.token_ids for choice in reply.choices}) == 3
    assert reply.usage.reasoning_tokens == 3 * (10 + 1)  # the forced newline before the tag counts


def test_a_thinking_budget_is_refused_where_nothing_thinks(model: VLM) -> None:
    with pytest.raises(UnsupportedOption, match="thinking_budget"):
        model.stream("Write.", greedy(8, thinking_budget=4))


def test_tools_are_told_of_and_calls_are_read(model: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    call = '<tool_call>\n{"name": "look", "arguments": {"at": [1, 2]}}\n</tool_call>'
    reply = answer_with(model, monkeypatch, call, tools=[TOOL])
    assert reply.tool_calls == (ToolCall("look", {"at": [1, 2]}, reply.tool_calls[0].id),)
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")
    assert reply.usage.prompt_tokens == model.count_tokens("Write.", tools=[TOOL]) > model.count_tokens("Write.") + 20
    for options in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        reply = answer_with(model, monkeypatch, call, **options)
        assert (reply.text, reply.tool_calls, reply.finish_reason) == (call, (), "stop")
        assert reply.usage.prompt_tokens == model.count_tokens("Write.")


def test_forced_calls_are_refused(model: VLM) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "look"}}):
        with pytest.raises(UnsupportedOption, match="tool_choice"):
            model.stream("Write.", tools=[TOOL], tool_choice=choice)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("option", [{"json_schema": {"type": "object"}}, {"regex": "a+"}, {"grammar": "root ::= a"}])
def test_constraints_are_refused_by_name(model: VLM, option: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOption, match=next(iter(option))):
        model.stream("Write.", SamplingParams(**option))


def test_tokens_outside_the_vocabulary_are_refused(model: VLM) -> None:
    with pytest.raises(InvalidParams, match="logit_bias: token 151936"):
        model.generate("Write.", greedy(2, logit_bias={151936: 1.0}))


def first_prompt(model: VLM, messages: Sequence[Message]) -> int:
    return model.processor(messages, media=SMALL).num_tokens


def counted_towers(model: VLM, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The frames that the vision tower is run on from now on."""
    runs: list[Any] = []
    encode = model.model.visual.encode_steps

    def counted(patches_PC: torch.Tensor, frames: Any) -> Any:
        runs.append(list(frames))
        return encode(patches_PC, frames)

    monkeypatch.setattr(model.model.visual, "encode_steps", counted)
    return runs


def test_pictures_from_files_and_memory_are_the_same(model: VLM, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(1).save(path)
    first = model.chat("What?", images=[path], media=SMALL, max_tokens=4)
    second = model.chat("What?", images=[path.read_bytes()], media=SMALL, max_tokens=4)
    assert second.receipts[0].cache == "prefix" and first.token_ids == second.token_ids
