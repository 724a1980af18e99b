"""Answers one request at a time, from messages to Completion. (Batching comes with the engine proper.)

    messages --Processor--> ModelInputs --Prompt.of--> Prompt
      --Runner.prefill--> logits_V --SequenceSampler--> token --AnswerBuilder--> Deltas, Choice
                             ^--------Runner.decode-------'

The last conversation stays in the cache: a request that goes on from it reads only what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter

from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.engine.answer import AnswerBuilder
from qwen3vl.engine.conversation import Conversation, ConversationRunner, Prefilled, Progress
from qwen3vl.engine.output import OutputSplitter, ThinkingBudget
from qwen3vl.engine.sampler import SequenceSampler
from qwen3vl.engine.sequence import Prompt, check_context, room_for_answer
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.errors import UnsupportedOption
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.processor import Processor
from qwen3vl.processor.tokenizer import THINK_END, THINK_START
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import Choice, Completion, Delta, MediaReceipt, Messages, Timings, Tool, ToolChoice, Usage

_RESERVED_ANSWER = 1024  # tokens of an answer that the cache is laid out for at once


@dataclass(frozen=True, slots=True)
class _Work:
    """A checked request: everything that can be known before the model runs."""

    prompt: Prompt
    params: SamplingParams
    max_tokens: int
    thinking: bool
    read_calls: bool
    prepare_seconds: float


class SingleEngine:
    """One model; requests that run at the same time take turns, pass by pass.

    A stream that is not read to its end holds no lock: other requests go on beside it.

    Args:
        load: gives the model when it is first needed, so that bad requests fail before it is loaded.
        max_context: bound on prompt + answer in tokens; None: the checkpoint's own.
    """

    def __init__(
        self,
        processor: Processor,
        config: ModelConfig,
        load: Callable[[], Qwen3VL],
        *,
        name: str = "",
        policy: MediaPolicy | None = None,
        max_context: int | None = None,
    ) -> None:
        self.processor, self.config, self.name = processor, config, name
        self.policy = policy or MediaPolicy.library()
        self._load, self._max_context = load, max_context
        self._lock = threading.Lock()
        self._held: Conversation | None = None

    @cached_property
    def runner(self) -> ConversationRunner:
        return ConversationRunner(self._load())

    def stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: SequenceOf[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Delta]:
        """The answer piece by piece; the last Delta carries the Completion.

        The request is checked and its media are prepared at once, not when the first piece is asked for.
        """
        work = self._check(messages, params or SamplingParams(), media, tools, tool_choice)
        return self._run(work, progress)

    def forget(self) -> None:
        """Free the cache of the last conversation."""
        with self._lock:
            self._held = None

    def _check(
        self,
        messages: Messages,
        params: SamplingParams,
        media: MediaOptions | None,
        tools: SequenceOf[Tool] | None,
        tool_choice: ToolChoice | None,
    ) -> _Work:
        started = perf_counter()
        for name in ("json_schema", "regex", "grammar"):
            if getattr(params, name) is not None:
                raise UnsupportedOption(f"{name}: constrained output is not supported yet")
        if tool_choice not in (None, "auto", "none"):
            raise UnsupportedOption(
                f"tool_choice={tool_choice!r}: forced calls need constrained output; 'auto' or 'none'"
            )
        shown = tools if tool_choice != "none" else None  # a model that shall not call is not told of tools
        inputs = self.processor(messages, media=media, tools=shown, policy=self.policy)
        prompt = Prompt.of(inputs, self.config)
        check_context(prompt, params.max_tokens or 1, self.config, self._max_context)
        room = room_for_answer(prompt, self.config, self._max_context)
        thinking = self._ends_in_thinking(inputs.input_ids_T.tolist())
        if params.thinking_budget is not None and not thinking:
            raise UnsupportedOption("thinking_budget: this checkpoint's prompts do not begin with reasoning")
        return _Work(prompt, params, params.max_tokens or room, thinking, bool(shown), perf_counter() - started)

    def _ends_in_thinking(self, ids: list[int]) -> bool:
        return self.processor.tokenizer.decode(ids[-3:], skip_special_tokens=False).endswith(THINK_START + "\n")

    def _run(self, work: _Work, progress: Progress | None) -> Iterator[Delta]:
        with self._lock:
            sequence, self._held = self._held or self.runner.new_sequence(), None
        try:
            yield from self._run_in(sequence, work, progress)
        finally:  # also where the caller stops listening, or interrupts: what was read stays known
            self._held = sequence

    def _run_in(self, sequence: Conversation, work: _Work, progress: Progress | None) -> Iterator[Delta]:
        room = min(work.max_tokens, _RESERVED_ANSWER)
        with self._lock:
            prefilled = self.runner.prefill(sequence, work.prompt, room=room, progress=progress)
        started = perf_counter()
        answers: list[AnswerBuilder] = []
        for index in range(work.params.n):
            sequence.truncate(work.prompt.num_tokens)
            sequence.next_position = work.prompt.next_position
            answers.append(self._answer_builder(work, index))
            yield from self._answer(sequence, prefilled.logits_V, work, answers[-1], index)
        completion = self._completion(work, prefilled, answers, perf_counter() - started)
        yield Delta(finish_reason=completion.finish_reason, completion=completion)

    def _answer(
        self, sequence: Conversation, logits_V: Tensor, work: _Work, answer: AnswerBuilder, index: int
    ) -> Iterator[Delta]:
        tokenizer = self.processor.tokenizer
        stops = () if work.params.ignore_eos else tokenizer.eos_token_ids
        ids = work.prompt.inputs.input_ids_T.tolist()
        sampler = SequenceSampler(work.params, ids, len(logits_V), stop_ids=stops, choice=index)
        budget = self._thinking_budget(work)
        while True:
            token = sampler.sample(logits_V, forced=budget.next_forced() if budget is not None else None)
            if budget is not None:
                budget.record(token.token_id)
            yield from answer.push(token)
            if answer.finish_reason is not None:
                return
            with self._lock:
                logits_V = self.runner.decode([sequence], [token.token_id])[0]

    def _answer_builder(self, work: _Work, index: int) -> AnswerBuilder:
        tokenizer = self.processor.tokenizer
        return AnswerBuilder(
            tokenizer.incremental_decoder(),
            StopChecker(work.params, tokenizer.eos_token_ids, work.max_tokens),
            OutputSplitter(thinking=work.thinking, tool_calls=work.read_calls, index=index),
            index=index,
            end_think_id=tokenizer.id_of(THINK_END) if work.thinking else None,
        )

    def _thinking_budget(self, work: _Work) -> ThinkingBudget | None:
        if work.params.thinking_budget is None:
            return None
        tokenizer = self.processor.tokenizer
        closing = tokenizer.encode(f"\n{THINK_END}\n\n", allow_special=True)
        return ThinkingBudget(work.params.thinking_budget, closing, tokenizer.id_of(THINK_END))

    def _completion(
        self, work: _Work, prefilled: Prefilled, answers: SequenceOf[AnswerBuilder], seconds: float
    ) -> Completion:
        choices: tuple[Choice, ...] = tuple(answer.choice() for answer in answers)
        receipts = tuple(_receipts(work.prompt, prefilled.num_cached_tokens))
        tokens = {kind: sum(r.num_tokens for r in receipts if r.kind == kind) for kind in ("image", "video")}
        usage = Usage(
            prompt_tokens=work.prompt.num_tokens,
            completion_tokens=sum(len(choice.token_ids) for choice in choices),
            image_tokens=tokens["image"],
            video_tokens=tokens["video"],
            cached_tokens=prefilled.num_cached_tokens,
            reasoning_tokens=sum(answer.num_reasoning_tokens for answer in answers),
        )
        timings = Timings(work.prepare_seconds, prefilled.vision_seconds, prefilled.prefill_seconds, seconds)
        return Completion(choices, usage, receipts, timings, self.name)


def _receipts(prompt: Prompt, num_cached_tokens: int) -> Iterator[MediaReceipt]:
    """The receipts, marked where the cache held a whole picture or video."""
    ends = {span.visual: end for span, (_, end) in zip(prompt.inputs.spans, prompt.spans, strict=True)}
    for index, receipt in enumerate(prompt.inputs.receipts):
        yield replace(receipt, cache="prefix") if ends[index] <= num_cached_tokens else receipt
