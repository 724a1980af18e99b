"""A request being answered: its n answers, what makes text of their tokens, and in the end the Completion."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from qwen3vl.engine.answer import AnswerBuilder, TextDecoder
from qwen3vl.engine.output import END_THINK, OutputSplitter, ThinkingBudget
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.engine.sequence_sampler import SequenceSampler
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.engine.work import Work
from qwen3vl.model.cache import BlockTable
from qwen3vl.types import Completion, Delta, MediaReceipt, Timings, Usage


class Tokenizer(Protocol):
    """What the engine needs of processor.tokenizer.Tokenizer."""

    @property
    def eos_token_ids(self) -> Collection[int]: ...
    def incremental_decoder(self) -> TextDecoder: ...
    def id_of(self, token: str) -> int: ...
    def encode(self, text: str, *, allow_special: bool) -> list[int]: ...


class Writer:
    """Chooses the tokens of one sequence and makes text of them.

    Attributes:
        last_token_at: clock of its last token, for metrics.
    """

    def __init__(self, work: Work, index: int, tokenizer: Tokenizer, vocab_size: int) -> None:
        params, stops = work.params, tokenizer.eos_token_ids
        self.sampler = SequenceSampler(
            params,
            work.prompt.inputs.input_ids_T,
            vocab_size,
            stop_ids=() if params.ignore_eos else stops,
            choice=index,
        )
        self.builder = AnswerBuilder(
            tokenizer.incremental_decoder(),
            StopChecker(params, stops, work.max_tokens),
            OutputSplitter(thinking=work.thinking, tool_calls=work.read_calls, index=index),
            index=index,
            end_think_id=tokenizer.id_of(END_THINK) if work.thinking else None,
            loop_guard=params.loop_guard,
        )
        self.last_token_at: float | None = None
        self._budget: ThinkingBudget | None = None
        if params.thinking_budget is not None:
            closing = tokenizer.encode(f"\n{END_THINK}\n\n", allow_special=True)
            self._budget = ThinkingBudget(params.thinking_budget, closing, tokenizer.id_of(END_THINK))

    @property
    def finished(self) -> bool:
        return self.builder.finish_reason is not None

    @property
    def forced(self) -> int | None:
        """The token that must come next, if any."""
        return None if self._budget is None else self._budget.next_forced()

    def push(self, sequence: Sequence, token: SampledToken) -> tuple[Delta, ...]:
        """The sequence goes on with `token`, or back to before a loop. -> what can be shown now."""
        if self._budget is not None:
            self._budget.record(token.token_id)
        sequence.answer_ids.append(token.token_id)
        deltas = self.builder.push(token)
        rewind = self.builder.take_rewind()
        if rewind is not None:
            self.sampler.rewind(sequence.answer_ids[-rewind.num_tokens :], rewind.forbidden)
            if self._budget is not None:
                self._budget.rewind(rewind.num_tokens)
            sequence.truncate(sequence.num_tokens - rewind.num_tokens)
        return deltas


@dataclass(eq=False, slots=True)
class Job:
    """One request in the engine.

    Attributes:
        sequences: its n answers.
        arrived, first_token_at: clock.
        num_cached_tokens: tokens of the prompt that the prefix cache had when reading began; None before.
        seen, remembered: visuals that the vision tower saw, and those that the vision cache had.
        patches_seen, patches_to_see: of the visuals that were not in the prefix cache as a whole.
        vision_seconds: that the tower worked for this request.
    """

    work: Work
    sequences: list[Sequence]
    arrived: float
    first_token_at: float | None = None
    num_cached_tokens: int | None = None
    seen: set[int] = field(default_factory=set)
    remembered: set[int] = field(default_factory=set)
    patches_seen: int = 0
    patches_to_see: int = 0
    vision_seconds: float = 0.0

    @classmethod
    def of(cls, work: Work, number: int, block_size: int, tokenizer: Tokenizer, vocab_size: int, arrived: float) -> Job:
        """Request `number` with the sequences of its answers, the first of which has the others as siblings.

        Raises InvalidParams for token ids outside the vocabulary.
        """
        job = cls(work, [], arrived)
        for index in range(work.params.n):
            writer = Writer(work, index, tokenizer, vocab_size)
            table = BlockTable(block_size)
            job.sequences.append(Sequence(work.prompt, table, order=(number, index), job=job, writer=writer))
        job.sequences[0].siblings = job.sequences[1:]
        return job

    @property
    def writers(self) -> list[Writer]:
        return [sequence.writer for sequence in self.sequences if sequence.writer is not None]

    @property
    def finished(self) -> bool:
        return all(writer.finished for writer in self.writers)

    def begin(self, num_cached_tokens: int) -> None:
        """Reading begins behind what the prefix cache had. (Reading again after a preemption is no beginning.)"""
        if self.num_cached_tokens is not None:
            return
        self.num_cached_tokens = num_cached_tokens
        prompt = self.work.prompt
        left = {prompt.inputs.spans[n].visual for n, _, _ in prompt.spans_in(num_cached_tokens, prompt.num_tokens)}
        self.patches_to_see = sum(len(prompt.inputs.visuals[visual].patches) for visual in left)

    def give_up(self, reason: Literal["abort", "error"]) -> tuple[Delta, ...]:
        """End all answers. -> what was held back."""
        return tuple(delta for writer in self.writers for delta in writer.builder.give_up(reason))

    def last_delta(self, name: str, now: float) -> Delta:
        """With the Completion."""
        completion = self._completion(name, now)
        return Delta(finish_reason=completion.finish_reason, completion=completion)

    def _completion(self, name: str, now: float) -> Completion:
        choices = tuple(writer.builder.choice() for writer in self.writers)
        receipts = tuple(_receipts(self.work.prompt, self.num_cached_tokens or 0, self.remembered - self.seen))
        tokens = {kind: sum(r.num_tokens for r in receipts if r.kind == kind) for kind in ("image", "video")}
        usage = Usage(
            prompt_tokens=self.work.prompt.num_tokens,
            completion_tokens=sum(len(choice.token_ids) for choice in choices),
            image_tokens=tokens["image"],
            video_tokens=tokens["video"],
            cached_tokens=self.num_cached_tokens or 0,
            reasoning_tokens=sum(writer.builder.num_reasoning_tokens for writer in self.writers),
        )
        first = now if self.first_token_at is None else self.first_token_at
        reading = first - self.arrived - self.vision_seconds
        timings = Timings(self.work.prepare_seconds, self.vision_seconds, max(0.0, reading), now - first)
        return Completion(choices, usage, receipts, timings, name, self.work.id)


def _receipts(prompt: Prompt, num_cached_tokens: int, remembered: set[int]) -> Iterator[MediaReceipt]:
    """The receipts, marked with the cache that held a whole picture or video."""
    ends = {span.visual: end for span, (_, end) in zip(prompt.inputs.spans, prompt.spans, strict=True)}
    for index, receipt in enumerate(prompt.inputs.receipts):
        if ends[index] <= num_cached_tokens:
            yield replace(receipt, cache="prefix")
        elif index in remembered:
            yield replace(receipt, cache="vision")
        else:
            yield receipt
