"""The JSON documents that the command line prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qwen3vl.types import SCHEMA_VERSION, Choice, Completion


def completion_document(completion: Completion) -> dict[str, Any]:
    """A Completion: the first answer's fields on top; with several answers, all of them under `choices`."""
    document = {"schema_version": SCHEMA_VERSION, "model": completion.model, **_choice(completion.first)}
    if len(completion.choices) > 1:
        document["choices"] = [{"index": choice.index, **_choice(choice)} for choice in completion.choices]
    document["usage"] = asdict(completion.usage)
    document["timings"] = asdict(completion.timings) | {"first_token": completion.timings.first_token}
    document["receipts"] = [asdict(receipt) for receipt in completion.receipts]
    return document


def _choice(choice: Choice) -> dict[str, Any]:
    fields = {
        "text": choice.text,
        "reasoning": choice.reasoning,
        "tool_calls": [asdict(call) for call in choice.tool_calls],
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "token_ids": list(choice.token_ids),
    }
    if choice.logprobs is not None:
        fields["logprobs"] = [
            {
                "token_id": token.token_id,
                "logprob": token.logprob,
                "top": [{"token_id": i, "logprob": logprob} for i, logprob in token.top],
            }
            for token in choice.logprobs
        ]
    return fields
