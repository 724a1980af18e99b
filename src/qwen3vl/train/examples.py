"""From a conversation to token ids and labels: what the model is given, and what it must say.

The labels are what the assistant's turns add to the prompt, up to and with the end of the turn: everything that
the chat template wrote for the turn behind the generation prompt. Which characters these are is known from the
template's own loop (ChatTemplate.render_turns); no token is searched for, so it does not matter what a user writes.

    <|im_start|>user\\nassistant?<|im_end|>\\n<|im_start|>assistant\\nYes.<|im_end|>\\n
                                                                    ^^^^^^^^^^^^^^^^  labels

The text is encoded in pieces cut where labels begin and end, so that each answer follows exactly the tokens that
its prompt would have. (Only an answer that begins with a new line is then encoded otherwise than the whole text
would be: "\\n" + "\\nYes" and not "\\n\\n" + "Yes".) The new line behind <|im_end|> is a label, as in the official
fine-tuning. A Thinking edition's generation prompt ends with <think>\\n, which is therefore no label there.

Shape names: T tokens of one conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwen3vl.errors import ConfigError, DataError, InvalidRequest, MediaError
from qwen3vl.inputs import ModelInputs, VisualSpan
from qwen3vl.processor.chat import Prompt, Turns
from qwen3vl.processor.control_tokens import ControlTokens
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.placeholders import Footprint, expand
from qwen3vl.processor.processor import Processor, media_parts
from qwen3vl.settings import MediaOptions
from qwen3vl.train.data import Example
from qwen3vl.types import TextPart

IGNORED = -100  # the label of a token that is not learnt; torch's and transformers' own value


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as the model reads it.

    Attributes:
        labels_T: int64; the token's own id where it is to be learnt, IGNORED elsewhere. Not shifted.
        where: names the example.
    """

    inputs: ModelInputs
    labels_T: np.ndarray
    where: str = ""

    def __post_init__(self) -> None:
        assert len(self.labels_T) == self.inputs.num_tokens, (len(self.labels_T), self.inputs.num_tokens)
        assert self.labels_T[0] == IGNORED, "nothing stands before the first token"

    @property
    def num_tokens(self) -> int:
        return self.inputs.num_tokens

    @property
    def num_labels(self) -> int:
        return int((self.labels_T != IGNORED).sum())


