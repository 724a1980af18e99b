"""The model as the task commands use it: with a progress bar, and with a memory of what was used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import Any, cast

from qwen3vl.cli.task_options import TaskOptions
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import ContextTooLong
from qwen3vl.types import Completion, Generator, MediaOptions, Messages, Request, SamplingParams, Tool, Usage


class Asker:
    """What tasks need of a Generator: `generate` and `generate_many`.

    A bound on the answer that is only a default gives way where the context has no room for it.

    Attributes:
        usage: summed over all answers.
        name: of the model.
        answers: what `generate` gave, in order.
        waiting: the progress bar.
        picture_bounds: the model's own, where it knows them: tasks choose sizes by them.
    """

    def __init__(self, model: Generator, waiting: Waiting, *, local: bool, fixed_length: bool) -> None:
        self._model, self.waiting, self._local, self._fixed = model, waiting, local, fixed_length
        self.usage, self.name = Usage(), ""
        self.answers: list[Completion] = []
        self.picture_bounds: tuple[int, int] | None = getattr(model, "picture_bounds", None)

    @property
    def generator(self) -> Generator:
        """This object, for tasks: they call nothing else of the protocol."""
        return cast(Generator, self)

    def generate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
    ) -> Completion:
        assert params is not None
        try:
            completion = self._one(messages, params, media, tools)
        except ContextTooLong:
            if self._fixed:
                raise
            completion = self._one(messages, replace(params, max_tokens=None), media, tools)
        self.answers.append(completion)
        return self._seen(completion)

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        asked: deque[Request] = deque()

        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        # The bar is a local model's; a server's answers come without one.
        options: dict[str, Any] = {"progress": self.waiting.stage} if self._local else {}
        for completion in self._model.generate_many(noted(), **options):
            request = asked.popleft()
            if isinstance(completion.error, ContextTooLong) and not self._fixed and request.params is not None:
                longer = replace(request, params=replace(request.params, max_tokens=None))
                completion = next(iter(self._model.generate_many([longer])))
            yield completion if completion.error else self._seen(completion)

    def _one(
        self,
        messages: Messages,
        params: SamplingParams,
        media: MediaOptions | None,
        tools: Sequence[Tool] | None,
    ) -> Completion:
        """Streamed, so that the bar moves and Ctrl-C is heard."""
        options: dict[str, Any] = {"media": media, "tools": tools}
        if self._local:
            options["progress"] = self.waiting.stage
        completion = None
        for delta in self._model.stream(messages, params, **options):
            self.waiting.stage("Answering")
            completion = delta.completion or completion
        assert completion is not None
        return completion

    def _seen(self, completion: Completion) -> Completion:
        self.usage = Usage(*map(sum, zip(astuple(self.usage), astuple(completion.usage), strict=True)))
        self.name = completion.model
        return completion


@contextmanager
def asking(options: TaskOptions) -> Iterator[Asker]:
    """The model that the options name; a progress bar is up inside the block."""
    with Waiting("Preparing") as waiting:
        model = options.open(lambda done, total: waiting.stage("Loading weights", done, total))
        try:
            yield Asker(model, waiting, local=options.server is None, fixed_length=options.max_tokens is not None)
        finally:
            if close := getattr(model, "close", None):
                close()
