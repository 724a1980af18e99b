"""Which tokens of a row can be drawn, found without sorting 151,936 scores.

The scores of a batch are cut into blocks of 128 ids and the highest of each block is taken, which reads
every score once. Whatever is asked then looks into few blocks only:

    the best token                in the first block whose highest is the best
    the k best tokens             none is below the k-th of the blocks' highest: k blocks have such a token each
    tokens above a floor          in blocks whose highest is not below it

Example, blocks of 2, k = 2: scores 5 1 | 4 3 | 0 2 have the highest 5, 4, 2. The second of these is 4, so the
two best are among the tokens that are not below 4. With k = 3 the floor is 2, which leaves 5, 4, 3 and 2.

What is computed over a batch is exact (maxima, comparisons). What rounds is computed for each row on its own
few candidates, so that a row's company cannot change it.

B rows, V vocabulary, N blocks, W ids of a block, R rows asked about, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from qwen3vl.settings import SamplingParams

WIDTH = 128
SLACK = 1e-6  # relative: scores may tie once they are divided by the temperature, a few float32 steps apart


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tokens of one row with their scores, in ascending id; on the CPU."""

    ids_K: np.ndarray
    scores_K: np.ndarray


class Blocks:
    """Float32 scores [B, V] by blocks."""

    def __init__(self, scores_BV: Tensor) -> None:
        missing = -scores_BV.shape[-1] % WIDTH
        padded = pad(scores_BV, (0, missing), value=-math.inf) if missing else scores_BV
        self._blocks_BNW = padded.unflatten(-1, (-1, WIDTH))
        self._highest_BN = self._blocks_BNW.amax(dim=-1)

    def best(self) -> tuple[list[float], list[int]]:
        """The highest score of each row (NaN where the row has one) and the lowest id that has it."""
        highest_B, block_B = self._highest_BN.max(dim=-1)
        rows_B = torch.arange(len(block_B), device=block_B.device)
        inside_B = self._blocks_BNW[rows_B, block_B].argmax(dim=-1)
        return highest_B.tolist(), (block_B * WIDTH + inside_B).tolist()

    def floors(self, rows: Sequence[int], ks: Sequence[int]) -> list[float]:
        """For each of `rows` a score that its k highest are not below."""
        highest_RN = self._highest_BN[list(rows)].cpu().numpy()
        N = highest_RN.shape[1]
        return [
            -math.inf if k > N else float(np.partition(highest_N, N - k)[N - k])
            for highest_N, k in zip(highest_RN, ks, strict=True)
        ]

    def at_least(self, rows: Sequence[int], floors: Sequence[float]) -> list[Candidates]:
        """For each of `rows` the tokens that are not below its floor, but those of -inf."""
        device = self._highest_BN.device
        rows_R = torch.tensor(rows, device=device)
        floor_R1 = torch.tensor(floors, device=device)[:, None]
        which, block = (self._highest_BN[rows_R] >= floor_R1).nonzero(as_tuple=True)
        values_MW = self._blocks_BNW[rows_R[which], block].cpu().numpy()
        first_M, ends_R = block.cpu().numpy() * WIDTH, np.bincount(which.cpu().numpy(), minlength=len(rows)).cumsum()
        ids_MW = first_M[:, None] + np.arange(WIDTH)
        found = []
        for start, end, floor in zip((0, *ends_R[:-1]), ends_R, floors, strict=True):
            scores = values_MW[start:end]
            inside = (scores >= floor) & (scores > -math.inf)
            found.append(Candidates(ids_MW[start:end][inside], scores[inside]))
        return found


def floor_of(params: SamplingParams, best: float, kth: float, total: float, vocab_size: int) -> float:
    """A score that no token is below which top_k, top_p and min_p keep.

    Args:
        best, kth: the highest score, and a bound below the top_k highest.
        total: weight of the whole row relative to the best token.

    With top_p: V tokens whose weight is at most (1 - top_p) * total / V add up to what top_p removes, or less.
    """
    if params.top_k is not None:
        floor = kth
    else:
        least = max(params.min_p or 0.0, 0.99 * (1 - params.top_p) * total / vocab_size)
        floor = best + params.temperature * math.log(least)
    return floor - SLACK * (abs(floor) + abs(best))


def narrow(found: Candidates, params: SamplingParams, total: float | None) -> tuple[np.ndarray, np.ndarray]:
    """What temperature, top_k, top_p and min_p leave of the candidates. -> ids ascending, float64 weights.

    As in filters.warp, save where that hangs on the instability of a sort or the last bits of a sum: here
    sums are in float64 and the lowest ids of a tie stay.

    Args:
        total: weight of the whole row where top_p works on it (without top_k), relative to the best token.
    """
    ids_K, scaled_K = found.ids_K, found.scores_K / np.float32(params.temperature)
    if params.top_k is not None and params.top_k < len(ids_K):
        kept = scaled_K >= np.partition(scaled_K, -params.top_k)[-params.top_k]
        ids_K, scaled_K = ids_K[kept], scaled_K[kept]
    weights_K = np.exp(scaled_K.astype(np.float64) - scaled_K.max())
    if params.top_p == 1 and not params.min_p:
        return ids_K, weights_K
    order_K = np.argsort(-scaled_K, kind="stable")
    falling_K, num_kept = weights_K[order_K], len(ids_K)
    if params.top_p < 1:
        above_K = (falling_K.cumsum() - falling_K) / (falling_K.sum() if total is None else total)
        num_kept = max(1, int((above_K < params.top_p).sum()))
    if params.min_p:
        num_kept = min(num_kept, int((falling_K >= params.min_p).sum()))
    kept_K = np.sort(order_K[:num_kept])
    return ids_K[kept_K], weights_K[kept_K]
