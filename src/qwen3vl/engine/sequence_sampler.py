"""What is one sequence's own when its next token is chosen: settings, counts, and a stream of random numbers."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from qwen3vl.errors import InvalidParams
from qwen3vl.settings import SamplingParams


class SequenceSampler:
    """The sampling state of one sequence (one of the `n` answers of a request).

    Args:
        params: the request's settings.
        prompt_ids: the prompt, for the repetition penalty.
        vocab_size: V, the width of the logits.
        stop_ids: the checkpoint's end tokens; with `params.stop_token_ids` they are impossible
            before `params.min_tokens`.
        choice: index of the answer among `n`; each has random numbers of its own.

    Attributes:
        seed: the seed in use; drawn afresh where the request names none.

    Raises:
        InvalidParams: a token id in the settings lies outside the vocabulary.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int] | np.ndarray,
        vocab_size: int,
        *,
        stop_ids: Collection[int] = (),
        choice: int = 0,
    ) -> None:
        _check_ids("logit_bias", params.logit_bias, vocab_size)
        _check_ids("stop_token_ids", params.stop_token_ids, vocab_size)
        if params.top_logprobs > vocab_size:
            raise InvalidParams(f"top_logprobs={params.top_logprobs} is above the vocabulary of {vocab_size}")
        self.params = params
        self.num_generated = 0
        self.seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(4))
        self.generator = choice_generator(self.seed, choice)
        self.vocab_size = vocab_size
        self._stops = np.array(sorted({*stop_ids, *params.stop_token_ids}), dtype=np.int64)
        self._forbidden = np.empty(0, dtype=np.int64)
        self._counts: Counter[int] = Counter()
        ids = np.unique(np.asarray(prompt_ids if params.repetition_penalty != 1 else (), dtype=np.int64))
        assert len(ids) == 0 or 0 <= ids[0] <= ids[-1] < vocab_size, (ids, vocab_size)
        self._prompt_ids = frozenset(ids.tolist())
        self.repetition = TokenNumbers(dict.fromkeys(self._prompt_ids, params.repetition_penalty))
        self.offsets = TokenNumbers(params.logit_bias)

    @property
    def impossible(self) -> np.ndarray:
        """Tokens that must not come next."""
        early = self.num_generated < self.params.min_tokens
        return np.concatenate([self._stops, self._forbidden]) if early else self._forbidden

    def record(self, token_id: int) -> None:
        """Count a token that was generated, chosen or forced."""
        self.num_generated += 1
        self._forbidden = self._forbidden[:0]
        self._count(token_id, 1)

    def rewind(self, token_ids: Sequence[int], forbidden: Collection[int]) -> None:
        """Take back the last tokens; in the place of the first of them `forbidden` must not come. Numbers that
        were drawn stay drawn."""
        self.num_generated -= len(token_ids)
        assert self.num_generated >= 0, (self.num_generated, len(token_ids))
        self._forbidden = np.array(sorted(forbidden), dtype=np.int64)
        for token_id in token_ids:
            self._count(token_id, -1)

    def _count(self, token_id: int, by: int) -> None:
        """Keep the offsets at bias - count * frequency - (count > 0) * presence: OpenAI's rule, without O(T) work."""
        params = self.params
        self._counts[token_id] += by
        count = self._counts[token_id]
        if params.repetition_penalty != 1:
            seen = count > 0 or token_id in self._prompt_ids
            self.repetition[token_id] = params.repetition_penalty if seen else 1.0
        if params.presence_penalty or params.frequency_penalty:
            penalty = count * params.frequency_penalty + (params.presence_penalty if count else 0.0)
            self.offsets[token_id] = params.logit_bias.get(token_id, 0.0) - penalty


class TokenNumbers:
    """A number for some tokens, as arrays `ids_N` (each id once) and `values_N` (float32)."""

    def __init__(self, values: Mapping[int, float]) -> None:
        self._slots = {token_id: slot for slot, token_id in enumerate(values)}
        self._ids = np.array(list(values), dtype=np.int64)
        self._values = np.array(list(values.values()), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def ids_N(self) -> np.ndarray:  # noqa: N802
        return self._ids[: len(self)]

    @property
    def values_N(self) -> np.ndarray:  # noqa: N802
        return self._values[: len(self)]

    def __setitem__(self, token_id: int, value: float) -> None:
        slot = self._slots.setdefault(token_id, len(self))
        if slot == len(self._ids):
            self._ids = np.resize(self._ids, 2 * slot + 64)
            self._values = np.resize(self._values, 2 * slot + 64)
        self._ids[slot], self._values[slot] = token_id, value


def choice_generator(seed: int, choice: int) -> torch.Generator:
    """The random numbers of one answer.

    Seed and choice are hashed together, so that choice 1 of seed 7 is not choice 0 of seed 8; also,
    torch's CPU generator uses only 32 bits of what it is given, and seeds may be larger.
    """
    digest = hashlib.blake2b(f"{seed}:{choice}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _check_ids(name: str, token_ids: Collection[int], vocab_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidParams(f"{name}: token {token_id} is outside the vocabulary of {vocab_size} tokens")
