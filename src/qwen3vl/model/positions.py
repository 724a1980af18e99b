"""Positions of tokens along time, height and width.

Text advances all three axes together. A picture of h x w merged patches keeps time still while rows
and columns count up from the same start, and the text behind it goes on at start + max(h, w).
Each temporal patch of a video is such a picture of its own: its timestamp is ordinary text before it.

A worked example: 2 text tokens, a picture of 2 x 3 merged patches, 2 text tokens.

    token     0  1 | 2  3  4  5  6  7 | 8  9
    time      0  1 | 2  2  2  2  2  2 | 5  6
    height    0  1 | 2  2  2  3  3  3 | 5  6
    width     0  1 | 2  3  4  2  3  4 | 5  6

10 tokens end at position 7, so the next token (index 10) gets position 7: the "rope delta" is -3.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qwen3vl.inputs import VisualSpan


def mrope_positions(
    num_tokens: int, spans: Iterable[VisualSpan], merge_size: int, start: int = 0
) -> tuple[np.ndarray, int]:
    """-> (positions_3T int64, position of the next token).

    `spans` are in order and lie within the tokens; `start` is the position of the first token, for a
    prompt that continues a conversation.
    """
    positions_3T = np.empty((3, num_tokens), dtype=np.int64)
    token, position = 0, start
    for span in spans:
        rows, columns = (side // merge_size for side in span.grid_hw)
        assert token <= span.start and span.start + rows * columns <= num_tokens, (span, token, num_tokens)
        positions_3T[:, token : span.start] = np.arange(position, position + span.start - token)
        position += span.start - token
        token = span.start + rows * columns
        visual = positions_3T[:, span.start : token]
        visual[0] = position
        visual[1] = position + np.arange(rows).repeat(columns)
        visual[2] = position + np.tile(np.arange(columns), rows)
        position += max(rows, columns)
    positions_3T[:, token:] = np.arange(position, position + num_tokens - token)
    return positions_3T, position + num_tokens - token
