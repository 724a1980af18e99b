"""How long prompt and answer may be together."""

from __future__ import annotations

from qwen3vl.config import ModelConfig
from qwen3vl.engine.sequence import Prompt
from qwen3vl.errors import ContextTooLong


def room_for_answer(prompt: Prompt, config: ModelConfig, max_context: int | None = None) -> int:
    """How many tokens can follow the prompt; below 0 if it is too long itself.

    Tokens are bounded by max_position_embeddings, positions (fewer, where there are pictures) by what
    rotary was made for: with YaRN factor x original. `max_context` takes the place of both bounds.
    """
    if max_context is not None:
        return max_context - prompt.num_tokens
    text = config.text
    return min(text.max_position_embeddings - prompt.num_tokens, text.max_positions - prompt.next_position)


def check_context(prompt: Prompt, new_tokens: int, config: ModelConfig, max_context: int | None = None) -> None:
    """Raise ContextTooLong, with the numbers, if prompt and answer do not fit (see room_for_answer)."""
    if new_tokens <= room_for_answer(prompt, config, max_context):
        return
    limit = max_context or config.text.max_position_embeddings
    tokens = prompt.num_tokens + new_tokens
    if tokens > limit:
        raise ContextTooLong(
            f"the prompt has {prompt.num_tokens} tokens and the answer needs room for {new_tokens}: "
            f"together {tokens}, but the context holds {limit}"
        )
    raise ContextTooLong(
        f"prompt and answer reach position {prompt.next_position + new_tokens}, but the rotary embedding is made for "
        f"{config.text.max_positions}; state max_context to go beyond it all the same"
    )