class Encoder:
    """Encodes examples for one checkpoint.

    Control tokens in what users, tools and the system say are text. In what the assistant says, those that a
    model may write (<tool_call>, <think>, <|box_start|>) act, and only those that hold the conversation together
    (<|im_start|>, <|im_end|>, <|image_pad|> ...) are text.

    Args:
        media: for all pictures and videos; an example's and a part's own come before these.
        policy: where media may come from (default: MediaPolicy.library()).
    """

    def __init__(
        self, processor: Processor, media: MediaOptions | None = None, policy: MediaPolicy | None = None
    ) -> None:
        self.processor = processor
        self._media, self._policy = media or MediaOptions(), policy
        template, tokenizer = processor.template, processor.tokenizer
        self._control_tokens = template.control_tokens(tokenizer)
        structural = tokenizer.special_ids & {tokenizer.added_tokens[t] for t in self._control_tokens.tokens}
        written = {t for t in self._control_tokens.tokens if t in template.literal_text}
        self._answer_tokens = ControlTokens(
            token
            for token, token_id in tokenizer.added_tokens.items()
            if token_id in structural and (token in written or token_id in tokenizer.eos_token_ids)
        )
        self._any_token = re.compile("|".join(map(re.escape, tokenizer.added_tokens)))
        self._known_forms: set[object] = set()
        self._opening = _split_at(template.generation_prompt, list(tokenizer.added_tokens))

    def __call__(self, example: Example) -> Encoded:
        """Decode the media and encode. Raises DataError with the example's name."""
        try:
            turns = self._render(example)
            media = self._media.merged_with(example.media)
            visuals = self.processor.prepare_media(example.messages, media=media, policy=self._policy)
            markers = [media.merged_with(part.media).video_markers for part in media_parts(example.messages)]
            footprints = [Footprint.of(visual, style) for visual, style in zip(visuals, markers, strict=True)]
            ids_T, labels_T, spans = self._expand(turns, example, footprints)
        except (InvalidRequest, MediaError) as error:
            raise DataError(f"{example.where}: {error}") from error
        return Encoded(ModelInputs(ids_T, tuple(visuals), tuple(spans)), labels_T, example.where)

    def measure(self, example: Example) -> tuple[int, int]:
        """-> tokens and labels of the example, from the headers of its media. Raises DataError."""
        try:
            media = self._media.merged_with(example.media)
            footprints = self.processor.footprints(example.messages, media=media, policy=self._policy)
            ids_T, labels_T, _ = self._expand(self._render(example), example, footprints)
        except (InvalidRequest, MediaError) as error:
            raise DataError(f"{example.where}: {error}") from error
        return len(ids_T), int((labels_T != IGNORED).sum())

    def _render(self, example: Example) -> Turns:
        form = self._form(example)
        turns = self.processor.template.render_turns(
            example.messages,
            tools=example.tools,
            control_tokens=self._control_tokens,
            answer_tokens=self._answer_tokens,
            check=form is None or form not in self._known_forms,
        )
        if form is not None:
            self._known_forms.add(form)
        return turns

    def _form(self, example: Example) -> object | None:
        """All that a template may look at but the words: conversations of a form need one check that nothing is left
        out. None where the words hold a control token, by which templates tell things apart."""
        if any(self._any_token.search(message.text + (message.reasoning or "")) for message in example.messages):
            return None
        messages = (
            (m.role, m.reasoning is None, len(m.tool_calls), tuple((type(p), p == TextPart("")) for p in m.content))
            for m in example.messages
        )
        return len(example.tools), tuple(messages)

    def _expand(
        self, turns: Turns, example: Example, footprints: Sequence[Footprint]
    ) -> tuple[np.ndarray, np.ndarray, list[VisualSpan]]:
        """-> input_ids_T, labels_T, spans."""
        ids: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        spans: list[VisualSpan] = []
        start, first = 0, 0
        for text, learnt, num_media in self._pieces(turns, example):
            own = footprints[first : first + num_media]
            piece = Prompt(text, turns.prompt.marks)
            piece_ids, piece_spans = expand(piece, own, self.processor.tokenizer, self._merge_size)
            spans += [replace(span, start=span.start + start, visual=span.visual + first) for span in piece_spans]
            ids.append(piece_ids)
            labels.append(piece_ids if learnt else np.full_like(piece_ids, IGNORED))
            start, first = start + len(piece_ids), first + num_media
        return np.concatenate(ids), np.concatenate(labels), spans

    @property
    def _merge_size(self) -> int:
        return self.processor.picture_settings.merge_size

    def _pieces(self, turns: Turns, example: Example) -> Iterator[tuple[str, bool, int]]:
        """The prompt in pieces: its text, whether it is learnt, and how many pictures and videos stand in it."""
        text, end, num_media = turns.prompt.text, 0, 0
        for message, (turn_start, turn_end) in zip(example.messages, turns.spans, strict=True):
            if message.role != "assistant":
                num_media += len(media_parts([message]))
                continue
            start = turn_start + self._opening_length(text[turn_start:turn_end])
            yield text[end:start], False, num_media
            yield text[start:turn_end], True, 0
            end, num_media = turn_end, 0
        if end < len(text):
            yield text[end:], False, num_media

    def _opening_length(self, turn: str) -> int:
        """How many characters of an assistant's turn the generation prompt gives.

        Compared control token by control token: the Thinking edition's prompt goes on with "<think>", but an
        earlier turn that begins with "<table>" shares only "<|im_start|>assistant\\n" with it, and not "<t".
        """
        length = 0
        for piece in self._opening:
            if not turn.startswith(piece, length):
                break
            length += len(piece)
        if length == 0:
            raise ConfigError("the chat template's assistant turns do not begin as its generation prompt does")
        return length


def _split_at(text: str, tokens: Sequence[str]) -> list[str]:
    """ "<|im_start|>assistant\\n" -> ["<|im_start|>", "assistant\\n"]."""
    pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    return [piece for piece in re.split(f"({pattern})", text) if piece]
