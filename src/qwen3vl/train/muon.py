"""Muon: matrices move along the orthogonal factor of their momentum, so that all directions learn equally fast.

    momentum M = U S V'  ──►  U V'     times 0.2 sqrt(longer side): then a step is as large as one of AdamW's

(K. Jordan et al. 2024; the size of a step is that of Liu et al. 2025.) For a new small model it is worth three times
its data. U V' comes from the Gram matrix of the shorter side by a few matrix polynomials of degree five whose
coefficients are the best for each round (Amsel et al. 2025): singular values from a thousandth of the largest up come
out near one.

A matrix of stacked parts is turned part by part: q, k and v of a fused projection, and pieces of at most BLOCK along
the shorter side of a large one, which costs a fraction and loses nothing that shows. Of several processes that hold
the whole model each turns its share of the parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qwen3vl.train.distributed import ONE_PROCESS, Ranks

BLOCK = 128
_ROUNDS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
)
_STEP = 0.2


class Muon(torch.optim.Optimizer):
    """As torch's optimizers; all parameters are matrices. Those without a gradient stay.

    Each group has `lr` and `weight_decay` (decoupled, as AdamW's).
    """

    def __init__(self, groups: Sequence[dict[str, object]], momentum: float, ranks: Ranks = ONE_PROCESS) -> None:
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0, "momentum": momentum})
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        moved = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        moves = [self._momentum(parameter, group["momentum"]) for parameter, group in moved]
        orthogonalise(moves, self._ranks)
        for (parameter, group), move in zip(moved, moves, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(move, alpha=-group["lr"])

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient's place, now holding Nesterov's momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp_(state["momentum"], momentum)


def orthogonalise(matrices: Sequence[Tensor], ranks: Ranks = ONE_PROCESS) -> None:
    """Replace each part of each matrix by 0.2 sqrt(its longer side) times its orthogonal factor.

    Every process has the same matrices and turns each `size`-th part of a shape.
    """
    stacks: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        for part in parts(matrix):
            stacks.setdefault(part.shape, []).append(part)
    if not stacks:
        return
    turned = [orthogonal_factor(_share(own, ranks)) for own in stacks.values()]
    everyone = ranks.stack(torch.cat([factors.flatten() for factors in turned]))
    sizes = [factors.numel() for factors in turned]
    for (shape, own), factors in zip(stacks.items(), everyone.split(sizes, dim=1), strict=True):
        in_order = factors.view(ranks.size, -1, *shape).transpose(0, 1).flatten(0, 1)  # [share][rank] -> [part]
        for part, factor in zip(own, in_order, strict=False):
            part.copy_(factor * (_STEP * max(shape) ** 0.5))


def _share(matrices: Sequence[Tensor], ranks: Ranks) -> Tensor:
    """This process's matrices, stacked; as many as every other's: zeros stand for those that are lacking."""
    own = list(ranks.share(matrices))
    zeros = [torch.zeros_like(matrices[0])] * (-(-len(matrices) // ranks.size) - len(own))
    return torch.stack(own + zeros)


def parts(matrix: Tensor) -> tuple[Tensor, ...]:
    """Views of what is turned by itself, each at least as wide as high.

    (384, 128) is q, k and v: three of (128, 128). (512, 300) is two of (150, 512), (160, 416) is itself.
    """
    rows, columns = matrix.shape
    if rows == 3 * columns:
        return matrix.chunk(3)
    wide = matrix if rows <= columns else matrix.T
    return wide.chunk(max(1, len(wide) // BLOCK))


def orthogonal_factor(x_BRC: Tensor) -> Tensor:
    """About U V' of each matrix U S V', R <= C."""
    x_BRC = x_BRC / (1.02 * x_BRC.norm(dim=(1, 2), keepdim=True) + 1e-12)
    gram_BRR = x_BRC @ x_BRC.mT
    identity = torch.eye(gram_BRR.shape[1], device=x_BRC.device, dtype=x_BRC.dtype)
    factor_BRR = identity
    for number, (a, b, c) in enumerate(_ROUNDS):
        turn_BRR = a * identity + b * gram_BRR + c * (gram_BRR @ gram_BRR)
        factor_BRR = turn_BRR @ factor_BRR if number else turn_BRR
        if number + 1 < len(_ROUNDS):
            gram_BRR = turn_BRR @ gram_BRR @ turn_BRR
    return factor_BRR @ x_BRC
