"""The engine gives the reference's tokens, whatever else is in the batch and however prompts are cut and reused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from qwen3vl import reference
from qwen3vl.engine import loop_guard
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.scheduler import Batch
from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.engine.sequence_sampler import SequenceSampler
from qwen3vl.errors import ContextTooLong, GenerationError, InvalidParams
from qwen3vl.inputs import ModelInputs
from qwen3vl.settings import SamplingParams
from tests import models
from tests.engine.driving import (
    Collected,
    answers,
    collect,
    drive,
    expected,
    model,
    new_engine,
    work_of,
)
from tests.engine.prompts import as_inputs, joined, make_inputs
from tests.engine.sampling import next_token
from tests.models import Part

CASES: dict[str, tuple[Part, ...]] = {
    "text": (19,),
    "picture": (4, ("image", 6, 8), 7),
    "one token": (1,),
    "pictures": (("image", 2, 2), 3, ("image", 8, 4), ("image", 4, 4), 5),
    "video": (3, ("video", 3, 4, 6), 6),
    "all": (2, ("image", 4, 6), 3, ("video", 2, 4, 4), 5, ("image", 6, 4), 4),
}


def inputs_of(name: str, edition: str = "4b", seed: int = 0) -> ModelInputs:
    return make_inputs(model(edition).config, *CASES[name], seed=seed)


def all_expected(edition: str = "4b", num_tokens: int = 8) -> dict[str, tuple[int, ...]]:
    return {name: expected(edition, parts, num_tokens) for name, parts in CASES.items()}


def looks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Patches that the vision tower sees from now on, picture by picture."""
    seen: list[int] = []
    encode = engine.runner._encode

    def counted(visual: Any) -> Any:
        seen.append(len(visual.patches))
        return encode(visual)

    monkeypatch.setattr(engine.runner, "_encode", counted)
    return seen


