"""A model whose answers do not depend on their company: the same bits alone and in any batch, however a
prompt is cut, whatever a cache holds.

    matrix products, norms, router   in row tiles of verified shapes (row_tiles.py)
    attention                        tile_attention.py: blocks of keys at fixed positions, in fixed order
    silu                             out of operations that round every element alike
    experts                          summed in the order of their numbers, which is so anyway
    packed int4 and int8 products    nothing: the kernels' order does not depend on the batch
    vision tower                     nothing: a picture or video is always encoded whole, so in one shape

Everything else acts on each value for itself. What is assumed of the machine is checked when a model is
made deterministic, with its own weights, and holds for the number of threads that torch has then.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen3vl.errors import UnsupportedOption
from qwen3vl.kernels.cpu.library import library
from qwen3vl.model.attention import SdpaAttention
from qwen3vl.model.layers import RMSNorm, SwiGLU
from qwen3vl.model.moe import Experts, Router
from qwen3vl.model.packed_layers import PackedMatrix
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.row_tiles import RowFunction, RowTiles, verified_tiles
from qwen3vl.model.text import TextAttention
from qwen3vl.model.tile_attention import TileAttention

_SIZES = {"cpu": (8, 64, 512), "cuda": (64, 512)}  # few rows cost a GPU no more than one
_HEAD_SIZES = {"cpu": (8, 64), "cuda": (64, 512)}  # of large products, which take long to check
_LARGE = 2**27  # weights


def make_deterministic(model: Qwen3VL) -> None:
    """Change the decoder and the head of `model` for good; its weights stay where they are.

    Raises UnsupportedOption if this machine sums in an order that depends on the place of a row, or if the
    model uses an attention other than torch's own.
    """
    _check_elementwise(model.device)
    tiles = _Tiles()
    for name, module in [*model.language_model.named_modules(), ("lm_head", model.lm_head)]:
        if isinstance(module, TextAttention):
            if not isinstance(module.attention, SdpaAttention):
                raise UnsupportedOption("deterministic=True goes with torch's own attention only: leave attention out")
            module.attention = TileAttention(module.q_norm.weight.device, model.config.text)
            for norm, projection in ((module.q_norm, module.q_proj), (module.k_norm, module.k_proj)):
                heads = projection.out_features // module.head_dim
                _run_in_tiles(norm, tiles.of(norm, f"{name}'s norm of {heads} heads", (heads,)))
        elif isinstance(module, PackedMatrix) and library() is None:
            raise UnsupportedOption("deterministic=True needs the compiled CPU kernels where weights are quantised")
        elif isinstance(module, SwiGLU):
            module.gated = exactly_gated
        elif isinstance(module, Experts):
            module.gated, module.linear = exactly_gated, tiles.linear
            tiles.check(module.gate_up_proj[0], name)
            tiles.check(module.down_proj[0], name)
        elif isinstance(module, (nn.Linear, RMSNorm, Router)) and not name.endswith(("q_norm", "k_norm")):
            _run_in_tiles(module, tiles.of(module, name))


class _Tiles:
    """Verified tiles, once for every kind and shape."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], RowTiles] = {}

    def linear(self, x_TD: Tensor, weight: Tensor) -> Tensor:
        """`F.linear` in tiles."""
        tiles = self._known[_key(weight)]
        return tiles.apply(lambda part: F.linear(part, weight), x_TD)  # type: ignore[return-value]

    def check(self, weight: Tensor, what: str) -> RowTiles:
        """Find the tiles for `linear` with weights of this shape."""
        return self._find(_key(weight), lambda x: F.linear(x, weight), weight, what)

    def of(self, module: nn.Linear | RMSNorm | Router, what: str, inner: tuple[int, ...] = ()) -> RowTiles:
        """Find the tiles for a module that takes rows of shape (*inner, D)."""
        if isinstance(module, nn.Linear) and module.bias is None:
            return self.check(module.weight, what)
        function = module.forward
        if isinstance(module, nn.Linear):
            function = lambda x: F.linear(x, module.weight, module.bias)  # noqa: E731
        return self._find((type(module), inner, *_key(module.weight)), function, module.weight, what, inner)

    def _find(
        self, key: tuple[object, ...], function: RowFunction, weight: Tensor, what: str, inner: tuple[int, ...] = ()
    ) -> RowTiles:
        if key not in self._known:
            sizes = (_HEAD_SIZES if weight.numel() > _LARGE else _SIZES)[weight.device.type]
            generator = torch.Generator().manual_seed(0)
            rows = torch.randn(sizes[-1], *inner, weight.shape[-1], generator=generator).to(weight)
            label = f"{what} ({' x '.join(map(str, weight.shape))}, {str(weight.dtype).removeprefix('torch.')})"
            self._known[key] = verified_tiles(function, rows, sizes, label)
        return self._known[key]


def _key(weight: Tensor) -> tuple[object, ...]:
    return tuple(weight.shape), weight.dtype, weight.device


def _run_in_tiles(module: nn.Linear | RMSNorm | Router, tiles: RowTiles) -> None:
    inner: RowFunction = module.forward
    if isinstance(module, nn.Linear):  # without the kernels for few rows, which sum in another order than torch
        inner = lambda x: F.linear(x, module.weight, module.bias)  # noqa: E731
    module.forward = lambda x: tiles.apply(inner, x)  # type: ignore[method-assign, assignment, return-value]


def exact_silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) in float32. torch's own uses one exponential for whole vectors and another for the rest."""
    wide = x.float()
    return (wide / (1 + torch.exp(-wide))).to(x.dtype)


def exactly_gated(gate_TI: Tensor, up_TI: Tensor) -> Tensor:
    return exact_silu(gate_TI) * up_TI


def _check_elementwise(device: torch.device) -> None:
    """That these functions give an element the same bits wherever it lies."""
    x = torch.randn(70_001, generator=torch.Generator().manual_seed(0)).to(device) * 4
    for function in (torch.exp, torch.cos, torch.sin, torch.rsqrt):
        whole = function(x.abs())
        for start, end in _parts(len(x)):
            if not torch.equal(function(x[start:end].abs().clone()), whole[start:end]):
                raise UnsupportedOption(
                    f"deterministic=True: on this machine torch.{function.__name__} of an element depends on its place"
                )


def _parts(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, 40, 3):
        yield start, start + 1 + 7 * start
        yield start, length - start
