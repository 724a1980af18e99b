"""The engine: schedule, run, sample, update.

Work --add--> Job, its Sequences wait in the Scheduler
  step:  Scheduler.schedule -> Batch; Runner.run -> logits_RV; BatchSampler.sample -> tokens; -> Outputs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import torch
from torch import Tensor

from qwen3vl.engine.block_manager import BlockManager
from qwen3vl.engine.job import Job, Tokenizer
from qwen3vl.engine.metrics import Recorder
from qwen3vl.engine.pace import Pace
from qwen3vl.engine.runner import Runner
from qwen3vl.engine.sampler import BatchSampler, SampledToken
from qwen3vl.engine.scheduler import Batch, Scheduler
from qwen3vl.engine.sequence import Sequence
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.vision_cache import VisionCache
from qwen3vl.engine.work import Output, Progress, Work
from qwen3vl.errors import ContextTooLong, GenerationError, Qwen3VLError
from qwen3vl.model.qwen3vl import PATCHES_PER_CHUNK, Qwen3VL
from qwen3vl.types import Delta


class Engine:
    """Answers many requests at once. Synchronous, for one thread; knows no messages, media or files.

    Args:
        num_blocks: of the cache (engine/memory.py says how many a budget gives).
        name: of the model, for Completions.
        clock: seconds, for metrics, timings and the reading share.
    """

    def __init__(
        self,
        model: Qwen3VL,
        tokenizer: Tokenizer,
        settings: EngineSettings,
        num_blocks: int,
        *,
        name: str = "",
        metrics: Recorder | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.settings, self.name, self.metrics = settings, name, metrics
        self.blocks = BlockManager(num_blocks, settings.block_size, settings.prefix_cache)
        cache = model.new_cache(num_blocks, settings.block_size, settings.kv_dtype)
        self.runner = Runner(model, cache, VisionCache(settings.vision_cache_bytes))
        self.pace = Pace(settings.reading_share, settings.max_batched_tokens)
        self.scheduler = Scheduler(
            self.blocks,
            self.pace,
            self.runner.needs_look,
            max_batched_tokens=settings.max_batched_tokens,
            max_sequences=settings.max_sequences,
        )
        self.sampler = BatchSampler()
        self.jobs: dict[str, Job] = {}
        self._outputs: dict[str, Output] = {}  # of this step
        self._tokenizer, self._vocab_size = tokenizer, model.config.text.vocab_size
        self._clock, self._num_arrived = clock, 0

    @property
    def has_work(self) -> bool:
        return bool(self.jobs)

    def add(self, work: Work) -> None:
        """Queue a request. Raises InvalidRequest for what can never be answered: nothing is kept of it then."""
        assert work.id not in self.jobs, work.id
        tokens, room = work.prompt.num_tokens + work.max_tokens, self.blocks.num_blocks * self.blocks.block_size
        if tokens > room:
            raise ContextTooLong(
                f"the prompt has {work.prompt.num_tokens} tokens and the answer needs room for {work.max_tokens}: "
                f"together {tokens}, but the key/value cache holds {room}"
            )
        size, now = self.blocks.block_size, self._clock()
        self.jobs[work.id] = job = Job.of(work, self._num_arrived, size, self._tokenizer, self._vocab_size, now)
        self._num_arrived += 1
        self.scheduler.add(job.sequences[0])

    def step(self) -> list[Output]:
        """One pass of the model; at most one Output per request. Call it while `has_work`."""
        started = self._clock()
        batch = self.scheduler.schedule()
        self._look(batch)
        batch, logits_RV = self._run(batch)
        writers = [sequence.writer for _, sequence in batch.writing if sequence.writer is not None]
        tokens = self.sampler.sample(logits_RV, [w.sampler for w in writers], [w.forced for w in writers])
        self.scheduler.update(batch)
        self._report_reading(batch)
        self._write(batch, tokens)
        self._measure(batch, self._clock() - started)
        return self._take_outputs()

    def abort(self, request_id: str) -> Output | None:
        """End a request now and free all it holds. -> its last Output (finish_reason "abort"); None: it is not here."""
        job = self._drop(request_id)
        if job is None:
            return None
        return Output(request_id, (*job.give_up("abort"), job.last_delta(self.name, self._clock())))

    def forget(self) -> None:
        """Empty the prefix and vision caches: after the weights changed, or to free memory."""
        self.blocks.forget()
        self.runner.vision_cache.clear()

    def check_integrity(self) -> None:
        """Raise AssertionError unless the requests that are here account for every block."""
        sequences = [sequence for job in self.jobs.values() for sequence in job.sequences]
        self.blocks.check_integrity(sequence.table for sequence in sequences)

    # ------------------------------------------------------------------------------- parts of a step

    def _look(self, batch: Batch) -> None:
        """The next piece of the vision tower; whole pictures if this pass decodes and nobody reads along.

        Every pass that decodes costs about the same, however few there are to decode: so they had better be many.
        """
        enough = PATCHES_PER_CHUNK if batch.num_decoding and not batch.num_streamed else 0
        for sequence in batch.looking:
            while (job := sequence.job) is not None and job.work.id in self.jobs:
                if not self.runner.needs_look(sequence, self.settings.max_batched_tokens):
                    break
                enough -= self._look_at(sequence, job)
                if enough <= 0:
                    return

    def _look_at(self, sequence: Sequence, job: Job) -> int:
        """-> patches done. What fails here fails for its own request."""
        started = self._clock()
        try:
            patches = self.runner.look(sequence, self.settings.max_batched_tokens)
        except Exception as error:
            self._fail(job, error)
            return 0
        job.vision_seconds += self._clock() - started
        if patches:
            job.patches_seen += patches
            self._emit(job, progress=(("vision", job.patches_seen, max(job.patches_seen, job.patches_to_see)),))
        return patches

    def _run(self, batch: Batch) -> tuple[Batch, Tensor]:
        """-> the batch without requests that failed; logits_RV.

        A pass that fails is tried again chunk by chunk, so that it fails for its own request only: what
        is written to the cache twice is the same both times.
        """
        batch = self._without_failed(batch)
        try:
            return batch, self.runner.run(batch)
        except Exception:
            rows = [self.runner.run(Batch())]
        for part in batch.parts():
            try:
                rows.append(self.runner.run(part))
            except Exception as error:
                job = part.chunks[0].sequence.job
                assert job is not None
                self._fail(job, error)
        return self._without_failed(batch), torch.cat(rows)

    def _write(self, batch: Batch, tokens: list[SampledToken]) -> None:
        """Give every answer its next token."""
        for (_, sequence), token in zip(batch.writing, tokens, strict=True):
            job, writer = sequence.job, sequence.writer
            assert job is not None and writer is not None
            if token.error is not None and job.work.id in self.jobs:
                self._fail(job, token.error)
            if job.work.id not in self.jobs:
                continue  # it failed, maybe in another of its answers
            self._time(job, sequence)
            before = sequence.num_tokens
            deltas = writer.push(sequence, token)
            if writer.finished:
                self._release(sequence)
            elif sequence.num_tokens <= before:
                self.scheduler.trim(sequence)
            if job.finished:
                del self.jobs[job.work.id]
                deltas += (job.last_delta(self.name, self._clock()),)
            self._emit(job, deltas)

    def _time(self, job: Job, sequence: Sequence) -> None:
        now, writer = self._clock(), sequence.writer
        assert writer is not None
        last, writer.last_token_at = writer.last_token_at, now
        first, job.first_token_at = job.first_token_at, job.first_token_at or now
        if self.metrics is None:
            return
        if last is not None:
            self.metrics.token(now - last)
        if first is None:
            self.metrics.first_token(now - job.arrived)
            prompt_tokens, hits = job.work.prompt.num_tokens, job.remembered - job.seen
            self.metrics.cache(job.num_cached_tokens or 0, prompt_tokens, len(hits), len(hits | job.seen))

    def _measure(self, batch: Batch, seconds: float) -> None:
        pace, looked = self.pace, bool(batch.looking)
        pace.record(batch.num_decoding, batch.num_streamed, batch.num_read, looked, seconds)
        if self.metrics is not None:
            self.metrics.step(seconds, batch.num_read, batch.num_decoding)
            waiting, running = len(self.scheduler.waiting), len(self.scheduler.running)
            self.metrics.gauges(waiting, running, self.blocks.num_used, self.blocks.num_blocks)

    def _report_reading(self, batch: Batch) -> None:
        for chunk in batch.chunks[batch.num_decoding :]:
            job = chunk.sequence.job
            if job is not None and job.first_token_at is None:
                known, of = job.num_cached_tokens or 0, job.work.prompt.num_tokens
                self._emit(job, progress=(("prefill", chunk.sequence.num_computed - known, of - known),))

    def _take_outputs(self) -> list[Output]:
        outputs, self._outputs = list(self._outputs.values()), {}
        return outputs

    def _emit(self, job: Job, deltas: tuple[Delta, ...] = (), progress: tuple[Progress, ...] = ()) -> None:
        """Add to what this step gives a request."""
        if deltas or progress:
            output = self._outputs.get(job.work.id, Output(job.work.id))
            self._outputs[job.work.id] = replace(
                output, deltas=output.deltas + deltas, progress=output.progress + progress
            )

    def _fail(self, job: Job, error: Exception) -> None:
        """The request is over; what it held is free."""
        if not isinstance(error, Qwen3VLError):
            wrapped = GenerationError(f"the model failed: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        deltas = job.give_up("error")
        self._emit(job, deltas)
        self._outputs[job.work.id] = replace(self._outputs.get(job.work.id, Output(job.work.id)), error=error)
        self._drop(job.work.id)

    def _drop(self, request_id: str) -> Job | None:
        job = self.jobs.pop(request_id, None)
        for sequence in job.sequences if job is not None else ():
            self._release(sequence)
        return job

    def _release(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.runner.forget(sequence)

    def _without_failed(self, batch: Batch) -> Batch:
        return batch.only(lambda sequence: sequence.job is not None and sequence.job.work.id in self.jobs)