# ------------------------------------------------------------------------------ batches and schedules


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("budget", [2048, 33, 7, 1])
def test_mixed_batches(edition: str, budget: int) -> None:
    engine = new_engine(edition, max_batched_tokens=budget, max_sequences=min(8, budget))
    works = [work_of(name, inputs_of(name, edition)) for name in CASES]
    assert answers(drive(engine, works)) == all_expected(edition)


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("budget", [2048, 5])
def test_requests_that_come_one_after_the_other(edition: str, budget: int) -> None:
    """Each reads while those before it decode; half the time is theirs."""
    engine = new_engine(edition, max_batched_tokens=budget, max_sequences=3, reading_share=0.5)
    names = iter(CASES)

    def arrive(step: int) -> None:
        if step % 2 == 0 and (name := next(names, None)) is not None:
            engine.add(work_of(name, inputs_of(name, edition)))

    engine.add(work_of("first", inputs_of("text", edition, seed=1), 20))
    found = answers(drive(engine, between=arrive))
    assert found.pop("first") == expected(edition, CASES["text"], 20, seed=1)
    assert found == all_expected(edition)


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preemption_at_every_step(edition: str, prefix_cache: bool) -> None:
    """Every sequence loses its blocks once in each state that it gets into: while it reads, looks or decodes."""
    engine = new_engine(edition, max_batched_tokens=16, prefix_cache=prefix_cache, vision_cache_bytes=1 << 20)
    states: set[tuple[Any, ...]] = set()

    def preempt(_: int) -> None:
        for sequence in list(engine.scheduler.running):
            state = sequence.order, sequence.num_computed, sequence.is_decoding
            if sequence.num_computed and state not in states:
                states.add(state)
                engine.scheduler.preempt(sequence)

    works = [work_of(name, inputs_of(name, edition), 5) for name in ("text", "picture", "video", "all")]
    found = drive(engine, works, between=preempt)
    assert answers(found) == {work.id: expected(edition, CASES[work.id], 5) for work in works}
    assert [state[2] for state in states].count(True) == 4 * 4 and len(states) > 16 + 4


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_a_cache_that_is_too_small_for_all(prefix_cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(num_blocks=18, prefix_cache=prefix_cache, max_batched_tokens=16)
    preempt, preempted = engine.scheduler.preempt, []

    def counted(sequence: Sequence) -> None:
        preempted.append(sequence.order[0])
        preempt(sequence)

    monkeypatch.setattr(engine.scheduler, "preempt", counted)
    works = [work_of(name, inputs_of(name), 20) for name in CASES]
    assert answers(drive(engine, works)) == all_expected(num_tokens=20)
    assert preempted and 0 not in preempted, "the first never goes back"


def test_first_come_first_served() -> None:
    """Later requests overtake no earlier one, though they are shorter and there is room for them."""
    engine = new_engine(num_blocks=16, max_batched_tokens=8)
    works = [work_of(name, inputs_of(name), 4) for name in ("picture", "all", "one token", "text")]
    running: list[int] = []

    def watch(_: int) -> None:
        for sequence in engine.scheduler.running:
            if sequence.order[0] not in running:
                running.append(sequence.order[0])

    drive(engine, works, between=watch)
    assert running == [0, 1, 2, 3]


# ----------------------------------------------------------------------------------- reuse and sharing


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_a_second_question_reads_only_what_is_new(edition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(edition, num_blocks=256)
    seen = looks(engine, monkeypatch)
    first = drive(engine, [work_of(name, inputs_of(name, edition)) for name in CASES])
    num_seen = len(seen)
    again = drive(engine, [work_of(name, inputs_of(name, edition)) for name in CASES])
    assert answers(first) == answers(again) == all_expected(edition)
    assert len(seen) == num_seen == 8
    for name in CASES:
        completion, num_tokens = again[name].completion, inputs_of(name).num_tokens
        assert completion.usage.cached_tokens == (num_tokens - 1) // 4 * 4  # whole blocks, and one token to read
        expected_marks = ["prefix" if end <= completion.usage.cached_tokens else "vision" for end in ends(name)]
        assert [receipt.cache for receipt in completion.receipts] == expected_marks
        assert first[name].completion.receipts == inputs_of(name).receipts
    assert {receipt.cache for name in CASES for receipt in again[name].completion.receipts} == {"prefix"}


def ends(name: str) -> Iterator[int]:
    """Where the last placeholder of each picture or video is."""
    inputs = inputs_of(name)
    last = {span.visual: span.end(2) for span in inputs.spans}
    return iter(last.values())


def test_the_vision_cache_serves_without_the_prefix_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(prefix_cache=False)
    drive(engine, [work_of("all", inputs_of("all"))])
    seen = looks(engine, monkeypatch)
    again = drive(engine, [work_of("all", inputs_of("all"))])
    assert answers(again)["all"] == all_expected()["all"] and seen == []
    completion = again["all"].completion
    assert [receipt.cache for receipt in completion.receipts] == ["vision"] * 3
    assert completion.usage.cached_tokens == 0 and again["all"].progress[0][0] == "prefill"
    engine.forget()
    drive(engine, [work_of("all", inputs_of("all"))])
    assert len(seen) == 3


@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_a_prefix_that_ends_inside_a_picture(block_size: int) -> None:
    """The second prompt is the first up to some token inside the picture's, and then something else."""
    engine, config = new_engine(num_blocks=256, block_size=block_size), model().config
    whole = models.make_prompt(config, 4, ("image", 6, 8), 7)
    drive(engine, [work_of("first", as_inputs(whole, config))])
    again = drive(engine, [work_of("again", as_inputs(whole, config))])
    cached = again["again"].completion.usage.cached_tokens
    assert cached == (len(whole) - 1) // block_size * block_size
    for num_blocks in range(0, cached // block_size, 2):  # forget the end of what is known
        idle = list(engine.blocks._idle)  # the last of a prompt goes idle first
        for block in idle[: len(idle) - num_blocks]:
            engine.blocks._forget_hash(block)
        completion = drive(engine, [work_of("again", as_inputs(whole, config))])["again"].completion
        assert completion.usage.cached_tokens == num_blocks * block_size
        assert completion.token_ids == expected("4b", CASES["picture"], 8)


def test_pictures_of_one_size_share_nothing() -> None:
    config = model().config
    prompts = [models.make_prompt(config, 4, ("image", 4, 6), 6, ("image", 4, 6), 3, seed=seed) for seed in (0, 5)]
    a, b, c, d = [shown for prompt in prompts for shown in prompt.shown]
    works = {
        str(number): as_inputs(models.Prompt(prompts[0].input_ids_T, pair), config)
        for number, pair in enumerate(((a, b), (b, a), (a, a), (c, b), (a, d), (c, d)))
    }
    wanted = {name: tuple(reference.generate_greedy(model(), inputs, 5)) for name, inputs in works.items()}
    assert len(set(wanted.values())) == 6
    engine = new_engine(num_blocks=256)
    assert answers(drive(engine, [work_of(name, inputs, 5) for name, inputs in works.items()])) == wanted
    again = drive(engine, [work_of(name, inputs, 5) for name, inputs in works.items()])
    assert answers(again) == wanted  # now each of them found its own
    assert all(each.completion.usage.cached_tokens == (len(prompts[0]) - 1) // 4 * 4 for each in again.values())


def test_a_conversation_goes_on() -> None:
    """Answers become part of the next prompt: they are found too, up to their last full block."""
    config, engine = model().config, new_engine(num_blocks=256, max_batched_tokens=9)
    turns = [
        models.make_prompt(config, 4, ("image", 4, 6), 6, seed=1),
        models.make_prompt(config, 3, ("image", 6, 6), 5, seed=2),
        models.make_prompt(config, 5, ("video", 2, 4, 4), ("image", 2, 4), 5, seed=3),
    ]
    said: list[list[int]] = []
    for number in range(1, len(turns) + 1):
        inputs = joined(config, *turns[:number], answers=said)
        completion = drive(engine, [work_of("turn", inputs, 6)])["turn"].completion
        assert list(completion.token_ids) == reference.generate_greedy(model(), inputs, 6)
        before = inputs.num_tokens - len(turns[number - 1])
        assert completion.usage.cached_tokens == max(0, before - 1) // 4 * 4
        said.append(list(completion.token_ids))


@pytest.mark.parametrize("settings", [{}, {"prefix_cache": False}, {"max_sequences": 2}, {"max_batched_tokens": 8}])
def test_several_answers_share_the_prompt(settings: dict[str, Any]) -> None:
    """Each is what its own stream of random numbers makes of the reference's logits."""
    inputs, params = inputs_of("picture"), SamplingParams(temperature=1.5, seed=11, n=4, max_tokens=6)
    wanted = [sampled_by_reference(inputs, params, index) for index in range(4)]
    assert len(set(wanted)) == 4
    engine = new_engine(**settings)
    most = [0]

    def count(_: int) -> None:
        most[0] = max(most[0], engine.blocks.num_used)

    works = [work_of("four", inputs, 6, temperature=1.5, seed=11, n=4), work_of("text", inputs_of("text"))]
    found = drive(engine, works, between=count)
    assert [choice.token_ids for choice in found["four"].completion.choices] == wanted
    assert [choice.index for choice in found["four"].completion.choices] == [0, 1, 2, 3]
    assert answers(found)["text"] == all_expected()["text"]
    assert found["four"].completion.usage.completion_tokens == 24
    if settings.get("prefix_cache", True):
        prompt_blocks = inputs.num_tokens // 4
        assert most[0] <= prompt_blocks + 4 * 3 + 7, "27 tokens of the prompt are held once"


def sampled_by_reference(inputs: ModelInputs, params: SamplingParams, index: int) -> tuple[int, ...]:
    sampler = SequenceSampler(params, inputs.input_ids_T, model().config.text.vocab_size, choice=index)
    answer: list[int] = []
    while len(answer) < (params.max_tokens or 0):
        answer.append(next_token(sampler, reference.all_logits(model(), inputs, answer)[-1]).token_id)
    return tuple(answer)


def test_answers_that_hold_the_ids_of_placeholders() -> None:
    """They stand for no picture: also when they are read again, in one pass with pictures that others show."""
    config = model().config
    bias = {config.image_token_id: 1000.0}
    engine = new_engine(max_batched_tokens=64)
    works = [
        work_of("biased", inputs_of("text"), 6, logit_bias=bias),
        work_of("picture", inputs_of("picture"), 6),
    ]

    def preempt(step: int) -> None:
        if step == 4:
            for sequence in list(engine.scheduler.running):
                engine.scheduler.preempt(sequence)
            engine.forget()

    found = answers(drive(engine, works, between=preempt))
    assert found == {"biased": (config.image_token_id,) * 6, "picture": expected("4b", CASES["picture"], 6)}


# -------------------------------------------------------------------------------- ends, aborts, errors


def test_ends_usage_timings_and_progress() -> None:
    whole = all_expected()["all"]
    engine = new_engine(eos=(whole[3],), max_batched_tokens=8)
    found = drive(engine, [work_of("all", inputs_of("all"))])["all"]
    completion, inputs = found.completion, inputs_of("all")
    assert completion.token_ids == whole[: whole.index(whole[3]) + 1] and completion.finish_reason == "stop"
    assert found.text == completion.text == "".join(f"{token} " for token in completion.token_ids[:-1])
    assert (completion.model, completion.id) == ("tiny", "all")
    usage = completion.usage
    assert (usage.prompt_tokens, usage.image_tokens, usage.video_tokens) == (inputs.num_tokens, 12, 8)
    timings = completion.timings
    assert timings.vision > 0 and timings.prefill > 0 and timings.decode > 0
    patches = [24, 24 + 32, 24 + 32 + 24]
    assert [p for p in found.progress if p[0] == "vision"] == [("vision", done, 80) for done in patches]
    read = [p for p in found.progress if p[0] == "prefill"]
    assert read[-1] == ("prefill", inputs.num_tokens, inputs.num_tokens) and read == sorted(read) and len(read) > 4


@pytest.mark.parametrize("when", range(0, 26, 3))
def test_abort_at_any_moment(when: int) -> None:
    engine = new_engine(max_batched_tokens=7, max_sequences=7, num_blocks=40)
    collected: dict[str, Collected] = {}

    def abort(step: int) -> None:
        if step == when:
            output = engine.abort("all")
            assert engine.abort("all") is None
            if output is not None:
                collect([output], collected)

    works = [work_of("all", inputs_of("all"), 9, n=2), work_of("text", inputs_of("text"))]
    found = drive(engine, works, between=abort)
    assert answers({"text": found["text"]})["text"] == all_expected()["text"]
    if "all" in collected:
        completion = collected["all"].completion
        assert completion.finish_reason == "abort" and len(completion.choices) == 2
        whole = expected("4b", CASES["all"], 9)
        assert all(choice.token_ids == whole[: len(choice.token_ids)] for choice in completion.choices)
    else:
        assert when > 15 and found["all"].completion.finish_reason == "length"


def test_what_can_never_fit_is_refused() -> None:
    engine = new_engine(num_blocks=6)
    with pytest.raises(ContextTooLong, match=r"19 tokens .* room for 6: together 25, but .* cache holds 24"):
        engine.add(work_of("text", inputs_of("text"), 6))
    with pytest.raises(InvalidParams, match="stop_token_ids: token 1000 is outside"):
        engine.add(work_of("text", inputs_of("text"), 5, stop_token_ids=(1000,)))
    assert not engine.has_work
    assert answers(drive(engine, [work_of("text", inputs_of("text"), 5)]))["text"] == expected("4b", CASES["text"], 5)


@pytest.mark.parametrize("broken", ["decoder", "vision", "logits"])
def test_an_error_reaches_its_own_request_only(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine(max_batched_tokens=16)
    run, look = engine.runner.run, engine.runner.look

    def is_bad(sequence: Sequence) -> bool:
        return sequence.job is not None and sequence.job.work.id == "bad"

    def run_or_fail(batch: Batch) -> torch.Tensor:
        bad = [chunk for chunk in batch.chunks if is_bad(chunk.sequence) and chunk.sequence.num_computed > 10]
        if broken == "decoder" and bad:
            raise RuntimeError("out of memory")
        logits_RV = run(batch)
        if broken == "logits":
            for row, (_, sequence) in enumerate(batch.writing):
                if is_bad(sequence) and len(sequence.answer_ids) == 2:
                    logits_RV = logits_RV.clone()
                    logits_RV[row] = float("nan")
        return logits_RV

    def look_or_fail(sequence: Sequence, num_tokens: int) -> int:
        if broken == "vision" and is_bad(sequence):
            raise RuntimeError("out of memory")
        return look(sequence, num_tokens)

    monkeypatch.setattr(engine.runner, "run", run_or_fail)
    monkeypatch.setattr(engine.runner, "look", look_or_fail)
    works = [work_of(name, inputs_of(name)) for name in ("text", "picture")]
    works.insert(1, replace(work_of("bad", inputs_of("all"), n=2)))
    found = drive(engine, works)
    error = found.pop("bad").error
    assert isinstance(error, GenerationError)
    assert ("no token can be chosen" if broken == "logits" else "RuntimeError: out of memory") in str(error)
    assert answers(found) == {name: all_expected()[name] for name in ("text", "picture")}


def test_going_back_to_before_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias makes the answer say one token for ever; each time it is taken back, that token is forbidden there."""
    monkeypatch.setattr(loop_guard, "EVIDENCE", 10)
    inputs, stuck = inputs_of("picture"), 5
    bias = {stuck: 1000.0}
    engine = new_engine(num_blocks=64)
    works = [
        work_of("stuck", inputs, 40, logit_bias=bias, loop_guard="rewind", n=2),
        work_of("text", inputs_of("text"), 30),
    ]
    found = drive(engine, works)
    assert answers({"text": found["text"]})["text"] == expected("4b", CASES["text"], 30)
    for choice in found["stuck"].completion.choices:
        ids = list(choice.token_ids)
        others = [place for place, token in enumerate(ids) if token != stuck]
        assert len(others) == 3 and choice.stop_reason == "repetition"
        for place in others:
            logits_V = reference.all_logits(model(), inputs, ids[:place])[-1].clone()
            logits_V[stuck] = float("-inf")
            assert ids[place] == int(logits_V.argmax())


def test_metrics_are_told() -> None:
    told: dict[str, list[Any]] = {}

    class Metrics:
        def __getattr__(self, name: str) -> Any:
            return lambda *values: told.setdefault(name, []).append(values)

    engine = new_engine(max_batched_tokens=8)
    engine.metrics = Metrics()
    works = [work_of("text", inputs_of("text"), 4), work_of("picture", inputs_of("picture"), 4, n=2)]
    drive(engine, works)
    drive(engine, [work_of("again", inputs_of("picture"), 1)])
    read, decoded = (sum(step[i] for step in told["step"]) for i in (1, 2))
    assert decoded == 3 * 3 and read == 19 + 25 + 1
    assert len(told["first_token"]) == 3 and len(told["token"]) == 3 * 3
    assert told["cache"] == [(0, 19, 0, 0), (0, 25, 0, 1), (24, 25, 0, 0)]
    assert told["gauges"][-1] == (0, 0, 0, 64) and max(used for _, _, used, _ in told["gauges"]) > 10


def test_prompts_know_their_spans() -> None:
    prompt = Prompt.of(inputs_of("all"), model().config)
    for start in range(prompt.num_tokens):
        for end in range(start, prompt.num_tokens + 1):
            found = {t for _, first, last in prompt.spans_in(start, end) for t in range(first, last)}
            assert found == {t for a, b in prompt.spans for t in range(a, b) if start <= t < end}
