"""The twin of attention.py in plain torch and float64: what the kernels must equal up to the rounding of float32."""

from __future__ import annotations

import torch
from torch import Tensor

from qwen3vl.kernels.cpu.attention import Plan


def attend(
    q_TNH: Tensor,
    k_KXH: Tensor,
    v_KXH: Tensor,
    plan: Plan,
    scales: tuple[Tensor, Tensor] | None = None,
    *,
    causal: bool,
) -> Tensor:
    """-> out_TNH in float64."""
    k_KXH, v_KXH = k_KXH.double(), v_KXH.double()
    if scales is not None:
        k_KXH, v_KXH = (x * scale[..., None].double() for x, scale in zip((k_KXH, v_KXH), scales, strict=True))
    num_heads, repeat = q_TNH.shape[1], q_TNH.shape[1] // len(k_KXH)
    out = []
    for start, length, past, first, count in plan.sequences_S5.tolist():
        slots_S = _slots(plan.runs_R2[first : first + count].tolist(), past + length)
        q_NTH = q_TNH[start : start + length].double().transpose(0, 1)
        k_NSH, v_NSH = (x[:, slots_S].repeat_interleave(repeat, 0) for x in (k_KXH, v_KXH))
        scores_NTS = q_NTH @ k_NSH.transpose(1, 2) * q_TNH.shape[2] ** -0.5
        if causal:
            hidden_TS = torch.arange(past + length) > torch.arange(past, past + length)[:, None]
            scores_NTS = scores_NTS.masked_fill(hidden_TS, float("-inf"))
        out.append((scores_NTS.softmax(-1) @ v_NSH).transpose(0, 1))
    return torch.cat(out) if out else q_TNH.new_empty(0, num_heads, q_TNH.shape[2], dtype=torch.float64)


def _slots(runs: list[list[int]], num_tokens: int) -> Tensor:
    """Of tokens 0 .. num_tokens: runs (0, 20), (4, 8) and 6 tokens are slots 20 21 22 23 8 9."""
    ends = [token for token, _ in runs[1:]] + [num_tokens]
    return torch.cat([torch.arange(slot, slot + end - token) for (token, slot), end in zip(runs, ends, strict=True)])
