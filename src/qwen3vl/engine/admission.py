"""Whether a request can ever fit, before anything of it is decoded; and if not, what would help.

    Needs (tokens, bytes)  <= Capacity (context, cache, memory)     goes on, or waits for its turn
                           >  Capacity                              refused with both numbers and the options that help

Worked example: a context of 2048 tokens, 48 tokens of text and pictures of 300, 900 and 1500 tokens, an
answer of 200. 1800 are left for pictures: with at most 750 tokens each they take 300 + 750 + 750. A token
covers 32 x 32 pixels, so max_pixels=768000 is the option that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qwen3vl.engine.memory import format_bytes
from qwen3vl.engine.needs import Capacity, Needs
from qwen3vl.errors import ContextTooLong, InvalidRequest, MediaTooLarge
from qwen3vl.settings import MediaOptions

_ATTEMPTS = 4  # at finding a number of frames that fits

Remeasure = Callable[[MediaOptions], Needs]


def check(
    needs: Needs, capacity: Capacity, remeasure: Remeasure | None = None, media: MediaOptions | None = None
) -> None:
    """Raise if the request can never fit, with the numbers and with options that make it fit.

    Args:
        remeasure: the needs of the same request under other options: every option that is named has been tried.
        media: the options that it was measured with.

    Raises:
        ContextTooLong: tokens or positions. MediaTooLarge: bytes of its pictures and videos.
    """
    if capacity.holds(needs):
        return
    options = [*_other_options(needs, capacity)]
    if remeasure is not None and needs.visual_tokens:
        options += _media_options(needs, capacity, remeasure, media or MediaOptions())
    hint = f"; it would fit with {' or '.join(options)}" if options else ""
    if not options and needs.visual_tokens:
        hint = "; fewer pictures or videos need less"
    if needs.least_answer <= capacity.room(needs):
        raise MediaTooLarge(
            f"{_what(needs)} take {format_bytes(needs.media_bytes)} of memory before they are read, but there are "
            f"{format_bytes(capacity.media_bytes)} for them{hint}"
        )
    raise ContextTooLong(_too_many(needs, capacity) + hint)


def _too_many(needs: Needs, capacity: Capacity) -> str:
    tokens = needs.num_tokens
    of_which = f" ({needs.visual_tokens} of them for {_what(needs)})" if needs.visual_tokens else ""
    count = (
        f"the prompt has {needs.prompt_tokens} tokens{of_which} and the answer needs room for {needs.least_answer}: "
        f"together {tokens}, but "
    )
    if tokens > capacity.context_tokens:
        return f"{count}the context holds {capacity.context_tokens}"
    if tokens > capacity.cache_tokens:
        memory = format_bytes(capacity.cache_tokens * capacity.bytes_per_token)
        return f"{count}the key/value cache of {memory} holds {capacity.cache_tokens}"
    return (
        f"prompt and answer reach position {needs.next_position + needs.least_answer}, but the rotary embedding is "
        f"made for {capacity.positions}"
    )


def _other_options(needs: Needs, capacity: Capacity) -> Iterator[str]:
    """A shorter answer, a longer context, a larger cache: each where it alone is enough."""
    if needs.media_bytes > capacity.media_bytes:
        return
    if capacity.room(needs) >= 1:
        yield f"max_tokens={capacity.room(needs)}"
    in_context = needs.num_tokens <= capacity.context_tokens
    in_cache = needs.num_tokens <= capacity.cache_tokens
    in_positions = capacity.positions is None or needs.next_position + needs.least_answer <= capacity.positions
    if in_cache and in_positions and capacity.context_tokens < needs.num_tokens <= capacity.native_context:
        yield f"max_context={needs.num_tokens}"
    if in_cache and in_context and not in_positions:
        yield f"max_context={capacity.context_tokens} (stated, it lifts the bound on positions)"
    if in_context and in_positions and not in_cache:
        blocks = -(-needs.num_tokens // 64) * 64  # whole blocks of any usual size
        yield f"kv_memory={-(-blocks * capacity.bytes_per_token // 2**20)}MiB"
        if capacity.int8_cache_tokens is not None and needs.num_tokens <= capacity.int8_cache_tokens:
            yield "kv_dtype=int8"


def _media_options(needs: Needs, capacity: Capacity, remeasure: Remeasure, media: MediaOptions) -> Iterator[str]:
    """Options that make pictures and videos small enough, each tried out."""

    def fits(changes: dict[str, int]) -> bool:
        try:
            return capacity.holds(remeasure(media.merged_with(MediaOptions(**changes))))  # type: ignore[arg-type]
        except InvalidRequest:  # against another option, such as min_pixels
            return False

    for candidates in (_smaller(needs, capacity), _fewer_frames(needs, capacity)):
        found = next((changes for changes in candidates if fits(changes)), None)
        if found is not None:
            yield ", ".join(f"{name}={value}" for name, value in found.items())


def _smaller(needs: Needs, capacity: Capacity) -> Iterator[dict[str, int]]:
    """A bound on every picture and video.

    Frames are counted in twos, halves to even, when the size of a video is chosen: its tokens may exceed
    total_pixels by two frames' worth at most.
    """
    cap = _largest_cap((*needs.pictures, *needs.videos), _room_for_media(needs, capacity))
    for spare in (0, 1, 2) if needs.videos else (0,):
        changes = {}
        if needs.pictures:
            changes["max_pixels"] = cap * needs.pixels_per_token
        if needs.videos:
            shortest = min(needs.num_frames)
            changes["total_pixels"] = 2 * cap * needs.pixels_per_token * max(1, shortest - spare) // shortest
        if cap:
            yield changes


def _fewer_frames(needs: Needs, capacity: Capacity) -> Iterator[dict[str, int]]:
    if not needs.videos or needs.pictures:
        return
    room = max(0, _room_for_media(needs, capacity))
    frames = max(needs.num_frames) * room // sum(needs.videos) // 2 * 2
    for _ in range(_ATTEMPTS):  # fewer frames may be shown larger, so fewer still may be needed
        if frames >= 2:
            yield {"num_frames": frames}
        frames = frames // 4 * 2


def _room_for_media(needs: Needs, capacity: Capacity) -> int:
    """Visual tokens that would fit; may be negative."""
    by_tokens = needs.visual_tokens + capacity.room(needs) - needs.least_answer
    return min(by_tokens, capacity.media_bytes * needs.visual_tokens // max(1, needs.media_bytes))


def _largest_cap(counts: Sequence[int], room: int) -> int:
    """The largest c with sum(min(count, c)) <= room; 0 if there is none. (300, 900, 1500), 1800 -> 750."""
    left = room
    for i, count in enumerate(sorted(counts)):
        cap = left // (len(counts) - i)
        if count > cap:
            return max(0, cap)
        left -= count
    return max(counts, default=0)


def _what(needs: Needs) -> str:
    """ "3 pictures and 1 video"."""
    parts = [
        f"{len(tokens)} {name}{'s' if len(tokens) > 1 else ''}"
        for tokens, name in ((needs.pictures, "picture"), (needs.videos, "video"))
        if tokens
    ]
    return " and ".join(parts)
