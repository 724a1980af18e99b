"""`qwen3vl chat`: one question about pictures and videos, or a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from qwen3vl.cli.options import LookOptions, ModelOptions, SamplingOptions, command


@command
def chat(
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="[PICTURE|VIDEO]... [QUESTION]", help="Files or URLs, then the question; - reads it from stdin."
        ),
    ] = None,
    image: Annotated[list[str] | None, Option(help="A picture, whatever its name; may be repeated.")] = None,
    video: Annotated[list[str] | None, Option(help="A video, whatever its name; may be repeated.")] = None,
    system: Annotated[str | None, Option(help="The system prompt.")] = None,
    load: Annotated[Path | None, Option(help="Go on with a conversation written by /save.")] = None,
    show_reasoning: Annotated[
        bool | None,
        Option(
            "--show-reasoning/--hide-reasoning",
            help="Reasoning of Thinking editions, on stderr; shown by default where that is a terminal.",
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document instead of the text.")] = False,
    verbose: Annotated[bool, Option("--verbose", help="Print on stderr what the model saw, and the timings.")] = False,
    *,
    model: ModelOptions,
    sampling: SamplingOptions,
    look: LookOptions,
) -> None:
    """Ask about pictures and videos: qwen3vl chat photo.jpg "What is this?"

    Without a question the chat is interactive; /help there lists its commands. Files are told from the question
    by being there, videos from pictures by their endings (a GIF is a picture, unless given with --video).
    Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    from qwen3vl.cli.conversation import Conversation
    from qwen3vl.cli.interactive import Interactive
    from qwen3vl.cli.media import check_headers, read_arguments
    from qwen3vl.cli.output import Screen
    from qwen3vl.errors import InvalidParams

    asked = read_arguments(inputs or (), image or (), video or ())
    sampling.check_output(as_json and asked.question is not None)
    if as_json and asked.question is None:
        raise InvalidParams("--json needs a question")
    if load is not None and system is not None:
        raise InvalidParams("--load brings its own system prompt: leave out --system")
    conversation = Conversation(system) if load is None else Conversation.load(load)
    session = Interactive(
        model, sampling, look, conversation, Screen(show_reasoning, silent=as_json), list(asked.media), verbose
    )
    check_headers(asked.media)
    if asked.question is None:
        session.run()
        return
    completion = session.ask(asked.question)
    if as_json:
        from qwen3vl.cli.document import completion_document

        print(json.dumps(completion_document(completion), ensure_ascii=False, indent=2), flush=True)
